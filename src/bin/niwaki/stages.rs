//! From options to a compressor.

use niwaki::importance::Importance;
use niwaki::prune::{Pruner, Then};
use niwaki::quantize::Quantizer;
use niwaki::recover::Recovery;
use niwaki::rescale::{Awq, Equalize, Rescale, Smooth};
use niwaki::{Compressor, Error, ErrorKind, Model, Nothing, Parameter, Pattern, Result};

use crate::args::Compress;
use crate::chosen::{Chosen, Notes};
use crate::spell::{Kept, Quantize};

pub(crate) type BoxedRecovery<'a> = Box<dyn Recovery<f32> + 'a>;
pub(crate) type Stages<'a> = Compressor<
    Box<dyn Importance<f32>>,
    Box<dyn Pruner<f32>>,
    BoxedRecovery<'a>,
    Box<dyn Quantizer<f32>>,
    Box<dyn Rescale<f32>>,
>;

/// All stages of a command line, for this model; `notes` takes what the quantizer does in place of what was asked for.
///
/// # Errors
/// A pattern that matches nothing, or a setting outside its range.
pub(crate) fn stages<'a>(
    args: &Compress,
    model: &Model<f32>,
    recoveries: Vec<BoxedRecovery<'a>>,
    notes: &Notes,
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
        Some(quantize) => Box::new(Chosen::new(quantize, args.correct_bias, model, notes)?),
    };
    let stages = Compressor::builder()
        .importance(args.importance().stage())
        .pruner(pruner.unwrap_or_else(|| Box::new(Nothing)))
        .recovery(recoveries.into_iter().reduce(join).unwrap_or_else(|| Box::new(Nothing)))
        .rescale(rescale(args)?)
        .quantizer(quantizer)
        .seed(args.seed);
    if args.correct_bias { stages.correct_bias() } else { stages }.build()
}

/// What moves scales, in this order.
fn rescale(args: &Compress) -> Result<Box<dyn Rescale<f32>>> {
    let mut all: Vec<Box<dyn Rescale<f32>>> = Vec::new();
    if args.equalize {
        all.push(Box::new(Equalize::new()));
    }
    if let Some(alpha) = args.smooth {
        all.push(Box::new(Smooth::new().alpha(alpha)));
    }
    if args.awq
        && let Some(nearest) = args.quantize.as_ref().map(Quantize::nearest).transpose()?.flatten()
    {
        all.push(Box::new(Awq::new(nearest)));
    }
    let join = |first, next| -> Box<dyn Rescale<f32>> { Box::new(Then::new(first, next)) };
    Ok(all.into_iter().reduce(join).unwrap_or_else(|| Box::new(Nothing)))
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
pub(crate) fn matching(patterns: &[String], names: &[&str], option: &str) -> Result<Vec<String>> {
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
