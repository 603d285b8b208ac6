//! The parameters of a graph, and what each is.

use std::collections::{HashMap, HashSet};

use crate::kernel::par;
use crate::model::{Geometry, Kind, NormRole, Parameter};
use crate::onnx::Graph;
use crate::onnx::file;
use crate::onnx::proto::{NodeProto, dtype};
use crate::onnx::trace::step::{Found, Role, Tracer};
use crate::onnx::trace::{Form, Origin};
use crate::onnx::view::{TensorId, View};
use crate::{Error, Result};
use ndarray::ArrayD;

/// The parameters in the order in which they are first read, and where each comes from.
pub(super) fn parameters(
    graph: &Graph,
    tracer: &Tracer<'_, '_>,
) -> Result<(Vec<Parameter<f32>>, Vec<Origin>)> {
    let view = tracer.view;
    let found: HashMap<TensorId, &Found> = tracer.found.iter().map(|f| (f.tensor, f)).collect();
    let names = Names::new(view);
    let mut seen = HashSet::new();
    let read = view.nodes.iter().flat_map(|node| node.inputs.iter().flatten().copied());
    let float = |tensor: &TensorId| {
        view.constant(*tensor).is_some_and(|t| dtype::is_float(t.data_type.unwrap_or_default()))
    };
    let tensors: Vec<TensorId> = read.filter(|&tensor| seen.insert(tensor)).filter(float).collect();
    let arrays = par::map(tensors.len(), |k| match view.constant(tensors[k]) {
        Some(proto) => file::floats(proto, graph.folder.as_deref()),
        None => Ok(ArrayD::default(vec![0])),
    });
    let (mut parameters, mut origins) = (Vec::new(), Vec::new());
    for (&tensor, array) in tensors.iter().zip(arrays) {
        let (array, name) = (array?, names.of(tensor));
        match found.get(&tensor) {
            // One number scales or shifts a whole tensor: there is nothing to compress.
            None if array.len() < 2 => {}
            None => {
                parameters.push(Parameter::new(name, array, Kind::Other));
                origins.push(Origin { tensor, form: Form::Whole });
            }
            Some(found) => {
                for (parameter, form) in weight(tracer, found, &name, array)? {
                    parameters.push(parameter);
                    origins.push(Origin { tensor, form });
                }
            }
        }
    }
    let kinds = vectors(tracer, &parameters, &origins);
    let parameters = parameters.into_iter().zip(kinds).map(|(parameter, kind)| match kind {
        Some(kind) => parameter.described(kind),
        None => parameter,
    });
    Ok((parameters.collect(), origins))
}

/// A weight as parameters of the model.
fn weight(
    tracer: &Tracer<'_, '_>,
    found: &Found,
    name: &str,
    array: ArrayD<f32>,
) -> Result<Vec<(Parameter<f32>, Form)>> {
    if array.is_empty() {
        return Err(Error::shape(format!("tensor `{name}` is empty")));
    }
    let node = &tracer.view.nodes[found.node];
    let proto = node.proto;
    let input = node.inputs.first().copied().flatten().and_then(|x| tracer.shapes.dims[x].as_deref());
    let places = input.and_then(|dims| dims.get(2..)).unwrap_or_default();
    let taps = array.shape().get(2..).unwrap_or_default().to_vec();
    // The model tells up to three spatial axes apart.
    let spatial = (1..=3).contains(&taps.len());
    let form = Form::Transposed { groups: groups(proto) };
    let kind = match found.role {
        Role::Linear if array.ndim() == 2 => Kind::Linear,
        Role::Embedding if array.ndim() == 2 => Kind::Embedding,
        Role::Conv if spatial => geometry(proto, &taps, places).map_or(Kind::Other, Kind::Conv),
        Role::Transposed if spatial => match transposed_geometry(proto, &taps) {
            Some(geometry) => {
                return Ok(vec![(Parameter::new(name, form.read(&array), Kind::Conv(geometry)), form)]);
            }
            None => Kind::Other,
        },
        Role::Recurrent { gates, .. } if array.ndim() == 3 => {
            let directions = array.shape()[0];
            let of = |d: usize| {
                let name = if directions == 1 { name.to_owned() } else { format!("{name}[{d}]") };
                let form = Form::Direction(d);
                (Parameter::new(name, form.read(&array), Kind::Recurrent { gates }), form)
            };
            return Ok((0..directions).map(of).collect());
        }
        _ => Kind::Other,
    };
    let parameter = Parameter::new(name, array, kind);
    let parameter = match parameter.kind() {
        Kind::Linear | Kind::Embedding => parameter.axes(found.out_axis, found.in_axis),
        _ => parameter,
    };
    Ok(vec![(parameter, Form::Whole)])
}

/// How a convolution slides over an input of these lengths; `None` where the model cannot say it.
fn geometry(proto: &NodeProto, taps: &[usize], input: &[usize]) -> Option<Geometry> {
    let axes = taps.len();
    if taps.contains(&0) {
        return None;
    }
    let (strides, dilations) = (list(proto, "strides", axes, 1)?, list(proto, "dilations", axes, 1)?);
    if strides.contains(&0) || dilations.contains(&0) {
        return None;
    }
    let mut pads = list(proto, "pads", 2 * axes, 0)?;
    let auto = proto.text("auto_pad").unwrap_or("NOTSET");
    if auto.starts_with("SAME") {
        for axis in 0..axes {
            let (len, span) =
                (*input.get(axis)?, dilations[axis].checked_mul(taps[axis] - 1)?.checked_add(1)?);
            let steps = len.div_ceil(strides[axis]).checked_sub(1)?.checked_mul(strides[axis])?;
            let total = steps.checked_add(span)?.saturating_sub(len);
            let less = total / 2;
            let before = if auto == "SAME_UPPER" { less } else { total - less };
            (pads[axis], pads[axes + axis]) = (before, total - before);
        }
    }
    let pads = (0..axes).map(|axis| (pads[axis], pads[axes + axis]));
    Some(sliding(strides, dilations, pads).groups(groups(proto)))
}

/// The plain convolution that a transposed one is on its stretched input.
fn transposed_geometry(proto: &NodeProto, taps: &[usize]) -> Option<Geometry> {
    let axes = taps.len();
    let auto = proto.text("auto_pad").unwrap_or("NOTSET");
    if proto.attr("output_shape").is_some() || !matches!(auto, "NOTSET" | "VALID") {
        return None;
    }
    let dilations = list(proto, "dilations", axes, 1)?;
    let (pads, more) = (list(proto, "pads", 2 * axes, 0)?, list(proto, "output_padding", axes, 0)?);
    let of = |axis: usize| {
        let span = dilations[axis].checked_mul(taps[axis].checked_sub(1)?)?;
        let end = span.checked_add(more[axis])?.checked_sub(pads[axes + axis])?;
        Some((span.checked_sub(pads[axis])?, end))
    };
    let pads = (0..axes).map(of).collect::<Option<Vec<_>>>()?;
    Some(sliding(vec![1; axes], dilations, pads).groups(groups(proto)))
}

fn sliding(
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: impl IntoIterator<Item = (usize, usize)>,
) -> Geometry {
    Geometry::new().strides(strides).dilations(dilations).paddings(pads)
}

fn groups(proto: &NodeProto) -> usize {
    proto.int("group").unwrap_or(1).max(1) as usize
}

/// A list of one number for each axis, none of them below 0.
fn list(proto: &NodeProto, name: &str, len: usize, default: usize) -> Option<Vec<usize>> {
    let Some(ints) = proto.ints(name).filter(|ints| !ints.is_empty()) else {
        return Some(vec![default; len]);
    };
    let numbers: Option<Vec<usize>> = ints.iter().map(|&n| usize::try_from(n).ok()).collect();
    numbers.filter(|numbers| numbers.len() == len)
}

/// What the vectors are: biases of weights, parts of normalizations.
fn vectors(tracer: &Tracer<'_, '_>, parameters: &[Parameter<f32>], origins: &[Origin]) -> Vec<Option<Kind>> {
    let view = tracer.view;
    let weights: HashMap<TensorId, &Parameter<f32>> = parameters
        .iter()
        .zip(origins)
        .filter(|(p, o)| {
            p.kind().is_weight() && o.form == Form::Whole || matches!(o.form, Form::Transposed { .. })
        })
        .map(|(p, o)| (o.tensor, p))
        .collect();
    // The weight whose output a tensor is, bias added or not.
    let mut answers: HashMap<TensorId, &str> = HashMap::new();
    let mut kinds: HashMap<TensorId, Kind> = HashMap::new();
    for (number, node) in view.nodes.iter().enumerate() {
        let of = |k: usize| node.inputs.get(k).copied().flatten();
        let output = node.outputs.first().copied().flatten();
        let found = tracer.found.iter().find(|f| f.node == number && f.reads.is_some());
        let own = found.and_then(|f| weights.get(&f.tensor)).filter(|p| *p.kind() != Kind::Embedding);
        match node.proto.op_type() {
            "Conv" | "ConvTranspose" | "Gemm" | "FusedConv" | "MatMul" => {
                let (Some(weight), Some(output)) = (own, output) else { continue };
                answers.insert(output, weight.name());
                if let Some(bias) = of(2).filter(|_| node.proto.op_type() != "MatMul") {
                    kinds.insert(bias, Kind::Bias { of: weight.name().to_owned() });
                }
            }
            "Add" => {
                let [Some(a), Some(b)] = [of(0), of(1)] else { continue };
                for (sum, bias) in [(a, b), (b, a)] {
                    let Some(&weight) = answers.get(&sum) else { continue };
                    let vector = view.constant(bias).is_some_and(|t| t.dims.len() == 1);
                    if vector && view.only_reader(sum).is_some() && !biased(&kinds, weight) {
                        kinds.insert(bias, Kind::Bias { of: weight.to_owned() });
                        answers.extend(output.map(|output| (output, weight)));
                    }
                }
            }
            "BatchNormalization" => {
                let of_weight = of(0).filter(|&x| view.only_reader(x).is_some());
                let weight = of_weight.and_then(|x| answers.get(&x)).map(|&name| name.to_owned());
                let roles = [NormRole::Scale, NormRole::Shift, NormRole::Mean, NormRole::Variance];
                for (k, role) in roles.into_iter().enumerate() {
                    kinds.extend(of(k + 1).map(|t| (t, Kind::Norm { role, of: weight.clone() })));
                }
            }
            operator if operator.ends_with("Normalization") => {
                for (k, role) in [(1, NormRole::Scale), (2, NormRole::Shift)] {
                    kinds.extend(of(k).map(|t| (t, Kind::Norm { role, of: None })));
                }
            }
            _ => {}
        }
    }
    let shared = |tensor: TensorId| view.tensors[tensor].readers.len() > 1;
    let rows = |name: &str| {
        let owner = parameters.iter().find(|p| p.name() == name);
        owner.map(|p| p.shape()[p.out_axis()])
    };
    let kind_of = |(parameter, origin): (&Parameter<f32>, &Origin)| {
        let kind = kinds.get(&origin.tensor).filter(|_| *parameter.kind() == Kind::Other)?;
        let len = (parameter.shape().len() == 1).then(|| parameter.shape()[0])?;
        match kind {
            Kind::Bias { of } | Kind::Norm { of: Some(of), .. }
                if shared(origin.tensor) || rows(of) != Some(len) =>
            {
                match kind {
                    Kind::Norm { role, .. } => Some(Kind::Norm { role: *role, of: None }),
                    _ => None,
                }
            }
            kind => Some(kind.clone()),
        }
    };
    parameters.iter().zip(origins).map(kind_of).collect()
}

fn biased(kinds: &HashMap<TensorId, Kind>, weight: &str) -> bool {
    kinds.values().any(|kind| matches!(kind, Kind::Bias { of } if of == weight))
}

/// Names of parameters: those of their tensors, with the subgraph's number where two have the same.
struct Names<'g> {
    view: &'g View<'g>,
    twice: HashSet<&'g str>,
}

impl<'g> Names<'g> {
    fn new(view: &'g View<'g>) -> Self {
        let (mut once, mut twice) = (HashSet::new(), HashSet::new());
        for tensor in &view.tensors {
            if !once.insert(tensor.name) {
                twice.insert(tensor.name);
            }
        }
        Self { view, twice }
    }

    fn of(&self, tensor: TensorId) -> String {
        let tensor = &self.view.tensors[tensor];
        match tensor.graph {
            graph if graph > 0 && self.twice.contains(tensor.name) => format!("{}@{graph}", tensor.name),
            _ => tensor.name.to_owned(),
        }
    }
}
