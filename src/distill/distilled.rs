//! [`Distilled`]: what a training left.

use std::fmt::{self, Display};

use crate::Compressed;

/// A trained network in few bits, and how its loss went. Printed as a line or two.
#[derive(Clone, Debug)]
pub struct Distilled<F> {
    pub(super) compressed: Compressed<F>,
    pub(super) losses: Vec<f64>,
    pub(super) held_out: Vec<(usize, f64)>,
    pub(super) step: usize,
}

impl<F> Distilled<F> {
    /// The network. In its report a weight's error is against the values before training, so that it counts what
    /// training moved too.
    pub fn compressed(&self) -> &Compressed<F> {
        &self.compressed
    }

    /// The network alone.
    pub fn into_compressed(self) -> Compressed<F> {
        self.compressed
    }

    /// The loss of each step.
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// How many steps were taken, and the held-out loss after them: first that of nearest rounding, after 0 steps.
    /// Empty when the teacher holds nothing out.
    pub fn held_out(&self) -> &[(usize, f64)] {
        &self.held_out
    }

    /// After how many steps the network was as it is here: the lowest held-out loss, or the last step.
    pub fn step(&self) -> usize {
        self.step
    }

    /// The lowest held-out loss, which is that of this network; NaN when the teacher holds nothing out.
    pub fn best(&self) -> f64 {
        self.held_out.iter().find(|(step, _)| *step == self.step).map_or(f64::NAN, |(_, loss)| *loss)
    }
}

impl<F> Display for Distilled<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = (self.losses.len() / 10).max(1);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let (first, last) = (&self.losses[..count.min(self.losses.len())], self.losses.rchunks(count).next());
        let (first, last) = (mean(first), mean(last.unwrap_or_default()));
        writeln!(
            f,
            "{} steps: mean loss {first:.5} in the first tenth, {last:.5} in the last",
            self.losses.len()
        )?;
        if let Some((_, nearest)) = self.held_out.first() {
            let (best, step) = (self.best(), self.step);
            writeln!(f, "held out: {nearest:.5} by nearest rounding, {best:.5} after {step} steps")?;
        }
        Ok(())
    }
}
