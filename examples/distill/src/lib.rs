//! What niwaki and candle have to say to each other: parameters as tensors, gradients as arrays.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;

use candle_core::{D, Device, Result, Tensor, Var};
use candle_nn::ops::log_softmax;
use ndarray::ArrayD;
use niwaki::distill::Loss;
use niwaki::{ErrorKind, Model};

/// A result whose error is anything.
pub type Outcome<T> = std::result::Result<T, Box<dyn Error>>;

/// The parameters of a model as candle's tensors.
#[derive(Debug)]
pub struct Weights(BTreeMap<String, Tensor>);

impl Weights {
    /// For forward passes that need no gradients: the teacher.
    ///
    /// # Errors
    /// candle refuses an array.
    pub fn fixed(model: &Model<f32>) -> Result<Self> {
        let tensor = |p: &niwaki::Parameter<f32>| {
            Ok((p.name().to_owned(), Tensor::from_slice(p.values(), p.shape(), &Device::Cpu)?))
        };
        Ok(Self(model.parameters().iter().map(tensor).collect::<Result<_>>()?))
    }

    /// With gradients: the student.
    ///
    /// # Errors
    /// candle refuses an array.
    pub fn variable(model: &Model<f32>) -> Result<Self> {
        let variable = |(name, tensor): (String, Tensor)| Ok((name, Var::from_tensor(&tensor)?.into_inner()));
        Ok(Self(Self::fixed(model)?.0.into_iter().map(variable).collect::<Result<_>>()?))
    }

    /// One parameter.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| candle_core::Error::Msg(format!("there is no parameter `{name}`")))
    }

    /// A loss with its gradients in all parameters that it depends on.
    ///
    /// # Errors
    /// candle refuses.
    pub fn loss(&self, loss: &Tensor) -> Result<Loss<f32>> {
        let store = loss.backward()?;
        let mut answer = Loss::new(f64::from(loss.to_scalar::<f32>()?));
        for (name, tensor) in &self.0 {
            if let Some(gradient) = store.get(tensor) {
                let values = gradient.flatten_all()?.to_vec1::<f32>()?;
                let array = ArrayD::from_shape_vec(gradient.dims(), values);
                answer = answer.gradient(name, array.map_err(candle_core::Error::wrap)?);
            }
        }
        Ok(answer)
    }
}

/// How far the student's distributions are from the teacher's: the mean over the rows of Σ p·(ln p − ln q).
///
/// # Errors
/// The shapes differ.
pub fn divergence(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let (q, p) = (log_softmax(student, D::Minus1)?, log_softmax(teacher, D::Minus1)?);
    (p.exp()? * (p - q)?)?.sum(D::Minus1)?.mean_all()
}

/// candle's error as one that a teacher may give.
pub fn engine(error: impl Display) -> niwaki::Error {
    niwaki::Error::new(ErrorKind::Unsupported, format!("the engine: {error}"))
}
