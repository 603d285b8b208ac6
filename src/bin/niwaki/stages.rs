//! From options to a compressor.

use niwaki::importance::Importance;
use niwaki::prune::{Pruner, Then};
use niwaki::quantize::{QuantizedTensor, Quantizer};
use niwaki::recover::Recovery;
use niwaki::{
    Compressor, Error, ErrorKind, Evidence, Layer, Model, Needs, Nothing, Parameter, Pattern, Result,
};

use crate::args::Compress;
use crate::spell::Kept;

pub(crate) type BoxedRecovery<'a> = Box<dyn Recovery<f32> + 'a>;
pub(crate) type Stages<'a> =
    Compressor<Box<dyn Importance<f32>>, Box<dyn Pruner<f32>>, BoxedRecovery<'a>, Box<dyn Quantizer<f32>>>;

/// All stages of a command line, for this model.
///
/// # Errors
/// A pattern that matches nothing, or a setting outside its range.
pub(crate) fn stages<'a>(
    args: &Compress,
    model: &Model<f32>,
    recoveries: Vec<BoxedRecovery<'a>>,
) -> Result<Stages<'a>> {
    let kept = kept(&args.keep, model)?;
    let mut pruner: Option<Box<dyn Pruner<f32>>> = None;
    for prune in &args.prune {
        let round_to = args.round_to.map(|units| units as usize);
        let next = prune.stage(args.scope.into(), round_to, &kept)?;
        pruner = Some(match pruner {
            Some(first) => Box::new(Then::new(first, next)),
            None => next,
        });
    }
    let join = |first: BoxedRecovery<'a>, next: BoxedRecovery<'a>| -> BoxedRecovery<'a> {
        Box::new(Then::new(first, next))
    };
    let quantizer: Box<dyn Quantizer<f32>> = match &args.quantize {
        None => Box::new(Nothing),
        Some(quantize) => {
            let names = model.weights().map(Parameter::name).collect::<Vec<_>>();
            let kept = matching(quantize.kept(), &names, "--quantize: keep")?;
            Box::new(Except { quantizer: quantize.stage()?, kept })
        }
    };
    Compressor::builder()
        .importance(args.importance.stage())
        .pruner(pruner.unwrap_or_else(|| Box::new(Nothing)))
        .recovery(recoveries.into_iter().reduce(join).unwrap_or_else(|| Box::new(Nothing)))
        .quantizer(quantizer)
        .seed(args.seed)
        .build()
}

/// What patterns of `--keep` name: weights (and the couplings of their outputs, and their blocks), couplings, blocks.
pub(crate) fn kept(patterns: &[String], model: &Model<f32>) -> Result<Kept> {
    let mut kept = Kept::default();
    for text in patterns {
        let pattern = Pattern::new(text.as_str())?;
        let weights: Vec<&Parameter<f32>> = model.weights().filter(|p| pattern.matches(p.name())).collect();
        let outputs =
            |name: &str, axis: usize| weights.iter().any(|p| p.name() == name && p.out_axis() == axis);
        let couplings = model.couplings().iter().filter(|coupling| {
            let slots = coupling.slots();
            pattern.matches(coupling.name())
                || slots.iter().any(|slot| outputs(slot.parameter(), slot.axis()))
        });
        let couplings: Vec<String> = couplings.map(|coupling| coupling.name().to_owned()).collect();
        let blocks = model.blocks().iter().filter(|block| {
            pattern.matches(block.name())
                || block.names().any(|name| weights.iter().any(|p| p.name() == name))
        });
        let blocks: Vec<String> = blocks.map(|block| block.name().to_owned()).collect();
        if weights.is_empty() && couplings.is_empty() && blocks.is_empty() {
            let text = format!(
                "--keep {text}: no weight, coupling or block has such a name (`niwaki inspect` lists them)"
            );
            return Err(Error::new(ErrorKind::Name, text));
        }
        kept.weights.extend(weights.iter().map(|p| p.name().to_owned()));
        kept.couplings.extend(couplings);
        kept.blocks.extend(blocks);
    }
    Ok(kept)
}

/// Names that the patterns match, each at least one.
fn matching(patterns: &[String], names: &[&str], option: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for text in patterns {
        let pattern = Pattern::new(text.as_str())?;
        let before = found.len();
        found.extend(names.iter().filter(|name| pattern.matches(name)).map(|name| (*name).to_owned()));
        if found.len() == before {
            let text = format!("{option}={text}: no weight has such a name (`niwaki inspect` lists them)");
            return Err(Error::new(ErrorKind::Name, text));
        }
    }
    Ok(found)
}

/// Leaves some weights as they are.
#[derive(Debug)]
struct Except {
    quantizer: Box<dyn Quantizer<f32>>,
    kept: Vec<String>,
}

impl Quantizer<f32> for Except {
    fn quantize(&self, layer: &Layer<'_, f32>) -> Result<QuantizedTensor> {
        self.quantizer.quantize(layer)
    }

    fn quantize_model(
        &self,
        model: &Model<f32>,
        evidence: &Evidence<f32>,
    ) -> Result<Vec<(String, QuantizedTensor)>> {
        let mut tensors = self.quantizer.quantize_model(model, evidence)?;
        tensors.retain(|(name, _)| !self.kept.contains(name));
        Ok(tensors)
    }

    fn needs(&self) -> Needs {
        self.quantizer.needs()
    }

    fn check(&self) -> Result<()> {
        self.quantizer.check()
    }
}
