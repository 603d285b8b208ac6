//! [`Teacher`]: the caller's network, and what it says of a student.

use ndarray::{Array, ArrayD, Dimension};

use crate::{Element, Model, Result};

/// What runs the network: it compares a student with the original and says which way its parameters should go.
///
/// The student is a model with the names and shapes of the one that is trained; its weights hold the values that
/// their codes decode to. A closure `FnMut(&Model<F>, usize) -> Result<Loss<F>>` is a teacher that holds nothing out.
///
/// Errors of the caller's engine go through as [`Error::new`](crate::Error::new) makes them.
pub trait Teacher<F: Element> {
    /// How far the student is from the original on the batch of this step (from 0), and the gradients of that.
    ///
    /// # Errors
    /// Whatever the caller's engine may say; it ends the training.
    fn loss(&mut self, student: &Model<F>, step: usize) -> Result<Loss<F>>;

    /// The loss on samples that no step trains on, or `None` (default) if there are none. It is asked for before the
    /// first step and then from time to time; the student with the lowest is the result.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    fn held_out(&mut self, student: &Model<F>) -> Result<Option<f64>> {
        let _ = student;
        Ok(None)
    }
}

impl<F: Element, T: FnMut(&Model<F>, usize) -> Result<Loss<F>>> Teacher<F> for T {
    fn loss(&mut self, student: &Model<F>, step: usize) -> Result<Loss<F>> {
        self(student, step)
    }
}

/// A loss and its gradients in the parameters.
///
/// ```
/// use ndarray::array;
/// use niwaki::distill::Loss;
///
/// let loss = Loss::new(0.25).gradient("fc", array![[0.5f32, -1.0]]);
/// assert_eq!(loss.value(), 0.25);
/// assert_eq!(loss.gradients().map(|(name, _)| name).collect::<Vec<_>>(), ["fc"]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Loss<F> {
    value: f64,
    gradients: Vec<(String, ArrayD<F>)>,
}

impl<F: Element> Loss<F> {
    /// A loss without gradients yet.
    pub fn new(value: f64) -> Self {
        Self { value, gradients: Vec::new() }
    }

    /// Adds the gradient in one parameter, in that parameter's shape. Every weight that gets codes needs one in each
    /// step; another parameter without one stays as it is.
    pub fn gradient<D: Dimension>(mut self, name: impl Into<String>, gradient: Array<F, D>) -> Self {
        self.gradients.push((name.into(), gradient.into_dyn()));
        self
    }

    /// The loss.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The gradients, in the order in which they were given.
    pub fn gradients(&self) -> impl Iterator<Item = (&str, &ArrayD<F>)> {
        self.gradients.iter().map(|(name, gradient)| (name.as_str(), gradient))
    }

    pub(super) fn into_gradients(self) -> Vec<(String, ArrayD<F>)> {
        self.gradients
    }
}
