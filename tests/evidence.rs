//! Evidence says the same however its batches were cut, and the same as the definition of each statistic.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

use ndarray::{Array1, Array2, Array4, ArrayD, Axis, Dimension, IxDyn, Slice, concatenate};
use niwaki::evidence::Moments;
use niwaki::importance::{Magnitude, Scores};
use niwaki::prune::{Channel, Plan, Pruner, Sparsity};
use niwaki::{Block, Coupling, Evidence, Geometry, Layer, Model, Needs, Parameter, Result, Slot};
use proptest::prelude::*;

const SAMPLES: usize = 12;

/// Numbers of very different size, a third of them 0 as after a relu; splitmix64 of Steele, Lea and Flood (2014).
fn numbers(seed: u64, shape: &[usize]) -> ArrayD<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        let (bits, fraction) = (next(), (next() >> 11) as f64 / (1u64 << 53) as f64);
        match bits % 6 {
            0 | 1 => 0.0,
            2 => -100.0 * fraction,
            3 => 1e-3 * fraction + 7.0,
            _ => 2.0 * fraction - 0.5,
        }
    })
}

/// |a − b| within 1e-9 of the scale.
#[track_caller]
fn assert_near<'a>(a: impl IntoIterator<Item = &'a f64>, b: impl IntoIterator<Item = &'a f64>, scale: f64) {
    let (a, b): (Vec<f64>, Vec<f64>) = (a.into_iter().copied().collect(), b.into_iter().copied().collect());
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(&b) {
        assert!((x - y).abs() <= 1e-9 * scale.max(x.abs()), "{x} is not {y}");
    }
}

/// A model with a weight of each kind, and what passes by when it runs. Nothing here is a real forward pass:
/// evidence takes what it is given.
struct Run {
    model: Model<f64>,
    /// (layer, batch of outputs), samples first
    outputs: Vec<(&'static str, ArrayD<f64>)>,
    inputs: Vec<(&'static str, ArrayD<f64>)>,
    gradients: Vec<ArrayD<f64>>,
    block: (ArrayD<f64>, ArrayD<f64>),
}

fn run(seed: u64) -> Result<Run> {
    let geometry = Geometry::new().padding(1).stride(2).groups(2);
    let model = Model::builder()
        .parameter(Parameter::conv("conv", numbers(seed, &[6, 2, 3, 3]), geometry))
        .parameter(Parameter::linear("fc", numbers(seed, &[5, 7])))
        .parameter(Parameter::linear("turned", numbers(seed, &[5, 7])).axes(1, 0))
        .parameter(Parameter::recurrent("cell", numbers(seed, &[12, 4]), 3))
        .parameter(Parameter::embedding("table", numbers(seed, &[9, 4])))
        .block(Block::new("block"))
        .coupling(Coupling::builder("filters").slot(Slot::output("conv").copies(2)))
        .coupling(Coupling::builder("channels").inputs(["conv"]))
        .coupling(Coupling::builder("neurons").outputs(["fc"]).inputs(["turned"]))
        .coupling(Coupling::builder("read").inputs(["fc"]))
        .coupling(Coupling::builder("units").slot(Slot::output("cell").copies(3)))
        .coupling(Coupling::builder("features").outputs(["table"]).inputs(["cell"]))
        .build()?;
    let n = SAMPLES;
    Ok(Run {
        model,
        outputs: vec![
            ("conv", numbers(seed ^ 1, &[n, 6, 3, 2])),
            ("fc", numbers(seed ^ 2, &[n, 5])),
            ("turned", numbers(seed ^ 3, &[n, 7])),
            ("cell", numbers(seed ^ 4, &[n, 3, 4])),
            ("table", numbers(seed ^ 5, &[n, 3, 4])),
        ],
        inputs: vec![
            ("conv", numbers(seed ^ 6, &[n, 4, 5, 4])),
            ("fc", numbers(seed ^ 7, &[n, 7])),
            ("turned", numbers(seed ^ 8, &[n, 5])),
            ("cell", numbers(seed ^ 9, &[n, 3, 4])),
        ],
        gradients: (0..n as u64).map(|k| numbers(seed ^ (10 + k), &[5, 7])).collect(),
        block: (numbers(seed ^ 0x30, &[n, 3, 4]), numbers(seed ^ 0x31, &[n, 3, 4])),
    })
}

impl Run {
    /// Evidence about the samples from `start` to `end`.
    fn record(&self, evidence: &mut Evidence<f64>, start: usize, end: usize) -> Result<()> {
        let part = |x: &ArrayD<f64>| x.slice_axis(Axis(0), Slice::from(start..end)).to_owned();
        for (layer, x) in &self.outputs {
            evidence.record_output(layer, &part(x))?;
        }
        for (layer, x) in &self.inputs {
            evidence.record_input(layer, &part(x))?;
        }
        for gradient in &self.gradients[start..end] {
            evidence.record_gradient("fc", gradient)?;
            evidence.record_snapshot_gradient("fc", &(gradient * 3.0))?;
        }
        evidence.record_block("block", &part(&self.block.0), &part(&self.block.1))
    }

    fn evidence(&self, cuts: &[usize]) -> Result<Evidence<f64>> {
        let mut evidence = Evidence::new(&self.model, Needs::ALL);
        for ends in cuts.windows(2) {
            self.record(&mut evidence, ends[0], ends[1])?;
        }
        Ok(evidence)
    }
}

/// Batch ends from any numbers: 0, some in between, all samples.
fn cuts(at: &[usize]) -> Vec<usize> {
    let mut cuts = vec![0, SAMPLES];
    cuts.extend(at);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

#[track_caller]
fn assert_same_moments(a: &Moments, b: &Moments) {
    assert_eq!(a.count(), b.count());
    assert_eq!((a.min(), a.max(), a.max_abs()), (b.min(), b.max(), b.max_abs()));
    for (at, max) in b.max_abs().iter().enumerate() {
        assert_near([&a.mean()[at]], [&b.mean()[at]], *max);
        assert_near([&a.variance()[at]], [&b.variance()[at]], max * max);
        // A root doubles the relative error, and what is almost constant has none of its own.
        assert_near([&a.std_dev()[at].powi(2)], [&b.variance()[at]], max * max);
    }
}

/// All statistics of a layer are the same: histograms exactly, the rest to 1e-9.
fn assert_same_layer(a: Layer<'_, f64>, b: Layer<'_, f64>) {
    assert_eq!(a.outputs().is_ok(), b.outputs().is_ok(), "{}", a.name());
    if let (Ok(a), Ok(b)) = (a.outputs(), b.outputs()) {
        assert_same_moments(a.units(), b.units());
        let (Some(p), Some(q)) = (a.positions(), b.positions()) else { panic!("no maps") };
        assert_eq!(p.shape(), q.shape());
        assert_same_moments(p.moments(), q.moments());
        assert_eq!(p.histograms(), q.histograms());
        let (Some(g), Some(h)) = (a.gram(), b.gram()) else { panic!("no Gram matrix") };
        assert_near(g, h, h.iter().fold(0.0, |m, v| m.max(v.abs())));
    }
    assert_eq!(a.inputs().is_ok(), b.inputs().is_ok(), "{}", a.name());
    if let (Ok(x), Ok(y)) = (a.inputs(), b.inputs()) {
        assert_eq!((x.rows(), x.groups()), (y.rows(), y.groups()));
        for group in 0..x.groups() {
            let largest = y.norms(group).iter().fold(0.0f64, |m, v| m.max(*v));
            assert_near(&x.mean(group), &y.mean(group), largest);
            assert_near(&x.norms(group), &y.norms(group), largest);
            assert_near(&x.mean_squares(group), &y.mean_squares(group), largest * largest);
            let (Some(g), Some(h)) = (x.gram(group), y.gram(group)) else { panic!("no Gram matrix") };
            assert_near(g, h, largest * largest);
        }
    }
    let arrays = [
        (a.gradient(), b.gradient()),
        (a.snapshot_gradient(), b.snapshot_gradient()),
        (a.snapshot().cloned(), b.snapshot().cloned()),
    ];
    for (x, y) in arrays {
        assert_eq!(x.is_ok(), y.is_ok(), "{}", a.name());
        if let (Ok(x), Ok(y)) = (x, y) {
            assert_eq!(x.shape(), y.shape());
            assert_near(&x, &y, 100.0);
        }
    }
}

fn assert_same(model: &Model<f64>, a: &Evidence<f64>, b: &Evidence<f64>) -> Result<()> {
    for weight in model.weights() {
        assert_same_layer(a.layer(model, weight.name())?, b.layer(model, weight.name())?);
    }
    let influence = [a, b].map(|e| e.block_influence("block").unwrap_or(f64::NAN));
    assert_near([&influence[0]], [&influence[1]], 1.0);
    Ok(())
}

/// Mean, population variance, least, largest.
fn naive_moments(values: &[f64]) -> [f64; 4] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let ends = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &x| (l.min(x), h.max(x)));
    [mean, variance, ends.0, ends.1]
}

#[track_caller]
fn assert_moments(moments: &Moments, channel: usize, values: &[f64]) {
    let [mean, variance, min, max] = naive_moments(values);
    assert_near([&moments.mean()[channel], &moments.variance()[channel]], [&mean, &variance], 1e4);
    assert_eq!((moments.min()[channel], moments.max()[channel]), (min, max));
    assert_eq!(moments.max_abs()[channel], max.abs().max(min.abs()));
    assert_eq!(moments.count(), values.len() as u64);
}

/// How a kernel slides along one axis.
#[derive(Clone, Copy, Debug)]
struct Slide {
    stride: usize,
    before: usize,
    after: usize,
    dilation: usize,
}

impl Slide {
    /// From the first tap to the last.
    fn span(self, taps: usize) -> usize {
        self.dilation * (taps - 1) + 1
    }
}

/// Patches of an input [n, channels, positions…] for one group: a row for each sample and output position.
fn naive_patches(x: &ArrayD<f64>, weights: &[usize], group: usize, slides: &[Slide]) -> Array2<f64> {
    let (features, kernel, input) = (weights[1], &weights[2..], &x.shape()[2..]);
    let output: Vec<usize> = (0..kernel.len())
        .map(|axis| {
            let slide = slides[axis];
            (slide.before + input[axis] + slide.after - slide.span(kernel[axis])) / slide.stride + 1
        })
        .collect();
    let mut patches = Array2::zeros((0, features * kernel.iter().product::<usize>()));
    for sample in x.axis_iter(Axis(0)) {
        for at in ndarray::indices(IxDyn(&output)) {
            let mut row = Vec::new();
            for channel in sample.axis_iter(Axis(0)).skip(group * features).take(features) {
                for tap in ndarray::indices(IxDyn(kernel)) {
                    let place: Option<Vec<usize>> = (0..kernel.len())
                        .map(|axis| {
                            let slide = slides[axis];
                            let from = at.slice()[axis] * slide.stride + tap.slice()[axis] * slide.dilation;
                            from.checked_sub(slide.before)
                        })
                        .collect();
                    row.push(place.and_then(|place| channel.get(IxDyn(&place)).copied()).unwrap_or(0.0));
                }
            }
            patches.push_row(Array1::from(row).view()).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    patches
}

#[track_caller]
fn assert_columns(layer: Layer<'_, f64>, group: usize, rows: &Array2<f64>) -> Result<()> {
    let (inputs, gram) = (layer.inputs()?, rows.t().dot(rows));
    let largest = gram.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert_eq!(inputs.rows(), rows.nrows() as u64);
    assert_near(&inputs.mean(group), &(rows.sum_axis(Axis(0)) / rows.nrows() as f64), largest.sqrt());
    assert_near(&inputs.norms(group), &gram.diag().mapv(f64::sqrt), largest.sqrt());
    assert_near(&inputs.mean_squares(group), &(&gram.diag() / rows.nrows() as f64), largest);
    assert_near(layer.gram(group)?, &gram, largest);
    Ok(())
}

/// All leading axes as one.
fn rows(x: &ArrayD<f64>) -> Array2<f64> {
    let width = x.shape()[x.ndim() - 1];
    let rows = x.to_shape((x.len() / width, width)).map(|rows| rows.to_owned());
    rows.unwrap_or_else(|error| panic!("{error}"))
}

fn slide() -> impl Strategy<Value = Slide> {
    (1..4usize, 0..4usize, 0..4usize, 1..4usize).prop_map(|(stride, before, after, dilation)| Slide {
        stride,
        before,
        after,
        dilation,
    })
}

/// A share of each coupling, by the size of the weights.
fn plan(model: &Model<f64>, share: f64) -> Result<Plan> {
    let scores = Scores::compute(&Magnitude::l2(), model, &Evidence::new(model, Needs::MOMENTS))?;
    Channel::new(Sparsity::new(share)?).plan(model, &scores)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_says_the_same(seed: u64, at in proptest::collection::vec(1..SAMPLES, 0..6)) {
        let run = run(seed)?;
        let whole = run.evidence(&[0, SAMPLES])?;
        assert_same(&run.model, &run.evidence(&cuts(&at))?, &whole)?;
    }

    #[test]
    fn merged_parts_are_the_whole(
        seed: u64,
        at in proptest::collection::vec(1..SAMPLES, 1..5),
        order in any::<prop::sample::Index>(),
    ) {
        let run = run(seed)?;
        let ends = cuts(&at);
        let mut parts = ends.windows(2).map(|ends| run.evidence(ends)).collect::<Result<Vec<_>>>()?;
        let mid = order.index(parts.len());
        parts.rotate_left(mid);
        let mut merged = Evidence::new(&run.model, Needs::ALL);
        for part in &parts {
            merged.merge(part)?;
        }
        assert_same(&run.model, &merged, &run.evidence(&[0, SAMPLES])?)?;
        // Backwards, and without the empty start.
        let mut merged = parts[parts.len() - 1].clone();
        for part in parts.iter().rev().skip(1) {
            merged.merge(part)?;
        }
        assert_same(&run.model, &merged, &run.evidence(&[0, SAMPLES])?)?;
    }

    #[test]
    fn outputs_are_what_their_definition_says(seed: u64, at in proptest::collection::vec(1..SAMPLES, 0..4)) {
        let run = run(seed)?;
        let evidence = run.evidence(&cuts(&at))?;
        for (name, x) in &run.outputs {
            let outputs = evidence.layer(&run.model, name)?.outputs()?;
            let axis = Axis(if *name == "conv" { 1 } else { x.ndim() - 1 });
            for (unit, values) in x.axis_iter(axis).enumerate() {
                assert_moments(outputs.units(), unit, &values.iter().copied().collect::<Vec<_>>());
            }
            // Rows of units, over samples and positions.
            let mut order: Vec<usize> = (0..x.ndim()).filter(|&a| a != axis.index()).collect();
            order.push(axis.index());
            let gram = rows(&x.view().permuted_axes(IxDyn(&order)).as_standard_layout().to_owned());
            let gram = gram.t().dot(&gram);
            let Some(kept) = outputs.gram() else { panic!("no Gram matrix") };
            assert_near(kept, &gram, gram.iter().fold(0.0, |m, v| m.max(v.abs())));
            let Some(covariance) = outputs.covariance() else { panic!("no Gram matrix") };
            assert_near(&covariance.diag().to_owned(), &outputs.units().variance(), 1e4);

            let Some(positions) = outputs.positions() else { panic!("no maps") };
            let maps = if *name == "conv" || x.ndim() == 2 {
                x.clone()
            } else {
                x.mean_axis(Axis(1)).unwrap_or_default()
            };
            prop_assert_eq!(positions.shape(), &maps.shape()[1..]);
            let places = maps.len() / SAMPLES;
            let maps: Vec<f64> = maps.iter().copied().collect();
            let Some(histograms) = positions.histograms() else { panic!("no histograms") };
            for (place, histogram) in histograms.iter().enumerate() {
                let values: Vec<f64> = maps.iter().skip(place).step_by(places).copied().collect();
                let [mean, variance, min, max] = naive_moments(&values);
                let moments = positions.moments();
                assert_near([&moments.mean()[place]], [&mean], 100.0);
                assert_near([&moments.variance()[place]], [&variance], 1e4);
                let bins: Vec<(f64, u32)> = histogram.bins().collect();
                prop_assert_eq!(histogram.count(), SAMPLES as u64);
                // Each value is in a bin whose centre is at most half a bin, 1/32 of the range at most, away.
                let near = |x: f64| bins.iter().any(|(c, _)| (c - x).abs() <= (max - min) / 60.0 + 1e-12);
                prop_assert!(values.iter().all(|&x| near(x)), "{:?} of {:?}", bins, values);
                prop_assert!(bins.windows(2).all(|pair| pair[0].0 < pair[1].0));
            }
        }
    }

    #[test]
    fn inputs_gradients_and_blocks_are_what_their_definition_says(
        seed: u64,
        at in proptest::collection::vec(1..SAMPLES, 0..4),
    ) {
        let run = run(seed)?;
        let evidence = run.evidence(&cuts(&at))?;
        for (name, x) in run.inputs.iter().skip(1) {
            assert_columns(evidence.layer(&run.model, name)?, 0, &rows(x))?;
        }
        let mean = run.gradients.iter().fold(ArrayD::zeros(IxDyn(&[5, 7])), |sum, g| sum + g) / SAMPLES as f64;
        assert_near(&evidence.layer(&run.model, "fc")?.gradient()?, &mean, 100.0);
        assert_near(&evidence.layer(&run.model, "fc")?.snapshot_gradient()?, &(mean * 3.0), 300.0);
        let (x, y) = (rows(&run.block.0), rows(&run.block.1));
        let cosine = |(a, b): (ndarray::ArrayView1<'_, f64>, ndarray::ArrayView1<'_, f64>)| {
            let norms = (a.dot(&a) * b.dot(&b)).sqrt();
            if norms > 0.0 { a.dot(&b) / norms } else { 1.0 }
        };
        let cosines: Vec<f64> = x.rows().into_iter().zip(y.rows()).map(cosine).collect();
        let influence = 1.0 - cosines.iter().sum::<f64>() / cosines.len() as f64;
        assert_near([&evidence.block_influence("block").unwrap_or(f64::NAN)], [&influence], 1.0);
    }

    #[test]
    fn convolutions_read_their_patches(
        seed: u64,
        slides in proptest::collection::vec(slide(), 3),
        uniform: bool,
        (groups, features, filters) in (1..4usize, 1..4usize, 1..3usize),
        kernel in proptest::collection::vec(1..4usize, 1..4),
        more in proptest::collection::vec(0..4usize, 3),
        at in 1..SAMPLES,
    ) {
        let mut slides = slides[..kernel.len()].to_vec();
        let geometry = if uniform {
            let one = Slide { after: slides[0].before, ..slides[0] };
            slides.fill(one);
            Geometry::new().stride(one.stride).padding(one.before).dilation(one.dilation)
        } else {
            Geometry::new()
                .strides(slides.iter().map(|s| s.stride))
                .paddings(slides.iter().map(|s| (s.before, s.after)))
                .dilations(slides.iter().map(|s| s.dilation))
        };
        let geometry = geometry.groups(groups);
        let mut shape = vec![filters * groups, features];
        shape.extend(&kernel);
        let model =
            Model::builder().parameter(Parameter::conv("conv", numbers(seed, &shape), geometry)).build()?;
        let mut input = vec![SAMPLES, features * groups];
        // The least input that the kernel fits in, and a bit more.
        let fitting = |((k, s), more): ((&usize, &Slide), &usize)| {
            s.span(*k).saturating_sub(s.before + s.after).max(1) + more
        };
        input.extend(kernel.iter().zip(&slides).zip(&more).map(fitting));
        let x = numbers(seed ^ 1, &input);
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        for part in [Slice::from(..at), Slice::from(at..)] {
            evidence.record_input("conv", &x.slice_axis(Axis(0), part).to_owned())?;
        }
        let layer = evidence.layer(&model, "conv")?;
        prop_assert_eq!(layer.inputs()?.groups(), groups);
        for group in 0..groups {
            assert_columns(layer, group, &naive_patches(&x, &shape, group, &slides))?;
        }
    }

    /// What is known after a cut is what would have been seen after it.
    #[test]
    fn a_cut_of_evidence_is_evidence_of_the_cut(seed: u64, share in 0.0..0.9f64) {
        let run = run(seed)?;
        let mut whole = run.evidence(&[0, SAMPLES])?;
        whole.record_snapshot(&run.model)?;
        let plan = plan(&run.model, share)?;
        let smaller = plan.apply(&run.model)?;
        let cut = plan.apply_to_evidence(&whole)?;

        let keep = |x: &ArrayD<f64>, axis: usize, kept: Option<Vec<usize>>| match kept {
            Some(kept) => x.select(Axis(axis), &kept),
            None => x.clone(),
        };
        let mut seen = Evidence::new(&smaller, Needs::ALL);
        for (name, x) in &run.outputs {
            let (parameter, axis) = (run.model.parameter(name)?, if *name == "conv" { 1 } else { x.ndim() - 1 });
            let units = parameter.units();
            let kept = plan.kept(name, parameter.out_axis());
            let kept = kept.map(|kept| kept.into_iter().filter(|&row| row < units).collect());
            seen.record_output(name, &keep(x, axis, kept))?;
        }
        for (name, x) in &run.inputs {
            let parameter = run.model.parameter(name)?;
            let (features, groups) = (parameter.shape()[parameter.in_axis().unwrap_or(0)], parameter.groups());
            let kept = plan.kept(name, parameter.in_axis().unwrap_or(0));
            let kept = kept.map(|kept| (0..groups).flat_map(|g| kept.iter().map(move |c| g * features + c)).collect());
            seen.record_input(name, &keep(x, if *name == "conv" { 1 } else { x.ndim() - 1 }, kept))?;
        }
        for gradient in &run.gradients {
            let gradient = keep(&keep(gradient, 0, plan.kept("fc", 0)), 1, plan.kept("fc", 1));
            seen.record_gradient("fc", &gradient)?;
            seen.record_snapshot_gradient("fc", &(gradient * 3.0))?;
        }
        seen.record_snapshot(&smaller)?;
        seen.record_block("block", &run.block.0, &run.block.1)?;
        assert_same(&smaller, &cut, &seen)?;
        // It can be fed on, and cut again.
        let twice = plan_again(&smaller, &cut)?;
        prop_assert!(twice.block_influence("block").is_some());
    }

    /// Whole groups of a convolution take their inputs' statistics with them.
    #[test]
    fn whole_groups_leave_with_their_inputs(seed: u64, share in 0.0..0.9f64) {
        let geometry = Geometry::new().groups(4);
        let model = Model::builder()
            .parameter(Parameter::conv("conv", numbers(seed, &[8, 3, 2, 2]), geometry))
            .coupling(Coupling::builder("groups").slot(Slot::output("conv").repeat(2)))
            .build()?;
        let x = numbers(seed ^ 1, &[3, 12, 4, 3]);
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        evidence.record_input("conv", &x)?;
        let plan = plan(&model, share)?;
        let smaller = plan.apply(&model)?;
        let filters = plan.kept("conv", 0).unwrap_or((0..8).collect());
        let channels: Vec<usize> = filters.iter().step_by(2).flat_map(|f| f / 2 * 3..f / 2 * 3 + 3).collect();
        let mut seen = Evidence::new(&smaller, Needs::GRAM);
        seen.record_input("conv", &x.select(Axis(1), &channels))?;
        assert_same_layer(
            plan.apply_to_evidence(&evidence)?.layer(&smaller, "conv")?,
            seen.layer(&smaller, "conv")?,
        );
    }
}

/// Cuts a second time, after one more batch.
fn plan_again(model: &Model<f64>, evidence: &Evidence<f64>) -> Result<Evidence<f64>> {
    let mut evidence = evidence.clone();
    let units = model.parameter("fc")?.units();
    evidence.record_output("fc", &numbers(1, &[2, units]))?;
    let plan = plan(model, 0.5)?;
    let cut = plan.apply_to_evidence(&evidence)?;
    let smaller = plan.apply(model)?;
    for weight in smaller.weights() {
        cut.layer(&smaller, weight.name())?;
    }
    Ok(cut)
}

/// More output positions than are unfolded at a time.
#[test]
fn large_maps_are_unfolded_in_parts() -> Result<()> {
    let model = Model::builder()
        .parameter(Parameter::conv("conv", numbers(1, &[1, 1, 3, 3]), Geometry::new().padding(1)))
        .build()?;
    let x = numbers(2, &[2, 1, 90, 70]);
    let mut evidence = Evidence::new(&model, Needs::GRAM);
    evidence.record_input("conv", &x)?;
    assert_columns(
        evidence.layer(&model, "conv")?,
        0,
        &naive_patches(&x, &[1, 1, 3, 3], 0, &[Slide { stride: 1, before: 1, after: 1, dilation: 1 }; 2]),
    )
}

/// Channels enough for Gram matrices to be made without patches, rows and columns enough for several blocks.
#[test]
fn wide_layers_are_read_in_blocks() -> Result<()> {
    let slide = |stride, before, after, dilation| Slide { stride, before, after, dilation };
    let cases = [
        (vec![1, 140, 2], vec![3, 140, 9], vec![slide(1, 1, 0, 3)], 1),
        (vec![2, 9, 3, 3], vec![2, 18, 8, 7], vec![slide(2, 0, 1, 1), slide(1, 2, 0, 2)], 2),
        (vec![1, 8, 3, 3], vec![2, 8, 20, 20], vec![slide(1, 1, 1, 1); 2], 1),
        (
            vec![1, 10, 2, 1, 3],
            vec![2, 10, 3, 4, 6],
            vec![slide(1, 0, 0, 1), slide(2, 1, 1, 1), slide(2, 1, 2, 1)],
            1,
        ),
        (vec![1, 90, 1, 1], vec![3, 90, 20, 11], vec![slide(1, 0, 0, 1); 2], 1),
    ];
    for (shape, input, slides, groups) in cases {
        let geometry = Geometry::new()
            .strides(slides.iter().map(|s| s.stride))
            .paddings(slides.iter().map(|s| (s.before, s.after)))
            .dilations(slides.iter().map(|s| s.dilation))
            .groups(groups);
        let model =
            Model::builder().parameter(Parameter::conv("conv", numbers(1, &shape), geometry)).build()?;
        let x = numbers(2, &input);
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        evidence.record_input("conv", &x)?;
        for group in 0..groups {
            assert_columns(
                evidence.layer(&model, "conv")?,
                group,
                &naive_patches(&x, &shape, group, &slides),
            )?;
        }
    }
    let model = Model::builder().parameter(Parameter::linear("fc", numbers(1, &[1, 150]))).build()?;
    let x = numbers(3, &[1100, 150]);
    let mut evidence = Evidence::new(&model, Needs::GRAM);
    evidence.record_input("fc", &x)?;
    assert_columns(evidence.layer(&model, "fc")?, 0, &rows(&x))
}

/// Gram matrices of f32 inputs are products in f32 where that loses little beside the spread of the inputs, and in f64
/// where the mean is large beside it.
#[test]
fn gram_matrices_of_f32_inputs_lose_little() -> Result<()> {
    let geometry = Geometry::new().padding(1);
    let cases = [
        (3, 0.0, 1.0, 1e-6),
        (16, 0.0, 1.0, 1e-6),
        (3, 1e4, 1.0, 1e-9),
        (16, 1e4, 1.0, 1e-9),
        (3, 0.0, 1e30, 1e-9),
        (16, 0.0, 1e-30, 1e-9),
    ];
    for (channels, offset, scale, loss) in cases {
        let x = numbers(5, &[4, channels, 20, 20]).mapv(|x| ((x + offset) * scale) as f32);
        // Without padding the large mean is seen.
        let geometry = if offset > 0.0 { Geometry::new() } else { geometry };
        let conv = |name| Parameter::conv(name, Array4::<f32>::ones((1, channels, 3, 3)), geometry);
        let narrow = Model::builder().parameter(conv("conv")).build()?;
        let wide = Parameter::conv("conv", Array4::<f64>::ones((1, channels, 3, 3)), geometry);
        let wide = Model::builder().parameter(wide).build()?;
        let (mut seen, mut exact) = (Evidence::new(&narrow, Needs::GRAM), Evidence::new(&wide, Needs::GRAM));
        seen.record_input("conv", &x)?;
        exact.record_input("conv", &x.mapv(f64::from))?;
        let (seen, exact) = (seen.layer(&narrow, "conv")?, exact.layer(&wide, "conv")?);
        let (g, h) = (seen.gram(0)?, exact.gram(0)?);
        assert_eq!(g, g.t());
        for ((i, j), x) in h.indexed_iter() {
            assert!(
                (g[[i, j]] - x).abs() <= loss * (h[[i, i]] * h[[j, j]]).sqrt(),
                "{} is not {x}",
                g[[i, j]]
            );
        }
        assert_near(&seen.inputs()?.mean_squares(0), &exact.inputs()?.mean_squares(0), 0.0);
    }
    Ok(())
}

/// Gradients of f32 weights add up in f64: what is far below the sum still counts, and none overflows.
#[test]
fn gradients_add_up_in_f64() -> Result<()> {
    let model = Model::builder().parameter(Parameter::linear("fc", Array2::<f32>::ones((1, 2)))).build()?;
    let mut evidence = Evidence::new(&model, Needs::MOMENTS);
    evidence.record_gradient("fc", &ndarray::array![[1e8f32, f32::MAX]])?;
    for _ in 0..3 {
        evidence.record_gradient("fc", &ndarray::array![[1.0f32, f32::MAX]])?;
    }
    let mean = evidence.layer(&model, "fc")?.gradient()?;
    assert_eq!(mean.as_slice(), Some(&[25_000_000.75f32, f32::MAX][..]));
    Ok(())
}

/// Arrays in any memory order are read by their indices.
#[test]
fn views_and_turned_arrays_say_the_same() -> Result<()> {
    let run = run(3)?;
    let (name, x) = &run.outputs[0];
    let mut straight = Evidence::new(&run.model, Needs::ALL);
    straight.record_output(name, x)?;
    let mut turned = Evidence::new(&run.model, Needs::ALL);
    let fortran = x.t().as_standard_layout().to_owned().reversed_axes();
    assert!(!fortran.is_standard_layout());
    turned.record_output(name, &fortran)?;
    assert_eq!(straight, turned);
    let mut doubled = Evidence::new(&run.model, Needs::ALL);
    let twice = concatenate(Axis(0), &[x.view(), x.view()]).unwrap_or_else(|error| panic!("{error}"));
    doubled.record_output(name, &twice.slice_axis(Axis(0), Slice::from(SAMPLES..)))?;
    assert_eq!(straight, doubled);
    Ok(())
}
