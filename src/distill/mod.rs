//! Training a whole network in few bits: the quantized copy is the student, the original the teacher.
//!
//! Methods that look at one layer after another, and [`Uniform`](crate::quantize::Uniform) is the simplest of them,
//! cannot let one layer make good what another lost. Training can. Here the crate keeps what is its own trade (codes,
//! scales, masks, the optimizer), and the caller brings what it has not: the forward pass and its gradients, from
//! whatever engine computes them. That is a [`Teacher`].
//!
//! Labels are not needed: the loss is how far the student's answers are from the original's, on inputs that look like
//! those to come.
//!
//! ```
//! use ndarray::{Array2, Axis, array};
//! use niwaki::distill::{Loss, Teacher, Training};
//! use niwaki::quantize::{Bits, Range, Uniform};
//! use niwaki::{Model, Parameter, Result};
//!
//! /// y = W·x + b, and what the original answers on some inputs.
//! struct Linear {
//!     inputs: Array2<f64>,
//!     answers: Array2<f64>,
//! }
//!
//! impl Linear {
//!     fn answers(model: &Model<f64>, inputs: &Array2<f64>) -> Result<Array2<f64>> {
//!         let weights = model.parameter("fc")?.array().to_shape((2, 6)).expect("2 rows of 6").to_owned();
//!         Ok(inputs.dot(&weights.t()) + model.parameter("b")?.array().to_shape(2).expect("2 biases"))
//!     }
//! }
//!
//! impl Teacher<f64> for Linear {
//!     fn loss(&mut self, student: &Model<f64>, _step: usize) -> Result<Loss<f64>> {
//!         let error = Self::answers(student, &self.inputs)? - &self.answers;
//!         let n = error.len() as f64;
//!         let slope = &error * (2.0 / n);
//!         Ok(Loss::new(error.mapv(|e| e * e).sum() / n)
//!             .gradient("fc", slope.t().dot(&self.inputs))
//!             .gradient("b", slope.sum_axis(Axis(0))))
//!     }
//!
//!     fn held_out(&mut self, student: &Model<f64>) -> Result<Option<f64>> {
//!         // Inputs of the same kind that no step has seen.
//!         let inputs = Array2::from_shape_fn((40, 6), |(i, j)| ((7 * i + 3 * j) as f64 * 0.37 + 0.2).sin() + 0.2);
//!         let weights = array![[0.31, -0.92, 0.55, 0.18, -0.47, 0.66], [0.83, 0.29, -0.71, -0.12, 0.94, 0.38]];
//!         let error = Self::answers(student, &inputs)? - inputs.dot(&weights.t());
//!         Ok(Some(error.mapv(|e| e * e).sum() / error.len() as f64))
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let weights = array![[0.31, -0.92, 0.55, 0.18, -0.47, 0.66], [0.83, 0.29, -0.71, -0.12, 0.94, 0.38]];
//! let model = Model::builder()
//!     .parameter(Parameter::linear("fc", weights.clone()))
//!     .parameter(Parameter::bias("b", array![0.0, 0.0], "fc"))
//!     .build()?;
//! let inputs = Array2::from_shape_fn((64, 6), |(i, j)| ((7 * i + 3 * j) as f64 * 0.37).sin() + 0.2);
//! let mut teacher = Linear { answers: inputs.dot(&weights.t()), inputs };
//!
//! let three = Uniform::new(Bits::new(3)?).range(Range::Mse);
//! let distilled = Training::new(three).steps(300).learning_rate(1e-2).run(&model, &mut teacher)?;
//! println!("{distilled}");
//! let held_out = distilled.held_out();
//! assert!(distilled.best() < 0.5 * held_out[0].1);
//! assert!(distilled.compressed().report().rows()[0].form() == "int3 symmetric channel:0");
//! # Ok(())
//! # }
//! ```

mod adam;
mod distilled;
mod student;
mod teacher;
mod training;

#[cfg(test)]
mod tests;

pub use distilled::Distilled;
pub use teacher::{Loss, Teacher};
pub use training::Training;
