//! `SmoothQuant`'s scales: outliers of activations move into weights.

use crate::evidence::Inputs;
use crate::model::{CoupledSlot, Passage};
use crate::rescale::equalize::{FURTHEST, raise, ranges};
use crate::rescale::{Migration, Rescale, units};
use crate::{Element, Error, Evidence, Model, Needs, Result};

/// Shares the difficulty of rounding between activations and the weights that read them: `s_i` = max |`x_i`|^α /
/// max |`w_i`|^(1 − α), `x_i` the inputs that read unit i and `w_i` the columns that read it. Activations shrink by it.
///
/// It is meant for networks whose activations are rounded too, which happens where they run and not here; with weights
/// alone in few bits [`Awq`](crate::rescale::Awq) is the better choice. α is 0.5 unless said; towards 1 more moves into
/// the weights. Units that are 0 on either side stay, passages of whose readers no inputs were recorded too.
///
/// Xiao, Lin, Seznec, Wu, Demouth, Han: `SmoothQuant` (2022).
///
/// ```
/// use ndarray::array;
/// use niwaki::rescale::{Rescale, Smooth};
/// use niwaki::{Coupling, Evidence, Model, Needs, NormRole, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::norm("norm", array![1.0, 1.0], NormRole::Scale))
///     .parameter(Parameter::linear("fc", array![[4.0, 1.0], [1.0, 0.25]]))
///     .passage(Coupling::builder("norm").outputs(["norm"]).inputs(["fc"]))
///     .build()?;
/// let mut evidence = Evidence::new(&model, Needs::MOMENTS);
/// evidence.record_input("fc", &array![[9.0f32, 4.0], [-16.0, 1.0]])?;
/// let migration = Smooth::new().plan(&model, &evidence)?;
/// assert_eq!(migration.factors().next(), Some(("norm", &[2.0, 2.0][..])));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smooth {
    alpha: f64,
}

impl Smooth {
    /// α = 0.5.
    pub fn new() -> Self {
        Self { alpha: 0.5 }
    }

    /// How much of the activations' range moves, in [0, 1].
    pub fn alpha(self, alpha: f64) -> Self {
        Self { alpha }
    }
}

impl Default for Smooth {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Element> Rescale<F> for Smooth {
    fn plan(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<Migration> {
        units::check(model, evidence)?;
        let mut moved = model.clone();
        let mut total = Migration::new();
        for passage in model.passages() {
            let names: Vec<&str> = passage.readers().iter().map(CoupledSlot::parameter).collect();
            let seen = total.apply_to_evidence(model, &evidence.only(&names))?;
            if let Some(factors) = self.factors(&moved, &seen, passage)? {
                let step = Migration::new().scale(passage.name(), factors)?;
                moved = step.apply(&moved)?;
                total = total.then(step)?;
            }
        }
        Ok(total)
    }

    fn check(&self) -> Result<()> {
        if (0.0..=1.0).contains(&self.alpha) {
            return Ok(());
        }
        Err(Error::setting(format!("alpha {} is outside [0, 1]", self.alpha)))
    }

    fn needs(&self) -> Needs {
        Needs::MOMENTS
    }
}

impl Smooth {
    fn factors<F: Element>(
        self,
        model: &Model<F>,
        evidence: &Evidence<F>,
        passage: &Passage,
    ) -> Result<Option<Vec<f64>>> {
        let peaks = units::of_inputs(model, evidence, passage, Inputs::max_abs)?;
        let Some(peaks) = peaks else { return Ok(None) };
        let mut weights = vec![0.0; passage.size()];
        for slot in passage.readers() {
            raise(&mut weights, slot, &ranges(model, slot.parameter(), slot.axis())?);
        }
        let factor = |(&x, &w): (&f64, &f64)| {
            let factor = x.powf(self.alpha) / w.powf(1.0 - self.alpha);
            if x > 0.0 && w > 0.0 { factor.clamp(FURTHEST.recip(), FURTHEST) } else { 1.0 }
        };
        Ok(Some(peaks.iter().zip(&weights).map(factor).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_has_a_range() {
        for alpha in [-0.1, 1.1, f64::NAN] {
            assert!(Rescale::<f32>::check(&Smooth::new().alpha(alpha)).is_err());
        }
        assert!(Rescale::<f32>::check(&Smooth::new().alpha(1.0)).is_ok());
    }
}
