//! Half the channels of a trained residual network go, or nine weights of ten, and what recovery without training gives back.
//!
//! Evidence comes from the first 400 training images; accuracy is measured on the 1037 other training images. The
//! test images are not looked at here.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a test panics, and compares exact results")]

#[allow(dead_code, reason = "each user of this module takes a part of it")]
#[path = "../examples/digits/mod.rs"]
mod digits;

use digits::{Digits, Network, Outcome, read_model};
use niwaki::importance::{Magnitude, Scores};
use niwaki::prune::{Channel, Plan, Pruner, Sparsity, Then, Unstructured};
use niwaki::recover::{BatchNorm, LeastSquares, MeanFold, Recovery, Removal};
use niwaki::{Evidence, Model, Needs};

const CALIBRATION: usize = 400;

#[test]
fn channels_gone_and_recovered() -> Outcome<()> {
    let digits = Bench::new()?;
    let scores = Scores::compute(&Magnitude::l2(), &digits.model, &digits.evidence)?;
    for (sparsity, close) in [(0.5, 1.5), (0.7, 5.0)] {
        let plan = Channel::new(Sparsity::new(sparsity)?).plan(&digits.model, &scores)?;
        let found = digits.compare(&format!("{sparsity} of the channels"), &plan)?;
        // Folding alone can lose here: the running variances no longer fit.
        assert!(found.folded_normed > found.folded);
        assert!(found.solved > found.pruned && found.solved > found.original - close);
        assert!(found.solved_normed > found.pruned && found.solved_normed > found.original - close);
    }
    Ok(())
}

#[test]
fn single_weights_gone_and_recovered() -> Outcome<()> {
    let digits = Bench::new()?;
    let scores = Scores::compute(&Magnitude::l2(), &digits.model, &digits.evidence)?;
    let plan = Unstructured::new(Sparsity::new(0.9)?).plan(&digits.model, &scores)?;
    let found = digits.compare("0.9 of the weights", &plan)?;
    assert!(found.folded > found.pruned && found.solved > found.folded);
    assert!(found.solved > found.original - 1.5);
    Ok(())
}

/// Accuracies in percent.
struct Found {
    original: f64,
    pruned: f64,
    folded: f64,
    folded_normed: f64,
    solved: f64,
    solved_normed: f64,
}

/// The network, what it saw of the first training images, and the others.
struct Bench {
    model: Model<f32>,
    evidence: Evidence<f32>,
    others: Digits,
}

impl Bench {
    fn new() -> Outcome<Self> {
        let model = read_model("digits.safetensors")?;
        let (training, _) = Digits::load()?;
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        let network = Network::from(model.clone());
        for batch in training.part(0, CALIBRATION).batches() {
            network.forward(&batch.images, Some(&mut evidence))?;
        }
        let others = training.part(CALIBRATION, training.labels.len());
        Ok(Self { model, evidence, others })
    }

    fn compare(&self, gone: &str, plan: &Plan) -> Outcome<Found> {
        let (fold, solve, norm) = (MeanFold::new(), LeastSquares::new(), BatchNorm::new());
        let found = Found {
            original: self.percent(self.model.clone())?,
            pruned: self.percent(plan.apply(&self.model)?)?,
            folded: self.recovered(plan, &fold)?,
            folded_normed: self.recovered(plan, &Then::new(fold, norm))?,
            solved: self.recovered(plan, &solve)?,
            solved_normed: self.recovered(plan, &Then::new(solve, norm))?,
        };
        println!("{gone} gone: {:.2} -> {:.2} %", found.original, found.pruned);
        println!("  MeanFold {:.2} %, with BatchNorm {:.2} %", found.folded, found.folded_normed);
        println!("  LeastSquares {:.2} %, with BatchNorm {:.2} %", found.solved, found.solved_normed);
        Ok(found)
    }

    fn recovered(&self, plan: &Plan, recovery: &impl Recovery<f32>) -> Outcome<f64> {
        let removal = Removal::new(&self.model, plan, &self.evidence);
        self.percent(recovery.recover(plan.apply(&self.model)?, &removal)?)
    }

    /// Percent right of the training images that evidence did not see.
    fn percent(&self, model: Model<f32>) -> Outcome<f64> {
        Ok(100.0 * Network::from(model).accuracy(&self.others)?)
    }
}
