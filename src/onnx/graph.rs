//! [`Graph`]: an ONNX model in memory.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::onnx::file;
use crate::onnx::proto::{__buffa, GraphProto, ModelProto, ValueInfoProto, dtype};
use crate::onnx::view::View;

/// An ONNX model: the whole message, fields and operators that this crate does not know included.
///
/// What is not changed is written as it was read. Weights may be raw bytes or lists of numbers, in initializers, in
/// `Constant` nodes, in subgraphs, and in data files beside the model (external data); such a file must be in the
/// model's folder or below, links followed. Values are read when they are needed: those of data files by position,
/// one tensor at a time, so the files must stay as they are while the graph is in use.
///
/// Reading holds every tensor against its dimensions and every name against what gives it. A file that lies makes an
/// error that names the tensor or node, and takes memory in proportion to its own size.
///
/// ```
/// use niwaki::onnx::{Dim, Graph};
///
/// # fn main() -> niwaki::Result<()> {
/// let graph = Graph::read("tests/data/onnx/mlp.onnx")?;
/// let inputs = graph.inputs();
/// assert_eq!(inputs[0].name, "x");
/// assert_eq!(inputs[0].dims, Some(vec![Dim::Named("batch".into()), Dim::Fixed(3)]));
/// assert_eq!(graph.outputs()[0].name, "y");
///
/// let bytes = graph.to_bytes()?;
/// assert_eq!(Graph::from_bytes(bytes, None)?.inputs(), inputs);
///
/// let error = Graph::from_bytes(b"PK\x03\x04".to_vec(), None).unwrap_err();
/// assert_eq!(error.kind(), niwaki::ErrorKind::Format);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) model: ModelProto,
    /// where external data files are
    pub(crate) folder: Option<PathBuf>,
}

/// An input or output of a graph.
///
/// ```
/// # fn main() -> niwaki::Result<()> {
/// let graph = niwaki::onnx::Graph::read("tests/data/onnx/mlp.onnx")?;
/// let output = &graph.outputs()[0];
/// assert_eq!((output.name.as_str(), output.data_type), ("y", 1));
/// assert_eq!(output.dims.as_ref().map(Vec::len), Some(2));
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// The number of its type in ONNX: 1 is f32, 7 is i64.
    pub data_type: i32,
    /// Its axes; `None` when the file does not say how many.
    pub dims: Option<Vec<Dim>>,
}

/// The length of an axis.
///
/// ```
/// use niwaki::onnx::{Dim, Graph};
///
/// # fn main() -> niwaki::Result<()> {
/// let graph = Graph::read("tests/data/onnx/mlp.onnx")?;
/// let dims = graph.inputs()[0].dims.clone().unwrap_or_default();
/// // A batch of any size, three features.
/// assert_eq!(dims, [Dim::Named("batch".into()), Dim::Fixed(3)]);
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always this.
    Fixed(usize),
    /// Whatever comes; the name may be empty.
    Named(String),
}

impl Graph {
    /// Reads a file of at most 2 GiB; weights beyond that are in data files.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the file or a data file cannot be read;
    /// [`ErrorKind::Format`](crate::ErrorKind::Format) when it is no ONNX model, is cut off, nests deeper than 32
    /// subgraphs, when a tensor holds fewer or more values than its dimensions say, when external data are outside
    /// the model's folder or past the end of their file, when a name is given by nothing or by two nodes, or when
    /// nodes form a cycle. The message names the file, and the node or tensor.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        file::read(path.as_ref())
    }

    /// Reads a model that is in memory; its data files are looked for in `folder`. Weights are not copied: they are
    /// slices of the bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read); external data without a folder too.
    pub fn from_bytes(bytes: Vec<u8>, folder: Option<&Path>) -> Result<Self> {
        file::from_bytes(bytes, folder)
    }

    /// Writes the model and gives the bytes written, its data file included.
    ///
    /// A model that came with data files, or that takes more than 2 GiB as one message, gets one data file beside
    /// it, `<name>.data`: it holds all external data, and all initializers of at least 1 KiB (then values of
    /// `Constant` nodes, if the message is still too large). Tensors of a MiB and more begin on a page of 4096
    /// bytes, others on 64. Values are copied by pieces. Where this graph's own values are in the file of that name,
    /// as when a model is written over the one that was read, another is taken (`<name>.2.data`) and the old file
    /// stays, so that the graph can still be used.
    ///
    /// Both files are written beside their targets and renamed: on an error nothing is left or replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when a file cannot be written or external data cannot be read;
    /// [`ErrorKind::Setting`](crate::ErrorKind::Setting) when `path` is a data file of this graph;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the message is over 2 GiB without its weights.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<u64> {
        file::write(self, path.as_ref())
    }

    /// The model as one message, external data put in.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when it is over 2 GiB, with its size;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when external data cannot be read.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        file::to_bytes(self)
    }

    /// What it reads, in order: the inputs that have no value in the file.
    pub fn inputs(&self) -> Vec<ValueInfo> {
        let graph = self.graph();
        let weights: HashSet<&str> = graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
        let all = graph.input.iter().map(ValueInfo::of);
        all.filter(|info| !weights.contains(info.name.as_str())).collect()
    }

    /// What it answers, in order.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.graph().output.iter().map(ValueInfo::of).collect()
    }

    pub(crate) fn graph(&self) -> &GraphProto {
        self.model.graph.as_option().unwrap_or_else(|| {
            static EMPTY: std::sync::OnceLock<GraphProto> = std::sync::OnceLock::new();
            EMPTY.get_or_init(GraphProto::default)
        })
    }

    pub(crate) fn view(&self) -> Result<View<'_>> {
        View::new(&self.model)
    }
}

impl ValueInfo {
    /// What its type is called: `f32`, `i64`.
    pub fn type_name(&self) -> String {
        dtype::name(self.data_type)
    }

    pub(crate) fn of(proto: &ValueInfoProto) -> Self {
        let mut info = Self { name: proto.name.clone().unwrap_or_default(), data_type: 0, dims: None };
        let value = proto.r#type.as_option().and_then(|t| t.value.as_ref());
        let Some(__buffa::oneof::type_proto::Value::TensorType(tensor)) = value else { return info };
        info.data_type = tensor.elem_type.unwrap_or_default();
        info.dims = tensor.shape.as_option().map(|shape| {
            use __buffa::oneof::tensor_shape_proto::dimension::Value;
            let of = |value: &Option<Value>| match value {
                Some(Value::DimValue(len)) if *len >= 0 => Dim::Fixed(*len as usize),
                Some(Value::DimParam(name)) => Dim::Named(name.clone()),
                _ => Dim::Named(String::new()),
            };
            shape.dim.iter().map(|dim| of(&dim.value)).collect()
        });
        info
    }
}
