//! No opinion.

use ndarray::{Array1, ArrayD};
use rand::RngExt;

use crate::importance::{Importance, Score};
use crate::kernel::seed;
use crate::{Element, Layer, Result};

/// Uniform in [0, 1), for each weight and for each unit: the baseline that every criterion must beat.
///
/// The numbers depend on the seed (plus the [layer's](Layer::seed)) and the layer's name alone, so other layers and threads change nothing. Needs no
/// evidence.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Importance, Random};
/// use niwaki::{Layer, Parameter};
///
/// let parameter = Parameter::linear("fc", array![[1.0f32, 2.0], [3.0, 4.0]]);
/// let score = |seed| Random::new(seed).score(&Layer::new(&parameter));
/// assert_eq!(score(7)?, score(7)?);
/// assert_ne!(score(7)?, score(8)?);
/// # Ok::<(), niwaki::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// The ranking of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }
}

impl<F: Element> Importance<F> for Random {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        let parameter = layer.parameter();
        let mut stream = seed::stream(self.seed.wrapping_add(layer.seed()), layer.name());
        let mut uniform = || F::narrow(f64::from(stream.random::<u32>() >> 8) / f64::from(1 << 24));
        // Units get numbers of their own: norms of random slices would hardly differ.
        let units: Array1<F> = (0..parameter.units()).map(|_| uniform()).collect();
        let elements = ArrayD::from_shape_simple_fn(parameter.shape(), uniform);
        Ok(Score::elements(elements).along(parameter.out_axis(), units))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::Parameter;

    #[test]
    fn is_uniform_and_differs_between_layers() {
        let of = |name: &str, seed| {
            let parameter = Parameter::linear(name, Array2::<f32>::ones((100, 100)));
            let score = Random::new(seed).score(&Layer::new(&parameter)).unwrap();
            score.check(&parameter).unwrap();
            (score.per_weight(&parameter), score.per_unit(&parameter))
        };
        let (weights, units) = of("a", 0);
        assert!((weights.mean().unwrap() - 0.5).abs() < 0.01);
        assert!((weights.std(0.0) - 1.0 / 12f32.sqrt()).abs() < 0.01);
        assert!(weights.iter().all(|&x| (0.0..1.0).contains(&x)));
        assert!((units.mean().unwrap() - 0.5).abs() < 0.1 && units.std(0.0) > 0.2);
        assert_ne!(of("b", 0).0, weights);
        assert_ne!(of("a", 1).0, weights);
    }
}
