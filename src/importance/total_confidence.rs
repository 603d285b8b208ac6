//! How sure one can be of a unit's mean output, and whether that is one answer or two.

use crate::importance::discrepancy::discrepancy;
use crate::importance::{Importance, Score, narrow, position_map, student};
use crate::kernel::par;
use crate::{Element, Error, Layer, Needs, Result};

/// Σ over positions of U·(1 + D): what a unit leaves uncertain, more if it answers in two modes.
///
/// U, the uncertainty score, is the half-width of the 95 % confidence interval of the mean output over n samples,
/// times √n: t·s, with s² = Σ (y − mean)² / (n − 1) and t the 97.5 % quantile of Student's t at n − 1 degrees of
/// freedom. It is exactly 0 for an output that never changes.
///
/// D, the discrepancy score, splits the outputs in two clusters (1-D two-means: the split of least squares within).
/// Each cluster's 95 % interval is its mean ± 1.96 of its standard deviations; D is the gap between the two intervals
/// over the pooled standard deviation √(((n₁ − 1)·s₁² + (n₂ − 1)·s₂²) / (n₁ + n₂ − 2)), and 0 where they overlap, as
/// they do for one normal or uniform bump, or where a cluster is a single sample.
///
/// The map is U·(1 + D) at each position; a weight without spatial axes has one position a unit. A single weight's
/// score is |w| times its unit's. Needs [`Needs::HISTOGRAMS`] and at least two samples; else the error names the
/// layer.
///
/// What the binning costs: U is exact. D sees the 64 bins of a [`Histogram`](crate::evidence::Histogram), to which each cluster's variance adds
/// w²/12 for the width w of a bin, that of values spread evenly in it. So D is too small by up to a few percent where
/// modes are wide, and at most about 220 where they are points.
///
/// What few samples cost: one bump can look like two, by a small D. Of 2,000 simulated units at 50, 100, 200 and 500
/// samples it happened to 0.1 % or less of normal ones, to 17, 7, 2 and 0 % of uniform ones, to 36, 22, 10 and 1 % of
/// rectified normal ones. Rare outliers far from the rest count as a mode of their own.
///
/// ```
/// use ndarray::Array2;
/// use niwaki::importance::{Importance, TotalConfidence};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let fc = Parameter::linear("fc", Array2::<f32>::ones((3, 2)));
/// let model = Model::builder().parameter(fc).build()?;
/// let mut evidence = Evidence::new(&model, Needs::HISTOGRAMS);
/// // Evenly spread; in two modes of the same variance; always 5.
/// let output = Array2::from_shape_fn((300, 3), |(i, unit)| {
///     let even = (i as f32 - 149.5) / 150.0;
///     [even, 0.5773 * even.signum(), 5.0][unit]
/// });
/// evidence.record_output("fc", &output)?;
/// let layer = evidence.layer(&model, "fc")?;
/// let units = TotalConfidence::new().score(&layer)?.per_unit(layer.parameter());
/// assert!(units[1] > units[0] && units[0] > 1.0 && units[2] == 0.0);
/// assert_eq!(TotalConfidence::new().ambiguous(&layer)?, [1]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TotalConfidence;

impl TotalConfidence {
    /// The criterion; it has no settings.
    pub fn new() -> Self {
        Self
    }

    /// The units with D > 0 at some position, ascending: they answer in two modes and may need more training.
    ///
    /// # Errors
    /// As the score's: the layer's histograms were not kept.
    pub fn ambiguous<F: Element>(&self, layer: &Layer<'_, F>) -> Result<Vec<usize>> {
        let discrepancies = discrepancies(layer)?;
        let units = layer.positions()?.shape().first().copied().unwrap_or(0);
        let places = (discrepancies.len() / units.max(1)).max(1);
        let per_unit = discrepancies.chunks(places).enumerate();
        Ok(per_unit.filter(|(_, d)| d.iter().any(|&d| d > 0.0)).map(|(unit, _)| unit).collect())
    }
}

impl<F: Element> Importance<F> for TotalConfidence {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        let (discrepancies, axis) = (discrepancies(layer)?, layer.parameter().out_axis());
        let positions = layer.positions()?;
        let count = positions.moments().count();
        if count < 2 {
            let name = layer.name();
            return Err(Error::missing(format!(
                "layer `{name}`: outputs of {count} samples were recorded, TotalConfidence needs at least 2"
            )));
        }
        let uncertainties = uncertainties(&positions.moments().variance(), count);
        let map: Vec<f64> =
            uncertainties.iter().zip(discrepancies).map(|(u, discrepancy)| u * (1.0 + discrepancy)).collect();
        let units = positions.shape().first().copied().unwrap_or(0);
        let places = (map.len() / units.max(1)).max(1);
        let scores = map.chunks(places).map(|unit| unit.iter().sum()).collect();
        Ok(Score::units(axis, narrow(scores)).with_map(axis, position_map(layer, positions, map)?))
    }

    fn needs(&self) -> Needs {
        Needs::HISTOGRAMS
    }
}

/// U of positions, from their population variances over `count` ≥ 2 samples.
fn uncertainties(variances: &[f64], count: u64) -> Vec<f64> {
    let freedom = count.saturating_sub(1).max(1);
    let (quantile, correction) = (student::quantile_975(freedom), count as f64 / freedom as f64);
    variances.iter().map(|variance| quantile * (variance * correction).sqrt()).collect()
}

/// D of each position.
fn discrepancies<F: Element>(layer: &Layer<'_, F>) -> Result<Vec<f64>> {
    let histograms = layer.histograms()?;
    Ok(par::map(histograms.len(), |at| discrepancy(&histograms[at])))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array4, ArrayD, array};

    use super::*;
    use crate::importance::discrepancy::tests::{normal, uniform};
    use crate::kernel::seed;
    use crate::{ErrorKind, Evidence, Geometry, Model, Parameter};

    fn evidence(output: &ArrayD<f64>, needs: Needs) -> (Model<f64>, Evidence<f64>) {
        let units = output.shape()[1];
        let parameter = if output.ndim() == 2 {
            Parameter::linear("layer", Array2::ones((units, 1)))
        } else {
            Parameter::conv("layer", Array4::ones((units, 1, 1, 1)), Geometry::new())
        };
        let model = Model::builder().parameter(parameter).build().unwrap();
        let mut evidence = Evidence::new(&model, needs);
        evidence.record_output("layer", output).unwrap();
        (model, evidence)
    }

    #[test]
    fn intervals_cover_the_true_mean_in_95_of_100() {
        let mut stream = seed::stream(1, "coverage");
        for n in [3usize, 8, 25] {
            let covers = |_: &usize| {
                let sample: Vec<f64> = (0..n).map(|_| 4.0 + 2.0 * normal(&mut stream)).collect();
                let mean = sample.iter().sum::<f64>() / n as f64;
                let variance = sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
                (mean - 4.0).abs() <= uncertainties(&[variance], n as u64)[0] / (n as f64).sqrt()
            };
            let share = (0..20_000).filter(covers).count() as f64 / 20_000.0;
            assert!((share - 0.95).abs() < 0.01, "{n}: {share}");
        }
    }

    #[test]
    fn bimodal_before_noisy_before_constant_and_dead() {
        let mut stream = seed::stream(4, "units");
        let mut output = Array2::zeros((2000, 5));
        for (i, mut row) in output.rows_mut().into_iter().enumerate() {
            let side = if i.is_multiple_of(2) { 1.0 } else { -1.0 };
            row.assign(&array![
                0.0,
                normal(&mut stream),
                (side + 0.1 * normal(&mut stream)) / 1.01f64.sqrt(),
                7.3,
                (uniform(&mut stream) - 0.5) * 12f64.sqrt(),
            ]);
        }
        // Exactly equal variances.
        for unit in [1, 2, 4] {
            let deviation = output.column(unit).std(0.0);
            output.column_mut(unit).mapv_inplace(|x| x / deviation);
        }
        let (model, evidence) = evidence(&output.into_dyn(), Needs::HISTOGRAMS);
        let layer = evidence.layer(&model, "layer").unwrap();
        let criterion = TotalConfidence::new();
        let score = criterion.score(&layer).unwrap();
        score.check(layer.parameter()).unwrap();
        let units = score.per_unit(layer.parameter());
        assert!(units[2] > 2.0 * units[1] && units[2] > 2.0 * units[4], "{units}");
        assert!((units[1] - 1.961).abs() < 0.01 && (units[4] - units[1]).abs() < 1e-9);
        assert_eq!((units[0], units[3]), (0.0, 0.0));
        assert_eq!(criterion.ambiguous(&layer).unwrap(), [2]);
    }

    #[test]
    fn a_unit_sums_its_map() {
        let output = Array4::from_shape_fn((60, 2, 2, 3), |(n, c, h, w)| {
            // Position (1, 1, 2) alone has two modes.
            if (c, h, w) == (1, 1, 2) {
                f64::from(u8::from(n < 20))
            } else {
                ((n * 7) % 60) as f64 * w as f64
            }
        });
        let (model, evidence) = evidence(&output.into_dyn(), Needs::HISTOGRAMS);
        let layer = evidence.layer(&model, "layer").unwrap();
        let score = TotalConfidence::new().score(&layer).unwrap();
        let (map, units) = (score.map().unwrap(), score.per_unit(layer.parameter()));
        assert_eq!(map.shape(), [2, 2, 3]);
        for unit in 0..2 {
            let sum = map.index_axis(ndarray::Axis(0), unit).sum();
            assert!((units[unit] - sum).abs() < 1e-12 * sum);
        }
        assert_eq!(map[[0, 0, 0]], 0.0);
        let deviation = layer.positions().unwrap().moments().std_dev()[1] * (60f64 / 59.0).sqrt();
        assert!((map[[0, 0, 1]] - student::quantile_975(59) * deviation).abs() < 1e-12 * deviation);
        assert_eq!(TotalConfidence::new().ambiguous(&layer).unwrap(), [1]);
    }

    #[test]
    fn names_what_is_missing() {
        let message = |output: &ArrayD<f64>, needs| {
            let (model, evidence) = evidence(output, needs);
            let layer = evidence.layer(&model, "layer").unwrap();
            let error = TotalConfidence::new().score(&layer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MissingEvidence);
            assert!(error.to_string().contains("`layer`"));
            error.to_string()
        };
        assert!(message(&array![[1.0], [2.0]].into_dyn(), Needs::MAPS).contains("Needs::HISTOGRAMS"));
        assert!(message(&array![[1.0]].into_dyn(), Needs::HISTOGRAMS).contains("at least 2"));
        let parameter = Parameter::linear("fc", array![[1.0f32]]);
        let error = TotalConfidence::new().ambiguous(&Layer::new(&parameter)).unwrap_err();
        assert!(error.to_string().contains("outputs"));
    }
}
