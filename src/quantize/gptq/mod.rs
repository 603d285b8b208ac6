//! [`Gptq`]: rounding whose errors later columns make up for.

mod codes;
mod group;
mod learn;
mod polish;
#[cfg(test)]
mod tests;

use crate::kernel::sweep;
use crate::model::Sparsity;
use crate::{Element, Error, Parameter, Result};

pub(super) use learn::{Learned, Start, learn};

/// GPTQ rounding: columns are rounded one after another, and the error of each is made up for by the columns that
/// follow, as the Gram matrix G of the calibration inputs says.
///
/// With H = G + damp · mean(diag G) · I, rounding column j of a row leaves the error δ = w − ŵ, and the columns that
/// are not yet rounded move by what keeps δ·H·δᵀ least. For an embedding G is Σ Wᵀ·W of the weights that read its
/// features through a coupling.
///
/// * Rows of the result are never worse than nearest rounding to the same kind of codes: the row whose δ·G·δᵀ is lower
///   is kept, and [`Outcome::rows_nearest`](crate::quantize::Outcome::rows_nearest) counts how often that is nearest
///   rounding's. The errors of [`Outcome`](crate::quantize::Outcome) are those of rows evenly spread where those of all
///   would take more than 2³¹ multiplications (a square layer of more than 1,290 columns); a note then says so.
/// * A weight that is 0 stays 0.
/// * Inputs that were always 0 feed nothing forward: their weights are rounded to nearest. With fewer samples than
///   inputs the damping is what makes H invertible; where that is not enough it is raised tenfold, up to six times, and
///   a note of the outcome says so.
/// * Scales of groups are found when the sweep reaches them, from the weights as they then are. With
///   [`static_groups`](Self::static_groups), and always with [`act_order`](Self::act_order) (the stored form has no
///   place for a permutation), they are those of the original weights.
///
/// With [`sparsity`](Self::sparsity) or [`n_of_m`](Self::n_of_m) the same sweep also chooses which weights go: before the
/// columns of a block are rounded, those weights of it become 0 whose loss costs least (w² / [H⁻¹]ⱼⱼ, the saliency of
/// the Optimal Brain Surgeon, after all that the columns before ask of them), and the rest makes up for both.
/// Nearest rounding, with which rows are compared, is then that of the weights that stay.
///
/// Defaults: damp 0.01, columns in their order, one sweep in the range that [`Uniform`](crate::quantize::Uniform) finds. Needs [`Needs::GRAM`](crate::Needs::GRAM) and
/// recorded inputs; a layer without them is an error. An embedding whose readers no coupling names is rounded to
/// nearest in the range of least squared error, with a note.
///
/// Frantar, Ashkboos, Hoefler, Alistarh: GPTQ, accurate post-training quantization for generative pre-trained
/// transformers (2023). For the weights that go: Frantar, Alistarh: `SparseGPT`, massive language models can be accurately
/// pruned in one-shot (2023).
///
/// ```
/// use ndarray::array;
/// use niwaki::quantize::{Bits, Gptq, Quantizer, Uniform};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::builder().parameter(Parameter::linear("fc", array![[0.4f32, 0.4, 1.0]])).build()?;
/// let mut evidence = Evidence::new(&model, Needs::GRAM);
/// evidence.record_input("fc", &array![[1.0f32, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]])?;
/// let layer = evidence.layer(&model, "fc")?;
/// // Steps of 1: both 0.4 would be 0; the second makes up for the first.
/// let ternary = Uniform::new(Bits::new(2)?);
/// assert_eq!(ternary.quantize(&layer)?.decode::<f32>(), array![[0.0, 0.0, 1.0]].into_dyn());
/// let tensor = ternary.rounding(Gptq::new()).quantize(&layer)?;
/// assert_eq!(tensor.decode::<f32>(), array![[0.0, 1.0, 1.0]].into_dyn());
/// assert!(tensor.outcome().is_some_and(|o| o.error < o.nearest));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Gptq {
    damp: f64,
    block: usize,
    act_order: bool,
    static_groups: bool,
    centred: bool,
    thin: Thin,
    search: bool,
    polish: usize,
}

/// What the sweep takes away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Thin {
    Nothing,
    Share(Sparsity),
    NOfM { keep: usize, of: usize },
}

impl Default for Gptq {
    fn default() -> Self {
        Self {
            damp: 0.01,
            block: 128,
            act_order: false,
            static_groups: false,
            centred: false,
            thin: Thin::Nothing,
            search: false,
            polish: 0,
        }
    }
}

impl Gptq {
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

    /// Columns among which [`sparsity`](Self::sparsity) looks for the weights that go: at least 1. Codes do not depend
    /// on it otherwise.
    ///
    /// # Errors
    /// 0.
    pub fn block(self, block: usize) -> Result<Self> {
        if block == 0 { Err(Error::setting("a block of 0 columns")) } else { Ok(Self { block, ..self }) }
    }

    /// Columns in falling order of the mean square of their inputs: those that matter most are rounded while most
    /// others can still make up for them. Scales of groups are then those of the original weights.
    pub fn act_order(self) -> Self {
        Self { act_order: true, ..self }
    }

    /// Scales of groups from the original weights.
    pub fn static_groups(self) -> Self {
        Self { static_groups: true, ..self }
    }

    /// Takes G around the mean of the inputs where a bias, or a batch norm that directly follows, can take what
    /// rounding does to the mean output: use it with
    /// [`correct_bias`](crate::compress::CompressorBuilder::correct_bias).
    pub fn centred(self) -> Self {
        Self { centred: true, ..self }
    }

    /// Also sets this share of each weight to 0: of its n values, floor(n · s), those that are 0 already among them. In
    /// place of [`n_of_m`](Self::n_of_m). Embeddings stay whole: their entries are few numbers each, read one at a time.
    ///
    /// As with [`SparseGpt`](crate::prune::SparseGpt), a [`block`](Self::block) should be several times narrower than the
    /// rows.
    pub fn sparsity(self, sparsity: Sparsity) -> Self {
        Self { thin: Thin::Share(sparsity), ..self }
    }

    /// Also keeps only `keep` of every `of` consecutive inputs of a row (of channels, at each tap of a convolution), as
    /// [`NOfM`](crate::prune::NOfM) does. In place of [`sparsity`](Self::sparsity). Embeddings stay whole.
    ///
    /// # Errors
    /// Unless 1 ≤ keep ≤ of.
    pub fn n_of_m(self, keep: usize, of: usize) -> Result<Self> {
        if keep == 0 || keep > of {
            return Err(Error::setting(format!("cannot keep {keep} of every {of} weights")));
        }
        Ok(Self { thin: Thin::NOfM { keep, of }, ..self })
    }

    /// Sweeps once for each of 16 ranges, 100 % to 40 % of the range found, and keeps for each row the codes that leave
    /// the lowest δ·H·δᵀ. Only where rows have scales of their own. Best with [`Range::MinMax`](crate::quantize::Range);
    /// takes 16 times as long and pays below 4 bits.
    pub fn search(self) -> Self {
        Self { search: true, ..self }
    }

    /// After the sweep, up to this many rounds in which the scale of each row is solved again and each code takes the
    /// best value that the others leave it (default 0). Pays where weights also go. Scales stay where rows have
    /// several, or none of their own.
    pub fn polish(self, rounds: usize) -> Self {
        Self { polish: rounds, ..self }
    }

    /// The same, without weights that go.
    pub(super) fn whole(self) -> Self {
        Self { thin: Thin::Nothing, ..self }
    }

    pub(super) fn is_centred(self) -> bool {
        self.centred
    }

    /// Whether the layer can take the pattern.
    pub(super) fn check<F: Element>(self, parameter: &Parameter<F>, width: usize) -> Result<()> {
        let Thin::NOfM { keep, of } = self.thin else { return Ok(()) };
        let inputs = width / parameter.taps().max(1);
        if inputs.is_multiple_of(of) {
            return Ok(());
        }
        let (name, shape) = (parameter.name(), parameter.shape());
        Err(Error::shape(format!(
            "layer `{name}` {shape:?}: {keep} of {of}: its {inputs} inputs are not a multiple of {of}"
        )))
    }
}
