//! What the loss of a weight costs when the others of its row make up for it.

use ndarray::{Array2, ArrayD};

use crate::evidence::objective::{Objective, Rows};
use crate::importance::{Importance, Score};
use crate::kernel::{linalg, par, sweep};
use crate::{Element, Layer, Needs, Result};

/// How often a damping that is not enough is raised tenfold.
const RAISES: i32 = 6;

/// w² / [H⁻¹]ⱼⱼ: how much the squared error of the layer's output grows when weight j of a row goes and the other
/// weights of the row take the values that make up for it best. H = G + damp · mean(diag G) · I, G the Gram matrix of the
/// calibration inputs.
///
/// Where the layer has a bias, or a batch norm directly follows, that takes the constant and G is taken around the
/// mean, as recoveries do; [`uncentred`](Self::uncentred) says otherwise. For an embedding G is Σ Wᵀ·W of the
/// weights that read its features through a coupling. A unit's score is the L2 norm of its weights' scores.
///
/// [`SparseGpt`](crate::prune::SparseGpt) reads these scores, and the matrices with them.
///
/// Defaults: damp 0.01, columns in their order. Needs [`Needs::GRAM`]; without recorded inputs the error names the
/// layer.
///
/// Hassibi, Stork: Second order derivatives for network pruning: Optimal Brain Surgeon (1993), layer by layer as in
/// Frantar, Alistarh: Optimal Brain Compression (2022).
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{BrainSurgeon, Importance};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::builder().parameter(Parameter::linear("fc", array![[2.0f32, 2.0, 2.0]])).build()?;
/// let mut evidence = Evidence::new(&model, Needs::GRAM);
/// // The first two inputs are nearly the same: either can stand in for the other.
/// evidence.record_input("fc", &array![[1.0f32, 1.1, 0.0], [-1.0, -1.0, 1.0], [0.5, 0.5, -1.0]])?;
/// let score = BrainSurgeon::new().score(&evidence.layer(&model, "fc")?)?;
/// let scores = score.per_weight(model.parameter("fc")?);
/// assert!(scores[[0, 0]] < scores[[0, 2]] && scores[[0, 1]] < scores[[0, 2]]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BrainSurgeon {
    damp: f64,
    uncentred: bool,
    act_order: bool,
}

/// What [`SparseGpt`](crate::prune::SparseGpt) needs beyond scores.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Surgery {
    /// One for each group of a convolution.
    pub(crate) grams: Vec<Array2<f64>>,
    pub(crate) rows: Rows,
    pub(crate) damp: f64,
    pub(crate) act_order: bool,
    /// Axes of the weight.
    pub(crate) axes: usize,
}

impl Default for BrainSurgeon {
    fn default() -> Self {
        Self { damp: 0.01, uncentred: false, act_order: false }
    }
}

impl BrainSurgeon {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How much of the mean diagonal of G is added to each entry of its diagonal: above 0 and finite.
    ///
    /// # Errors
    /// Not above 0, or not finite.
    pub fn damp(self, damp: f64) -> Result<Self> {
        Ok(Self { damp: sweep::damping(damp)?, ..self })
    }

    /// G as it is, also where something could take the constant.
    pub fn uncentred(self) -> Self {
        Self { uncentred: true, ..self }
    }

    /// Lets [`SparseGpt`](crate::prune::SparseGpt) go through the columns in falling order of the mean square of their
    /// inputs. Scores are the same.
    pub fn act_order(self) -> Self {
        Self { act_order: true, ..self }
    }
}

impl<F: Element> Importance<F> for BrainSurgeon {
    fn score(&self, layer: &Layer<'_, F>) -> Result<Score<F>> {
        let objective = Objective::of(layer, !self.uncentred)?;
        let (rows, values) = (objective.rows, layer.parameter().values());
        let inverses: Vec<Vec<f64>> = par::map(objective.grams.len(), |group| {
            let gram = &objective.grams[group];
            self.inverse(gram).unwrap_or_else(|| vec![1.0; gram.nrows()])
        });
        let mut scores = vec![F::zero(); values.len()];
        for row in 0..rows.count {
            for (column, &inverse) in inverses[rows.group(row)].iter().enumerate() {
                let at = rows.at(row, column);
                scores[at] = F::narrow(values[at].widen().powi(2) / inverse);
            }
        }
        let shape = layer.parameter().shape();
        let scores = ArrayD::from_shape_vec(shape, scores).unwrap_or_else(|_| ArrayD::zeros(shape));
        let grams = objective.grams.into_iter().map(std::borrow::Cow::into_owned).collect();
        let surgery = Surgery { grams, rows, damp: self.damp, act_order: self.act_order, axes: shape.len() };
        Ok(Score::elements(scores).with_surgery(surgery))
    }

    fn needs(&self) -> Needs {
        Needs::GRAM
    }
}

impl BrainSurgeon {
    /// The diagonal of H⁻¹; `None` when the inputs are all 0.
    fn inverse(&self, gram: &Array2<f64>) -> Option<Vec<f64>> {
        let mean = gram.diag().mean().filter(|mean| *mean > 0.0)?;
        (0..=RAISES).find_map(|raise| {
            let mut h = gram.clone();
            h.diag_mut().iter_mut().for_each(|x| *x += self.damp * 10f64.powi(raise) * mean);
            Some(linalg::inverse_diagonal(&linalg::cholesky(h)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::{ErrorKind, Evidence, Model, Parameter};

    #[test]
    fn is_what_the_best_compensation_leaves() {
        let w = array![[0.5f64, -1.0, 2.0], [1.0, 0.0, -0.5]];
        let x = array![[1.0, 0.5, -0.3], [0.2, -1.0, 0.8], [-0.7, 0.1, 1.2], [0.9, 0.9, 0.4]];
        for by_rows in [true, false] {
            let parameter = if by_rows {
                Parameter::linear("w", w.clone())
            } else {
                Parameter::linear("w", w.t().as_standard_layout().into_owned()).axes(1, 0)
            };
            let model = Model::builder().parameter(parameter).build().unwrap();
            let mut evidence = Evidence::new(&model, Needs::GRAM);
            evidence.record_input("w", &x).unwrap();
            let layer = evidence.layer(&model, "w").unwrap();
            let score = BrainSurgeon::new().damp(1e-12).unwrap().score(&layer).unwrap();
            let scores = score.per_weight(layer.parameter());
            let gram = x.t().dot(&x);
            for (row, w) in w.rows().into_iter().enumerate() {
                for gone in 0..3 {
                    // Least squares over the two that are left: eliminate by hand.
                    let (a, b) = ((gone + 1) % 3, (gone + 2) % 3);
                    let (g, d) = (&gram, gram[[a, a]] * gram[[b, b]] - gram[[a, b]].powi(2));
                    let (ra, rb) = (g[[a, gone]] * w[gone], g[[b, gone]] * w[gone]);
                    let (ma, mb) =
                        ((ra * g[[b, b]] - rb * g[[a, b]]) / d, (rb * g[[a, a]] - ra * g[[a, b]]) / d);
                    let left = w[gone] * w[gone] * g[[gone, gone]] - ma * ra - mb * rb;
                    let found = if by_rows { scores[[row, gone]] } else { scores[[gone, row]] };
                    assert!((found - left).abs() < 1e-9, "{row} {gone}: {found} {left}");
                }
            }
        }
    }

    #[test]
    fn names_what_is_missing() {
        let parameter = Parameter::linear("fc", array![[1.0f32]]);
        let error = BrainSurgeon::new().score(&Layer::new(&parameter)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingEvidence);
        assert!(error.to_string().contains("`fc`"));
        assert!(BrainSurgeon::new().damp(0.0).is_err());
    }
}
