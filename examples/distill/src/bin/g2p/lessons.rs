//! The teacher: the original network, and words.

use candle_core::{Result, Tensor};
use distill::{Weights, divergence, engine};
use niwaki::Model;
use niwaki::distill::{Loss, Teacher};

use crate::network::{Batch, Thoughts};
use crate::words::Words;

const BATCH: usize = 128;
/// Words of a batch that are real.
const REAL: usize = 13;
/// What the distance of hidden states weighs beside that of the answers.
const STATES: f64 = 20.0;

/// The original network, words to train on, and words to look at.
pub(crate) struct Lessons {
    original: Weights,
    words: Words,
    held_out: (Batch, Thoughts),
}

impl Lessons {
    pub(crate) fn new(model: &Model<f32>, words: Words, held_out: &[String]) -> Result<Self> {
        let original = Weights::fixed(model)?;
        let held_out = held_out.iter().map(|word| word.clone().into_bytes()).collect();
        let batch = Batch::new(&original, held_out)?;
        let thoughts = batch.run(&original)?;
        Ok(Self { original, words, held_out: (batch, thoughts) })
    }

    fn batch_loss(&mut self, student: &Model<f32>) -> Result<Loss<f32>> {
        let batch = Batch::new(&self.original, self.words.batch(BATCH, REAL))?;
        let right = batch.run(&self.original)?;
        let weights = Weights::variable(student)?;
        let ours = batch.run(&weights)?;
        let states = (distance(&ours.heard, &right.heard)? + distance(&ours.said, &right.said)?)?;
        weights.loss(&(divergence(&ours.scores, &right.scores)? + (states * STATES)?)?)
    }

    fn held_out_loss(&self, student: &Model<f32>) -> Result<f64> {
        let (batch, right) = &self.held_out;
        let ours = batch.run(&Weights::fixed(student)?)?;
        Ok(f64::from(divergence(&ours.scores, &right.scores)?.to_scalar::<f32>()?))
    }
}

impl Teacher<f32> for Lessons {
    fn loss(&mut self, student: &Model<f32>, _step: usize) -> niwaki::Result<Loss<f32>> {
        self.batch_loss(student).map_err(engine)
    }

    fn held_out(&mut self, student: &Model<f32>) -> niwaki::Result<Option<f64>> {
        self.held_out_loss(student).map(Some).map_err(engine)
    }
}

fn distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a - b)?.sqr()?.mean_all()
}
