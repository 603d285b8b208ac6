//! How sparsity grows over the steps of iterative work.

use crate::prune::Sparsity;

/// The course of sparsity from `s_i` at step 0 to `s_f` at step T.
///
/// Default: cubic, which removes most in the first steps, while there is much to spare.
///
/// Zhu, Gupta: To prune, or not to prune (2017), for the cubic course.
///
/// ```
/// use niwaki::prune::{Schedule, Sparsity};
///
/// # fn main() -> niwaki::Result<()> {
/// let (from, to) = (Sparsity::new(0.0)?, Sparsity::new(0.5)?);
/// let course = |schedule: Schedule| [0, 1, 2].map(|step| schedule.at(step, 2, from, to).removed());
/// assert_eq!(course(Schedule::OneShot), [0.0, 0.5, 0.5]);
/// assert_eq!(course(Schedule::Linear), [0.0, 0.25, 0.5]);
/// assert_eq!(course(Schedule::Cubic), [0.0, 0.4375, 0.5]);
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// `s_f` from step 1 on.
    OneShot,
    /// `s_t = s_f + (s_i − s_f)(1 − t/T)`
    Linear,
    /// `s_t = s_f + (s_i − s_f)(1 − t/T)³` (default)
    #[default]
    Cubic,
}

impl Schedule {
    /// Sparsity after `step` of `steps`, on the way `from` one `to` the other. From the last step on it is `to`.
    pub fn at(self, step: usize, steps: usize, from: Sparsity, to: Sparsity) -> Sparsity {
        if step == 0 && steps > 0 {
            return from;
        }
        if step >= steps || self == Self::OneShot {
            return to;
        }
        let left = 1.0 - step as f64 / steps as f64;
        let share = if self == Self::Cubic { left.powi(3) } else { left };
        // Between two sparsities, so a sparsity.
        Sparsity::new(to.removed() + (from.removed() - to.removed()) * share).unwrap_or(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn courses_rise_from_one_end_to_the_other() {
        let (from, to) = (Sparsity::new(0.1).unwrap(), Sparsity::new(0.999).unwrap());
        for schedule in [Schedule::OneShot, Schedule::Linear, Schedule::Cubic] {
            let course: Vec<f64> = (0..=9).map(|t| schedule.at(t, 7, from, to).removed()).collect();
            assert_eq!((course[0], course[7], course[9]), (0.1, 0.999, 0.999));
            assert!(course.windows(2).all(|pair| pair[0] <= pair[1]), "{course:?}");
            assert_eq!(schedule.at(0, 0, from, to), to);
        }
    }
}
