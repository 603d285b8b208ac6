//! Positions of feature maps: a `Gather` where the layer behind reads only some, a `Mul` with a mask elsewhere.

use std::collections::HashMap;

use crate::onnx::draft;
use crate::onnx::edit::Edit;
use crate::onnx::file;
use crate::onnx::proto::dtype;
use crate::onnx::trace::{Feed, Form, LayerIo, Order};
use crate::onnx::view::{Source, TensorId};
use crate::prune::Mask;
use crate::{Error, Kind, Result};

/// A weight behind a `Gather`: what it reads, and for each class on that axis which of its positions stay.
struct Gathered {
    tensor: TensorId,
    stays: HashMap<u32, Vec<bool>>,
}

pub(super) fn put(edit: &mut Edit<'_>) -> Result<()> {
    let traced = edit.traced;
    let mut gathered = Vec::new();
    for layer in &traced.layers {
        gathered.extend(gather(edit, layer)?);
    }
    let mut masks: Vec<(&str, &Mask)> = edit.plan.activation_masks().collect();
    masks.sort_unstable_by_key(|(name, _)| *name);
    for (name, mask) in masks {
        put_mask(edit, name, mask, &gathered)?;
    }
    Ok(())
}

/// Puts a `Gather` before a weight of whose inputs more go than of the tensor that feeds it.
fn gather(edit: &mut Edit<'_>, layer: &LayerIo) -> Result<Option<Gathered>> {
    let (traced, view, name) = (edit.traced, edit.view, layer.parameter.as_str());
    let Some(at) = traced.model.parameters().iter().position(|p| p.name() == name) else { return Ok(None) };
    let (parameter, origin) = (&traced.model.parameters()[at], &traced.origins[at]);
    let (Some(axis), Form::Whole) = (parameter.in_axis(), origin.form) else { return Ok(None) };
    if !matches!(parameter.kind(), Kind::Linear) || edit.left.parameter(at).is_none() {
        return Ok(None);
    }
    let Some(planned) = edit.left.kept(at, axis) else { return Ok(None) };
    let all = || (0..parameter.shape()[axis]).collect();
    let arriving: Vec<usize> = edit.positions_of(origin.tensor, axis).unwrap_or_else(all);
    if planned == arriving {
        return Ok(None);
    }
    let fail = |what: &str| Error::unsupported(format!("layer `{name}`: some of its inputs go, {what}"));
    let places: Option<Vec<i64>> =
        planned.iter().map(|p| arriving.binary_search(p).ok().map(|at| at as i64)).collect();
    let places = places.ok_or_else(|| fail("and others that stay are not there any more"))?;
    let feed = layer.input.as_ref().ok_or_else(|| fail("and what it reads is inside a subgraph"))?;
    let rank = edit
        .dims(feed.tensor)
        .map(<[usize]>::len)
        .ok_or_else(|| fail("and the shape it reads is unknown"))?;
    let features = match feed.order {
        Order::Plain => rank.checked_sub(1),
        Order::Features(axis) => Some(axis),
        _ => None,
    };
    let features = features.ok_or_else(|| fail("and they are on no axis of their own"))?;
    let node = &view.nodes[layer.node];
    let input = node.inputs.iter().position(|input| *input == Some(feed.tensor));
    let input = input.ok_or_else(|| fail("and its node does not read them directly"))?;
    let source = view.tensors[feed.tensor].name;
    let indices = draft::integers(&[places.len()], &places);
    let indices = edit.draft.add_initializer(node.graph, &format!("{name}_kept"), indices)?;
    let output = edit.draft.name(&format!("{name}_input"));
    let mut selecting = draft::node("Gather", &output, &[source, &indices], &output);
    selecting.attribute.push(draft::int("axis", features as i64));
    edit.draft.insert(node.graph, node.at, selecting);
    edit.draft.node(view, layer.node)?.input[input] = output;
    edit.gathered.insert(origin.tensor);

    let mut stays: HashMap<u32, Vec<bool>> = HashMap::new();
    if let Some(Some(classes)) = traced.axes[origin.tensor].get(axis) {
        for (at, class) in classes.iter().enumerate() {
            stays.entry(*class).or_default().push(planned.binary_search(&at).is_ok());
        }
    }
    Ok(Some(Gathered { tensor: feed.tensor, stays }))
}

/// Multiplies a layer's activated output by the mask, unless the positions are removed behind it.
fn put_mask(edit: &mut Edit<'_>, name: &str, mask: &Mask, gathered: &[Gathered]) -> Result<()> {
    let (view, traced) = (edit.view, edit.traced);
    let fail = |what: &str| Error::unsupported(format!("layer `{name}`: positions of its map go, {what}"));
    let parameter = edit.left.position(name).map(|at| traced.model.parameters()[at].name());
    let layer = traced.layers.iter().find(|layer| Some(layer.parameter.as_str()) == parameter);
    let feed = layer.and_then(|layer| layer.activated.as_ref().or(layer.output.as_ref()));
    let Some(Feed { tensor, order: Order::Plain }) = feed else {
        return Err(fail("but where it answers is not known"));
    };
    let dims = edit.dims_after(*tensor).ok_or_else(|| fail("but its shape is not known"))?;
    // A criterion may give the places of a map in one row.
    let places = |shape: &[usize]| -> usize { shape[1..].iter().product() };
    let fits = dims.len() > 1 && dims[1] == mask.shape()[0] && places(&dims[1..]) == places(mask.shape());
    let removal = gathered.iter().find(|gathered| removes(edit, *tensor, mask, gathered));
    match removal {
        Some(gathered) if !fits || leads_to(edit, *tensor, gathered.tensor) => return Ok(()),
        _ if !fits => {
            let (wants, has) = (mask.shape(), dims.get(1..).unwrap_or_default());
            return Err(fail(&format!("but the plan's map is {wants:?} and the graph's {has:?}")));
        }
        _ => {}
    }
    let Source::Node(producer) = view.tensors[*tensor].source else {
        return Err(fail("but no node gives it"));
    };
    let mut shape = dims;
    shape[0] = 1;
    let values = (0..mask.len()).map(|k| f32::from(u8::from(mask.keeps(k)))).collect();
    let array =
        ndarray::ArrayD::from_shape_vec(shape.clone(), values).map_err(|e| Error::shape(e.to_string()))?;
    let mut constant = draft::floats(&shape, array.as_slice().unwrap_or_default());
    let data_type = edit.weight_type(name);
    if data_type != dtype::FLOAT {
        constant.data_type = Some(data_type);
        file::put_floats(&mut constant, &array)?;
    }
    // The node answers under another name, and the product has its old one: all that reads it reads the product.
    let (output, graph) = (view.tensors[*tensor].name, view.tensors[*tensor].graph);
    let constant = edit.draft.add_initializer(graph, &format!("{output}_mask"), constant)?;
    let whole = edit.draft.name(&format!("{output}_whole"));
    let product = edit.draft.name(&format!("{output}_masked"));
    let names = &mut edit.draft.node(view, producer)?.output;
    draft::rename(names, output, &whole);
    edit.draft.insert(
        graph,
        view.nodes[producer].at + 1,
        draft::node("Mul", &product, &[&whole, &constant], output),
    );
    Ok(())
}

impl Edit<'_> {
    /// The type of the numbers of a weight.
    fn weight_type(&self, name: &str) -> i32 {
        let at = self.left.position(name);
        let constant = at.and_then(|at| self.view.constant(self.traced.origins[at].tensor));
        constant.and_then(|c| c.data_type).filter(|&t| dtype::is_float(t)).unwrap_or(dtype::FLOAT)
    }
}

/// Whether a `Gather` leaves just the positions of the mask.
fn removes(edit: &Edit<'_>, tensor: TensorId, mask: &Mask, gathered: &Gathered) -> bool {
    let Some(Some(classes)) = edit.traced.axes[tensor].get(1) else { return false };
    let kept = edit.positions_of(tensor, 1).unwrap_or_else(|| (0..classes.len()).collect());
    let places = mask.len() / mask.shape()[0].max(1);
    kept.len() == mask.shape()[0]
        && kept.iter().enumerate().all(|(unit, &at)| {
            gathered.stays.get(&classes[at]).is_some_and(|stays| {
                stays.len() == places
                    && stays.iter().enumerate().all(|(p, &s)| s == mask.keeps(unit * places + p))
            })
        })
}

/// Whether all that is made of a tensor goes into another one.
fn leads_to(edit: &Edit<'_>, from: TensorId, to: TensorId) -> bool {
    let mut tensor = from;
    while tensor != to {
        let Some(reader) = edit.view.only_reader(tensor) else { return false };
        match edit.view.nodes[reader].outputs[..] {
            [Some(output)] => tensor = output,
            _ => return false,
        }
    }
    edit.view.only_reader(to).is_some()
}
