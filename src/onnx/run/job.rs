//! A layer of a pruned graph that is to be solved.

use ndarray::{Array1, Array2};

use crate::onnx::run::inputs::Named;
use crate::onnx::run::observe::arranged;
use crate::onnx::run::rows::{Reads, answers, pick};
use crate::onnx::run::runner::Runner;
use crate::onnx::run::solve::{Sums, product};
use crate::onnx::run::uses::Uses;
use crate::onnx::trace::{Branch, Feed, LayerIo, Order};
use crate::onnx::view::View;
use crate::recover::columns::Columns;
use crate::{Model, NormRole, Parameter, Result};

/// Rows of the original by which it is seen that a layer is what it is taken for, and how far they may be off.
const TRIED: usize = 16;
const OFF: f64 = 1e-3;
/// Units that a batch norm multiplies by less make nothing good.
const LEAST_SCALE: f64 = 1e-3;

/// The original, and the pruned graph as it is recovered so far.
pub(super) struct Sides<'s> {
    pub(super) view: &'s View<'s>,
    pub(super) before: &'s Runner,
    pub(super) now: &'s Runner,
}

/// A layer to be solved.
pub(super) struct Job<'j> {
    pub(super) original: &'j Parameter<f32>,
    /// as it is now
    pub(super) parameter: Parameter<f32>,
    /// the original's rows that are left
    pub(super) units: Vec<usize>,
    pub(super) reads: &'j Feed,
    pub(super) answers: &'j Feed,
    /// the original's tensor that it is to answer, and the pruned graph's that it reads
    pub(super) output: &'j str,
    pub(super) input_now: String,
    /// added to what the original answered
    pub(super) shift: Array1<f64>,
    /// the original's bias
    bias: Array1<f64>,
    constant: Option<Place>,
    pub(super) skip: Option<Skip<'j>>,
    pub(super) sums: Sums,
    pub(super) sound: bool,
}

/// What a layer at the end of a residual branch is added to: it is to make good what that lost as well.
pub(super) struct Skip<'j> {
    /// the original's tensor, and the pruned graph's
    pub(super) before: &'j str,
    pub(super) now: String,
    /// what a batch norm in between multiplies each unit by
    scale: Array1<f64>,
}

impl<'j> Skip<'j> {
    /// `None` for a layer that is no end of a branch.
    fn of(layer: &LayerIo, units: &[usize], uses: &Uses<'j>, now: &View<'_>) -> Option<Self> {
        let feed = layer.output.as_ref().filter(|feed| feed.order == Order::Plain)?;
        let view = uses.view();
        let (mut answer, mut scale) = (feed.tensor, Array1::ones(units.len()));
        let reader = view.only_reader(answer).map(|node| &view.nodes[node])?;
        if reader.proto.op_type() == "BatchNormalization" {
            let of = |role| uses.model().norm_of(&layer.parameter, role).map(Parameter::values);
            let (gamma, variance) = (of(NormRole::Scale)?, of(NormRole::Variance)?);
            let epsilon = reader.proto.float("epsilon").unwrap_or(1e-5);
            let by =
                |&u: &usize| Some(f64::from(*gamma.get(u)?) / f64::from(variance.get(u)? + epsilon).sqrt());
            scale = units.iter().map(by).collect::<Option<Vec<f64>>>()?.into();
            answer = reader.outputs.first().copied().flatten()?;
        }
        let ends = |branch: &&Branch| {
            branch.input != answer && view.nodes[branch.sum].inputs.contains(&Some(answer))
        };
        let branch = uses.branches().iter().find(ends)?;
        let before = uses.name(branch.input);
        let there = now.tensors.iter().any(|t| t.graph == 0 && t.name == before);
        there.then(|| Self { before, now: before.to_owned(), scale })
    }

    /// What the layer has to answer more.
    pub(super) fn lost(&self, before: &Array2<f64>, now: &Array2<f64>) -> Array2<f64> {
        let mut lost = before - now;
        for (mut column, &scale) in lost.columns_mut().into_iter().zip(&self.scale) {
            // A unit that the batch norm all but switches off cannot make anything good.
            column.mapv_inplace(|x| if scale.abs() > LEAST_SCALE { x / scale } else { 0.0 });
        }
        lost
    }
}

/// Where a constant goes.
struct Place {
    name: String,
    sign: f64,
}

impl<'j> Job<'j> {
    /// `None` where the pruned graph does not have the layer.
    pub(super) fn new(
        layer: &'j LayerIo,
        columns: &Columns<'j, f32>,
        model: &Model<f32>,
        uses: &Uses<'j>,
        now: &View<'_>,
    ) -> Result<Option<Self>> {
        let (Some(reads), Some(answers)) = (&layer.input, &layer.output) else { return Ok(None) };
        let Some(input_now) = uses.input_now(layer.node, reads.tensor, now) else { return Ok(None) };
        let (original, parameter) = (columns.original, model.parameter(columns.pruned.name())?.clone());
        let (name, units) = (parameter.name(), columns.kept_rows().to_vec());
        let fitting = |p: &&Parameter<f32>| p.array().len() == units.len() && uses.once(p.name());
        let of = |p: Option<&Parameter<f32>>| {
            p.map(|p| p.values().iter().map(|&x| f64::from(x)).collect::<Array1<f64>>())
        };
        let bias = of(uses.model().bias_of(name)).filter(|b| b.len() == original.units());
        let bias = bias.unwrap_or_else(|| Array1::zeros(original.units()));
        let mean = of(uses.model().norm_of(name, NormRole::Mean)).filter(|m| m.len() == original.units());
        let kept = |values: &Array1<f64>, sign: f64| units.iter().map(|&u| sign * values[u]).collect();
        let place = |p: &Parameter<f32>, sign| Some(Place { name: p.name().to_owned(), sign });
        let (constant, shift) = match (model.bias_of(name), model.norm_of(name, NormRole::Mean), &mean) {
            (Some(b), ..) if fitting(&b) => (place(b, 1.0), Array1::zeros(units.len())),
            (None, Some(m), Some(mean)) if fitting(&m) => (place(m, -1.0), kept(mean, -1.0)),
            _ => (None, kept(&bias, -1.0)),
        };
        let sums = Sums::new(&parameter);
        let skip = Skip::of(layer, &units, uses, now);
        let output = uses.name(answers.tensor);
        Ok(Some(Self {
            original,
            parameter,
            units,
            reads,
            answers,
            output,
            input_now,
            shift,
            bias,
            constant,
            skip,
            sums,
            sound: true,
        }))
    }

    pub(super) fn solve(&self, ridge: f64, model: &mut Model<f32>) -> Result<()> {
        let solved = self.sums.solve(&self.parameter, ridge, self.constant.is_some());
        model.set_values(self.parameter.name(), solved.weights)?;
        if let (Some(place), Some(constants)) = (&self.constant, solved.constants) {
            let values: Array1<f32> = constants.iter().map(|c| (place.sign * c) as f32).collect();
            model.set_values(&place.name, values.into_dyn())?;
        }
        Ok(())
    }
}

/// Marks the jobs whose layers are, in the original, what they are taken for: inputs times weights and a bias.
pub(super) fn try_out(jobs: &mut [Job<'_>], sides: &Sides<'_>, named: &Named) -> Result<()> {
    let name = |feed: &Feed| sides.view.tensors[feed.tensor].name;
    let names: Vec<&str> = jobs.iter().flat_map(|job| [name(job.reads), name(job.answers)]).collect();
    let tensors = sides.before.run(named, &names)?;
    for (job, pair) in jobs.iter_mut().zip(tensors.chunks_exact(2)) {
        let layer = job.original.name();
        let (x, y) =
            (arranged(layer, &pair[0], &job.reads.order), arranged(layer, &pair[1], &job.answers.order));
        let (Ok(x), Ok(y)) = (x, y) else {
            job.sound = false;
            continue;
        };
        let all: Vec<usize> = (0..job.original.units()).collect();
        let compared = Reads::new(job.original, &x).and_then(|reads| {
            let rows = pick(reads.rows(), TRIED, 0);
            let found: Array2<f64> = product(job.original, &reads.gather(&rows)?) + &job.bias;
            Ok((found, answers(job.original, &y, reads.rows(), &rows, &all)?))
        });
        job.sound = compared.is_ok_and(|(found, there)| {
            let size = there.iter().fold(0.0, |m: f64, y| m.max(y.abs()));
            found.iter().zip(&there).all(|(a, b)| (a - b).abs() <= OFF * size)
        });
    }
    Ok(())
}
