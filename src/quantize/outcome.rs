//! How well a learned rounding did.

/// What a method that learns its rounding has to say of one layer: the error that it leaves, beside that of nearest
/// rounding to the same kind of codes, and what it fell back on.
///
/// Errors are ‖X·(W − Ŵ)ᵀ‖² / ‖X·Wᵀ‖² over the inputs X of the calibration run (for an embedding, over the weights
/// that read it). Where rows evenly spread stand for all of a very large weight, a note says so.
///
/// ```
/// use ndarray::Array;
/// use niwaki::quantize::{Bits, Distillation, Quantizer, Uniform};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = Array::from_shape_fn((8, 12), |(i, j)| ((5 * i + 3 * j) as f32).sin());
/// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
/// let mut evidence = Evidence::new(&model, Needs::HELD_OUT);
/// let inputs = Array::from_shape_fn((200, 12), |(i, j)| ((i * i % 97) as f32 + (i * j % 31) as f32) / 64.0);
/// evidence.record_input("fc", &inputs)?;
/// let tensor = Distillation::new(Uniform::new(Bits::FOUR)).quantize(&evidence.layer(&model, "fc")?)?;
/// let outcome = tensor.outcome().unwrap();
/// assert!(outcome.error < outcome.nearest && outcome.notes.is_empty());
/// assert!(outcome.held_out.is_some_and(|(ours, nearest)| ours < nearest));
/// assert_eq!(outcome.rows, 8);
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The error over the inputs that it learned from.
    pub error: f64,
    /// That of nearest rounding.
    pub nearest: f64,
    /// Both over samples that were held out: its own, and that of nearest rounding.
    pub held_out: Option<(f64, f64)>,
    /// Its own error, and that of nearest rounding, on the input x = mean + L·z for which it is the largest, with L·Lᵀ
    /// the covariance of the inputs and ‖z‖² at most their number: ‖(W − Ŵ)·x‖² over the mean of ‖W·x‖². `None` where
    /// it was not looked for, as for embeddings.
    pub worst_case: Option<(f64, f64)>,
    /// Rows of the weight, and how many of them nearest rounding served better, so that they keep it.
    pub rows: usize,
    /// See [`rows`](Self::rows).
    pub rows_nearest: usize,
    /// What was done in place of what was asked for, and why.
    pub notes: Vec<String>,
}

/// Something that goes along with a value and is no part of its equality.
#[derive(Clone, Debug, Default)]
pub(super) struct Aside<T>(pub(super) T);

impl<T> PartialEq for Aside<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
