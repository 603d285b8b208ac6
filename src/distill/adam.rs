//! The optimizer and its course.

use std::f64::consts::PI;

use crate::Element;

/// Weight of the past in the mean of the gradients, and in that of their squares.
const MEMORY: (f64, f64) = (0.9, 0.999);
const SMALLEST: f64 = 1e-8;

/// Means of the gradients of some numbers and of their squares (Kingma and Ba: Adam, 2015).
#[derive(Clone, Debug)]
pub(super) struct Adam<F> {
    mean: Vec<F>,
    square: Vec<F>,
    seen: i32,
}

impl<F: Element> Adam<F> {
    pub(super) fn new(len: usize) -> Self {
        Self { mean: vec![F::zero(); len], square: vec![F::zero(); len], seen: 0 }
    }

    /// Moves values by about `rate` each, against the gradient.
    pub(super) fn step(&mut self, values: &mut [F], gradient: &[F], rate: f64) {
        self.seen = self.seen.saturating_add(1);
        let one = |x: f64| F::narrow(x);
        let (keep, keep_square) = (one(MEMORY.0), one(MEMORY.1));
        let (add, add_square) = (one(1.0 - MEMORY.0), one(1.0 - MEMORY.1));
        // Both means start at 0, which these make good.
        let rate = one(rate / (1.0 - MEMORY.0.powi(self.seen)));
        let full = one(1.0 / (1.0 - MEMORY.1.powi(self.seen)));
        let smallest = one(SMALLEST);
        let means = self.mean.iter_mut().zip(&mut self.square);
        for ((value, &g), (mean, square)) in values.iter_mut().zip(gradient).zip(means) {
            *mean = keep * *mean + add * g;
            *square = keep_square * *square + add_square * g * g;
            *value -= rate * *mean / ((full * *square).sqrt() + smallest);
        }
    }
}

/// The factor of the learning rate in a step: linear up over the first twentieth of the steps, and all along half a
/// cosine wave down to 0.
pub(super) fn course(step: usize, steps: usize) -> f64 {
    let rise = (20.0 * (step + 1) as f64 / steps as f64).min(1.0);
    rise * 0.5 * (1.0 + (PI * step as f64 / steps as f64).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The update rule of the paper, with its corrected means written out.
    #[test]
    fn equals_the_paper() {
        let (mut values, mut adam) = (vec![1.0f64, -2.0, 0.5], Adam::new(3));
        let mut plain = values.clone();
        let (mut m, mut v) = ([0.0; 3], [0.0; 3]);
        for t in 1..40 {
            let gradient: Vec<f64> =
                values.iter().enumerate().map(|(k, w)| w + f64::from(t).sin() * k as f64).collect();
            adam.step(&mut values, &gradient, 0.01);
            for k in 0..3 {
                m[k] = 0.9 * m[k] + 0.1 * gradient[k];
                v[k] = 0.999 * v[k] + 0.001 * gradient[k] * gradient[k];
                let (mean, square) = (m[k] / (1.0 - 0.9f64.powi(t)), v[k] / (1.0 - 0.999f64.powi(t)));
                plain[k] -= 0.01 * mean / (square.sqrt() + 1e-8);
                assert!((plain[k] - values[k]).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn what_has_no_gradient_does_not_move() {
        let (mut values, mut adam) = (vec![0.0f32, 1.0], Adam::new(2));
        (0..5).for_each(|_| adam.step(&mut values, &[0.0, 1.0], 0.1));
        assert!(values[0].to_bits() == 0 && values[1] < 0.6);
    }

    #[test]
    fn the_course_rises_and_falls() {
        let course: Vec<f64> = (0..100).map(|step| course(step, 100)).collect();
        assert!(course[0] > 0.1 && course[0] < 0.3 && course[4] > 0.99 && course[99] < 1e-3);
        assert!(course[4..].windows(2).all(|pair| pair[1] < pair[0]));
        assert_eq!(super::course(0, 1), 1.0);
    }
}
