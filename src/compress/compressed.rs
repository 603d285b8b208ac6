//! [`Compressed`]: the result.

use std::collections::HashMap;

use ndarray::ArrayD;

use crate::compress::{Report, Stored};
use crate::model::Mask;
use crate::prune::Plan;
use crate::quantize::QuantizedTensor;
use crate::{Block, Element, Error, ErrorKind, Kind, Model, Parameter, Result};

/// A compressed network: every parameter dense, sparse or quantized, each able to decode itself.
///
/// It is what a file holds, so one that is saved and loaded equals the one that was saved. Couplings stay
/// behind: they are for pruning, and that is done. With it goes a [`Report`] of how it came to be, which is not
/// part of the file nor of equality.
#[derive(Clone, Debug)]
pub struct Compressed<F> {
    pub(crate) entries: Vec<Entry<F>>,
    pub(crate) blocks: Vec<Block>,
    /// positions of output maps that stay, by layer
    pub(crate) maps: Vec<(String, Mask)>,
    /// weights that were pruned, where that is known
    pruned: HashMap<String, Mask>,
    report: Report,
}

/// One parameter of a compressed network.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<F> {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) out_axis: usize,
    pub(crate) in_axis: Option<usize>,
    pub(crate) stored: Stored<F>,
}

impl<F: Element> Entry<F> {
    /// The parameter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is to the network.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The form it is stored in.
    pub fn stored(&self) -> &Stored<F> {
        &self.stored
    }

    /// The parameter with its values.
    fn parameter(&self) -> Parameter<F> {
        let parameter = Parameter::new(self.name.clone(), self.stored.decode(), self.kind.clone());
        match self.in_axis {
            Some(in_axis) => parameter.axes(self.out_axis, in_axis),
            None => parameter,
        }
    }
}

impl<F: PartialEq> PartialEq for Compressed<F> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries && self.blocks == other.blocks && self.maps == other.maps
    }
}

impl<F: Element> Compressed<F> {
    /// Puts the pruned parameters and the codes together.
    pub(crate) fn assemble(
        original: &Model<F>,
        pruned: Model<F>,
        quantized: Vec<(String, QuantizedTensor)>,
        plan: &Plan,
    ) -> Result<Self> {
        let mut codes: HashMap<String, QuantizedTensor> = HashMap::new();
        for (name, tensor) in quantized {
            let shape = pruned.parameter(&name)?.shape();
            if tensor.shape() != shape {
                let given = tensor.shape();
                return Err(Error::shape(format!(
                    "layer `{name}` {shape:?} was quantized to the shape {given:?}"
                )));
            }
            codes.insert(name, tensor);
        }
        let blocks = pruned.blocks().to_vec();
        let mut errors = HashMap::new();
        let mut entries = Vec::with_capacity(pruned.parameters().len());
        for parameter in pruned.into_parameters() {
            let (name, kind) = (parameter.name().to_owned(), parameter.kind().clone());
            let (out_axis, in_axis) = (parameter.out_axis(), parameter.in_axis());
            let stored = match codes.remove(&name) {
                Some(tensor) => {
                    errors.insert(name.clone(), check_codes(&parameter, &tensor)?);
                    Stored::Quantized(tensor)
                }
                None => Stored::of(parameter.into_array()),
            };
            entries.push(Entry { name, kind, out_axis, in_axis, stored });
        }
        let maps = plan.activation_masks().map(|(name, mask)| (name.to_owned(), mask.clone())).collect();
        let masks = entries.iter().filter_map(|e| Some((e.name.clone(), plan.weight_mask(&e.name)?.clone())));
        let mut compressed =
            Self { blocks, maps, pruned: masks.collect(), report: Report::default(), entries };
        compressed.report = Report::of(&compressed, Some(original), &errors);
        Ok(compressed)
    }

    /// From what a file holds.
    #[cfg(feature = "safetensors")]
    pub(crate) fn from_parts(entries: Vec<Entry<F>>, blocks: Vec<Block>, maps: Vec<(String, Mask)>) -> Self {
        let mut compressed =
            Self { entries, blocks, maps, pruned: HashMap::new(), report: Report::default() };
        compressed.report = Report::of(&compressed, None, &HashMap::new());
        compressed
    }

    /// All parameters, in the model's order.
    pub fn entries(&self) -> &[Entry<F>] {
        &self.entries
    }

    /// The parameter of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn entry(&self, name: &str) -> Result<&Entry<F>> {
        let found = self.entries.iter().find(|e| e.name == name);
        found.ok_or_else(|| Error::name(format!("the compressed model has no parameter `{name}`")))
    }

    /// The values of one parameter.
    ///
    /// # Errors
    /// There is no such parameter.
    pub fn array(&self, name: &str) -> Result<ArrayD<F>> {
        Ok(self.entry(name)?.stored.decode())
    }

    /// Which positions of a layer's output map stay, where feature maps were pruned: the forward pass multiplies by
    /// it, or keeps only these positions where the map is flattened.
    pub fn activation_mask(&self, layer: &str) -> Option<&Mask> {
        self.maps.iter().find(|(name, _)| name == layer).map(|(_, mask)| mask)
    }

    /// All masks of output maps, by layer.
    pub fn activation_masks(&self) -> impl Iterator<Item = (&str, &Mask)> {
        self.maps.iter().map(|(name, mask)| (name.as_str(), mask))
    }

    /// The network with all values decoded: parameters and blocks, no couplings.
    ///
    /// # Errors
    /// A value does not decode to a finite number, or the parameters do not make a model: the file lied.
    pub fn decode(&self) -> Result<Model<F>> {
        let builder = self.entries.iter().fold(Model::builder(), |b, entry| b.parameter(entry.parameter()));
        self.blocks.iter().fold(builder, |b, block| b.block(block.clone())).build()
    }

    /// What it weighs, layer by layer.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Checks the contract: every parameter decodes to finite values of its shape, what was pruned decodes to
    /// exactly 0, and the bytes in the report are those of the arrays, and of the file, as they would be written.
    ///
    /// # Errors
    /// The first thing that does not hold, with the layer's name.
    pub fn verify(&self) -> Result<()> {
        for entry in &self.entries {
            let parameter = entry.parameter();
            parameter.check_finite()?;
            let Some(mask) = self.pruned.get(&entry.name) else { continue };
            let alive =
                parameter.values().iter().enumerate().position(|(k, v)| !mask.keeps(k) && !v.is_zero());
            if let Some(at) = alive {
                return Err(broken(&entry.name, &format!("the pruned weight at flat index {at} is not 0")));
            }
        }
        let current = Report::of(self, None, &HashMap::new());
        for (row, now) in self.report.rows().iter().zip(current.rows()) {
            if row.bytes() != now.bytes() {
                let (said, is) = (row.bytes(), now.bytes());
                return Err(broken(row.name(), &format!("the report says {said} bytes, stored are {is}")));
            }
        }
        Ok(())
    }
}

/// Errors unless weights that are 0 decode to 0; else the relative root mean square error of the codes.
fn check_codes<F: Element>(parameter: &Parameter<F>, tensor: &QuantizedTensor) -> Result<f64> {
    let weights = parameter.values();
    let parts = tensor.map_decoded(|start, decoded: &[F]| {
        let (mut error, mut square, mut alive) = (0.0, 0.0, None);
        for (k, (&weight, &value)) in weights[start..].iter().zip(decoded).enumerate() {
            if weight.is_zero() && !value.is_zero() {
                alive = alive.or(Some(start + k));
            }
            let (weight, value) = (weight.widen(), value.widen());
            error += (weight - value) * (weight - value);
            square += weight * weight;
        }
        (error, square, alive)
    });
    if let Some(at) = parts.iter().find_map(|(_, _, alive)| *alive) {
        let what = format!("the weight 0 at flat index {at} was quantized to another value");
        return Err(broken(parameter.name(), &what));
    }
    let error: f64 = parts.iter().map(|(error, _, _)| error).sum();
    let square: f64 = parts.iter().map(|(_, square, _)| square).sum();
    Ok(if square > 0.0 { (error / square).sqrt() } else { error.sqrt() })
}

fn broken(layer: &str, what: &str) -> Error {
    Error::new(ErrorKind::Format, format!("layer `{layer}`: {what}"))
}

/// Without the feature `safetensors` there is no file to count.
#[cfg(not(feature = "safetensors"))]
impl<F: Element> Compressed<F> {
    #[expect(clippy::unused_self, reason = "with the feature it reads the parameters")]
    pub(super) fn encoded_len(&self) -> usize {
        0
    }
}
