//! Runs one criterion with one pruner on the digits network, and each quantizer behind them.

use niwaki::importance::{
    GradientCompare, Importance, MaxActivation, Random, Scores, StdDev, TotalConfidence,
};
use niwaki::prune::{Channel, FeatureMap, Pruner, Sparsity, Tiles, Unstructured};
use niwaki::quantize::{ElementWise, MultiScale, Quantizer, Uniform};
use niwaki::recover::{LeastSquares, Recovery, Removal};
use niwaki::{Compressor, Evidence, Model, Needs};

use crate::digits::{Digits, Network, Outcome, read_model};

/// The quantizers, in the order of [`Row::quantized`].
pub(crate) const QUANTIZERS: [&str; 3] = ["element-wise f8", "uniform int8", "multi-scale 4+4"];

/// A stage and what to call it.
pub(crate) type Named<T> = (&'static str, Box<T>);

/// The network, what calibration saw of it, and the images that judge it.
pub(crate) struct Bench {
    model: Model<f32>,
    evidence: Evidence<f32>,
    test: Digits,
}

/// Accuracies of one pair.
pub(crate) struct Row {
    pub(crate) pruned: f64,
    pub(crate) recovered: f64,
    pub(crate) quantized: Vec<f64>,
}

/// The four criteria, and three seeds of the baseline that they must beat.
pub(crate) fn criteria() -> Vec<Named<dyn Importance<f32>>> {
    vec![
        ("max activation", Box::new(MaxActivation::new())),
        ("standard deviation", Box::new(StdDev::of_activations())),
        ("total confidence", Box::new(TotalConfidence::new())),
        ("gradient compare", Box::new(GradientCompare::update())),
        ("random, seed 1", Box::new(Random::new(1))),
        ("random, seed 2", Box::new(Random::new(2))),
        ("random, seed 3", Box::new(Random::new(3))),
    ]
}

/// The four pruners, each at half.
pub(crate) fn pruners() -> Outcome<Vec<Named<dyn Pruner<f32>>>> {
    let half = Sparsity::new(0.5)?;
    Ok(vec![
        ("unstructured", Box::new(Unstructured::new(half))),
        ("channel", Box::new(Channel::new(half))),
        // Only the last map: half of every map in the network would be another network.
        ("feature map", Box::new(FeatureMap::new(half).exclude("re:conv[123].weight"))),
        // A tile is four filters' taps on one channel.
        ("block", Box::new(Tiles::new(4, 9, half))),
    ])
}

fn quantizers() -> Outcome<[Box<dyn Quantizer<f32>>; 3]> {
    Ok([Box::new(ElementWise::f8_e4m3()), Box::new(Uniform::int8()), Box::new(MultiScale::nested(&[4, 4])?)])
}

impl Bench {
    /// Reads the network and runs it on 400 training images; the snapshot is from a fifth of its training.
    pub(crate) fn new() -> Outcome<Self> {
        let model = read_model("digits.safetensors")?;
        let (training, test) = Digits::load()?;
        let mut evidence = Evidence::new(&model, Needs::ALL);
        evidence.record_snapshot(&read_model("digits-early.safetensors")?)?;
        let network = Network::from(model.clone());
        for batch in training.part(0, 400).batches() {
            network.forward(&batch.images, Some(&mut evidence))?;
        }
        Ok(Self { model, evidence, test })
    }

    pub(crate) fn test_images(&self) -> usize {
        self.test.labels.len()
    }

    /// Accuracy of the network as it was.
    pub(crate) fn original(&self) -> Outcome<f64> {
        Network::from(self.model.clone()).accuracy(&self.test)
    }

    /// Accuracy of one pair: pruned, recovered, and then through each quantizer.
    pub(crate) fn run(&self, importance: &dyn Importance<f32>, pruner: &dyn Pruner<f32>) -> Outcome<Row> {
        let plan = pruner.plan(&self.model, &Scores::compute(importance, &self.model, &self.evidence)?)?;
        let pruned = plan.apply(&self.model)?;
        let removal = Removal::new(&self.model, &plan, &self.evidence);
        let recovered = LeastSquares::default().recover(pruned.clone(), &removal)?;
        let mut quantized = Vec::new();
        for quantizer in quantizers()? {
            let compressor =
                Compressor::builder().recovery(LeastSquares::default()).quantizer(quantizer).build()?;
            let compressed = compressor.compress_by(&plan, &self.model, &self.evidence)?;
            compressed.verify()?;
            quantized.push(Network::decoded(&compressed)?.accuracy(&self.test)?);
        }
        Ok(Row {
            pruned: Network::pruned(pruned, &plan).accuracy(&self.test)?,
            recovered: Network::pruned(recovered, &plan).accuracy(&self.test)?,
            quantized,
        })
    }
}
