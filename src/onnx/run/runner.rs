//! [`Runner`]: a graph made ready to run.

use std::fmt::{self, Debug};

use ndarray::ArrayD;
use rten::{DataType, LoadErrorKind, ModelOptions, RunErrorKind, Value, ValueType};
use rten_tensor::Tensor;
use rten_tensor::prelude::{AsView, Layout};

use crate::onnx::graph::Graph;
use crate::onnx::run::dialect::translate;
use crate::onnx::run::values::Values;
use crate::{Error, ErrorKind, Result};

/// A graph made ready to run on this machine's processor, by rten.
///
/// ```
/// use ndarray::Array;
/// use niwaki::onnx::{Graph, Runner};
///
/// # fn main() -> niwaki::Result<()> {
/// let runner = Runner::new(&Graph::read("examples/data/digits.onnx")?)?;
/// let images = Array::<f32, _>::zeros((2, 1, 8, 8)).into();
/// let outputs = runner.run(&[("image", images)], &["digit"])?;
/// assert_eq!(outputs[0].shape(), [2, 10]);
/// # Ok(())
/// # }
/// ```
pub struct Runner {
    model: rten::Model,
}

impl Runner {
    /// The fastest way to run the graph: operators are fused, and only what the graph itself answers has a name.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for an operator that rten does not have; the message names it.
    pub fn new(graph: &Graph) -> Result<Self> {
        Self::load(graph, true)
    }

    /// Every operator as the graph has it, so that each tensor can be asked for by its name.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn exact(graph: &Graph) -> Result<Self> {
        Self::load(graph, false)
    }

    fn load(graph: &Graph, optimize: bool) -> Result<Self> {
        let mut renamed = graph.clone();
        translate(&mut renamed.model);
        let model = ModelOptions::with_all_ops().enable_optimization(optimize).load(renamed.to_bytes()?);
        let model = model.map_err(|e| {
            let kind = match e.kind() {
                LoadErrorKind::ParseError | LoadErrorKind::GraphError => ErrorKind::Format,
                _ => ErrorKind::Unsupported,
            };
            Error::new(kind, format!("the graph cannot be run: {e}"))
        })?;
        Ok(Self { model })
    }

    /// Runs what the outputs of these names need, which are in the result in this order.
    ///
    /// # Errors
    /// A name that the graph does not have, an input that does not fit or is not given, or an operator that rten
    /// cannot compute.
    pub fn run<N: AsRef<str>>(&self, inputs: &[(N, Values)], outputs: &[&str]) -> Result<Vec<Values>> {
        let id = |name: &str| {
            let id = self.model.find_node(name);
            id.ok_or_else(|| Error::name(format!("the graph that runs has no tensor `{name}`")))
        };
        let mut given = Vec::with_capacity(inputs.len());
        for (name, values) in inputs {
            let (name, values) = (name.as_ref(), values);
            let id = id(name)?;
            let wants = self.model.node_info(id).and_then(|info| info.dtype());
            given.push((id, to_rten(name, values, wants)?.into()));
        }
        // Twice the same is refused.
        let mut wanted = Vec::with_capacity(outputs.len());
        let places: Vec<usize> = outputs
            .iter()
            .map(|name| {
                let id = id(name)?;
                let found = wanted.iter().position(|&w| w == id);
                Ok(found.unwrap_or_else(|| {
                    wanted.push(id);
                    wanted.len() - 1
                }))
            })
            .collect::<Result<_>>()?;
        let values = self.model.run(given, &wanted, None).map_err(|e| {
            let kind = match e.kind() {
                RunErrorKind::InvalidInput => ErrorKind::Shape,
                RunErrorKind::NodeNotFound | RunErrorKind::PlanningError => ErrorKind::Name,
                _ => ErrorKind::Unsupported,
            };
            Error::new(kind, format!("running the graph: {e}"))
        })?;
        let values: Vec<Values> = values
            .into_iter()
            .zip(&wanted)
            .map(|(value, &id)| {
                let name = self.model.node_info(id).and_then(|info| info.name()).unwrap_or_default();
                from_rten(name, value)
            })
            .collect::<Result<_>>()?;
        if places.len() == values.len() {
            return Ok(values);
        }
        Ok(places.into_iter().map(|place| values[place].clone()).collect())
    }

    /// Whether a tensor can be asked for.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.model.find_node(name).is_some()
    }
}

impl Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runner").field(&self.model).finish()
    }
}

fn to_rten(name: &str, values: &Values, wants: Option<ValueType>) -> Result<Value> {
    let wants = match wants {
        Some(ValueType::Tensor(of)) => Some(of),
        None => None,
        Some(_) => return Err(Error::unsupported(format!("input `{name}` is no tensor"))),
    };
    let loss = |what: &str| {
        Error::shape(format!("input `{name}`: {} does not become {what} without loss", values.type_name()))
    };
    match (wants, values) {
        (None | Some(DataType::Float), Values::Float(a)) => Ok(tensor(a, |x| x)),
        (Some(DataType::Float), _) => Err(loss("f32")),
        (Some(DataType::UInt8), Values::Int(a)) if a.iter().all(|&x| u8::try_from(x).is_ok()) => {
            Ok(tensor(a, |x| x as u8))
        }
        (Some(DataType::Int8), Values::Int(a)) if a.iter().all(|&x| i8::try_from(x).is_ok()) => {
            Ok(tensor(a, |x| x as i8))
        }
        (None | Some(DataType::Int32), Values::Int(a)) if a.iter().all(|&x| i32::try_from(x).is_ok()) => {
            Ok(tensor(a, |x| x as i32))
        }
        (None | Some(DataType::Int32), Values::Bool(a)) => Ok(tensor(a, i32::from)),
        _ => Err(loss("an integer of the width that is run")),
    }
}

fn tensor<A: Copy, B>(array: &ArrayD<A>, convert: impl Fn(A) -> B) -> Value
where
    Value: From<Tensor<B>>,
{
    Tensor::from_data(array.shape(), array.iter().map(|&x| convert(x)).collect::<Vec<B>>()).into()
}

fn from_rten(name: &str, value: Value) -> Result<Values> {
    fn array<A: Copy, B>(tensor: &Tensor<A>, convert: impl Fn(A) -> B) -> Option<ArrayD<B>> {
        let values: Vec<B> = match tensor.data() {
            Some(data) => data.iter().map(|&x| convert(x)).collect(),
            None => tensor.iter().map(|&x| convert(x)).collect(),
        };
        ArrayD::from_shape_vec(tensor.shape().to_vec(), values).ok()
    }
    let values = match value {
        Value::FloatTensor(t) => {
            let shape = t.shape().to_vec();
            ArrayD::from_shape_vec(shape, t.into_data()).ok().map(Values::Float)
        }
        Value::Int32Tensor(t) => array(&t, i64::from).map(Values::Int),
        Value::Int8Tensor(t) => array(&t, i64::from).map(Values::Int),
        Value::UInt8Tensor(t) => array(&t, i64::from).map(Values::Int),
        _ => None,
    };
    values.ok_or_else(|| Error::unsupported(format!("tensor `{name}` is no array")))
}
