//! Soft rounding: up or down as a number between 0 and 1 that gradient descent moves to one of the two.

use std::f64::consts::PI;

use ndarray::Array2;

use crate::kernel::float::{exp2, log2};
use crate::kernel::round::clamp;
use crate::quantize::distillation::chunk::Chunk;

/// The rectified sigmoid reaches past 0 and 1 by this much, and is cut there.
const STRETCH: f32 = 0.1;
/// Of the steps, how many pass before soft codes are pressed to 0 or 1.
const WARM: f64 = 0.2;
/// The exponent of that pressure, at its start and at the end.
const BETAS: (f64, f64) = (20.0, 2.0);
/// Its weight, beside errors in units of a step.
const PRESSURE: f32 = 1.0;
/// Steps of Adam in the soft codes, and in the logarithms of scales.
const RATE: f32 = 0.1;
const SCALE_RATE: f32 = 2e-3;
const MOMENTUM: f32 = 0.9;
const MEMORY: f32 = 0.999;

/// The exponent at a step: 20 falls to 2 along a cosine once the soft codes are warm.
fn beta(step: usize, steps: usize) -> f64 {
    let (warm, all) = (WARM * steps as f64, steps as f64);
    let share = ((step as f64 - warm) / (all - warm)).clamp(0.0, 1.0);
    BETAS.1 + 0.5 * (BETAS.0 - BETAS.1) * (1.0 + (share * PI).cos())
}

/// Learns codes, and with `scales` the scales, by Adam on δ·G·δᵀ and the pressure Σ 1 − |2h − 1|^β.
///
/// A weight's code is ⌊w / scale⌋ + h, with h = clamp(1.2 · sigmoid(v) − 0.1, 0, 1) for a v that is learned.
pub(super) fn learn(chunk: &mut Chunk<'_>, gram: &Array2<f64>, steps: usize, scales: bool) {
    let trace = gram.diag().sum() / gram.nrows().max(1) as f64;
    if !(trace > 0.0 && trace.is_finite()) || steps == 0 {
        return;
    }
    let gram = gram.mapv(|x| (x / trace) as f32);
    let mut soft = Soft::new(chunk);
    for step in 0..steps {
        let beta = if (step as f64) < WARM * steps as f64 { None } else { Some(beta(step, steps) as f32) };
        soft.step(&gram, step, beta, scales);
    }
    soft.harden(chunk);
}

/// What is learned of a chunk; matrices row after row.
struct Soft<'a> {
    weights: Array2<f32>,
    /// ⌊w / scale⌋
    floors: Vec<f32>,
    /// Of each weight, where its code may lie; of one that is 0, nowhere else.
    low: Vec<f32>,
    high: Vec<f32>,
    scale_of: &'a [usize],
    first_scales: Array2<f32>,
    scales: Adam,
    codes: Adam,
    /// For each code of the present step its h, and how that grows with v.
    h: Vec<f32>,
    growth: Vec<f32>,
}

/// Numbers and what Adam remembers of their gradients (Kingma & Ba 2015).
struct Adam {
    values: Vec<f32>,
    slopes: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl Adam {
    fn new(values: Vec<f32>) -> Self {
        let zeros = vec![0.0; values.len()];
        Self { values, slopes: zeros.clone(), mean: zeros.clone(), square: zeros }
    }

    fn step(&mut self, step: usize, rate: f32) {
        let power = |base: f32| 1.0 - base.powf((step + 1) as f32);
        let (rate, root) = (rate / power(MOMENTUM), power(MEMORY).sqrt());
        let n = self.values.len();
        let (values, slopes) = (&mut self.values[..n], &self.slopes[..n]);
        let (means, squares) = (&mut self.mean[..n], &mut self.square[..n]);
        for i in 0..n {
            means[i] = MOMENTUM * means[i] + (1.0 - MOMENTUM) * slopes[i];
            squares[i] = MEMORY * squares[i] + (1.0 - MEMORY) * slopes[i] * slopes[i];
            values[i] -= rate * means[i] / (squares[i].sqrt() / root + 1e-8);
        }
    }
}

/// The sigmoid stretched past 0 and 1, not cut yet, and its slope.
#[inline]
fn stretched(v: f32) -> (f32, f32) {
    let sigmoid = 1.0 / (1.0 + exp2(-std::f32::consts::LOG2_E * v));
    let stretch = 1.0 + 2.0 * STRETCH;
    (stretch * sigmoid - STRETCH, stretch * sigmoid * (1.0 - sigmoid))
}

impl<'a> Soft<'a> {
    fn new(chunk: &Chunk<'a>) -> Self {
        let n = chunk.weights.len();
        let (mut floors, mut codes) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut low, mut high) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for ((row, column), &w) in chunk.weights.indexed_iter() {
            let k = chunk.scale_of[column];
            let exact = w / chunk.scales[[row, k]];
            let ends = if w == 0.0 { (0.0, 0.0) } else { chunk.ends[[row, k]] };
            low.push(ends.0 as f32);
            high.push(ends.1 as f32);
            floors.push(exact.floor() as f32);
            let share = (exact - exact.floor()).clamp(0.01, 0.99) as f32;
            codes.push(-((1.0 + 2.0 * STRETCH) / (share + STRETCH) - 1.0).ln());
        }
        let first_scales = chunk.scales.mapv(|s| s as f32);
        Self {
            weights: chunk.weights.mapv(|w| w as f32),
            floors,
            low,
            high,
            scale_of: chunk.scale_of,
            scales: Adam::new(vec![0.0; first_scales.len()]),
            first_scales,
            codes: Adam::new(codes),
            h: vec![0.0; n],
            growth: vec![0.0; n],
        }
    }

    fn scales(&self) -> Array2<f32> {
        let count = self.first_scales.ncols();
        let grown = |(row, k)| self.first_scales[[row, k]] * self.scales.values[row * count + k].exp();
        Array2::from_shape_fn(self.first_scales.raw_dim(), grown)
    }

    /// One step down the gradient.
    fn step(&mut self, gram: &Array2<f32>, step: usize, beta: Option<f32>, learn_scales: bool) {
        let (scales, width) = (self.scales(), self.weights.ncols());
        let mut errors = Array2::zeros(self.weights.raw_dim());
        let spread = |scales: &Array2<f32>, row: usize| -> Vec<f32> {
            self.scale_of.iter().map(|&k| scales[[row, k]]).collect()
        };
        let wide: Vec<Vec<f32>> = (0..scales.nrows()).map(|row| spread(&scales, row)).collect();
        let first: Vec<Vec<f32>> = (0..scales.nrows()).map(|row| spread(&self.first_scales, row)).collect();
        for (row, scales) in wide.iter().enumerate() {
            if let (Some(errors), Some(weights)) =
                (row_mut(&mut errors, row), self.weights.row(row).as_slice())
            {
                let own = row * width..(row + 1) * width;
                let values = &self.codes.values[own.clone()];
                let (h, growth) = (&mut self.h[own.clone()], &mut self.growth[own.clone()]);
                forward(
                    values,
                    [&self.floors[own.clone()], &self.low[own.clone()], &self.high[own]],
                    h,
                    growth,
                    errors,
                );
                for i in 0..width {
                    errors[i] = errors[i] * scales[i] - weights[i];
                }
            }
        }
        let mut pull = errors.dot(gram);
        for row in 0..scales.nrows() {
            let Some(pull) = row_mut(&mut pull, row) else { continue };
            let own = row * width..(row + 1) * width;
            let [floors, low, high] = [&self.floors, &self.low, &self.high].map(|all| &all[own.clone()]);
            let (h, growth) = (&self.h[own.clone()], &self.growth[own.clone()]);
            // By code, in units of the first steps.
            for i in 0..width {
                pull[i] *= 2.0 * wide[row][i] / (first[row][i] * first[row][i]);
            }
            let slopes = &mut self.codes.slopes[own];
            backward(pull, [floors, low, high], h, growth, beta, slopes);
            let all = &mut self.scales.slopes[row * scales.ncols()..(row + 1) * scales.ncols()];
            all.fill(0.0);
            for (i, &k) in self.scale_of.iter().enumerate() {
                all[k] += pull[i] * (floors[i] + h[i]).clamp(low[i], high[i]);
            }
        }
        self.codes.step(step, RATE);
        if learn_scales {
            self.scales.step(step, SCALE_RATE);
        }
    }

    /// The codes that soft ones are nearest to.
    fn harden(&self, chunk: &mut Chunk<'_>) {
        for (i, step) in chunk.steps.iter_mut().enumerate() {
            let up = f32::from(u8::from(stretched(self.codes.values[i]).0 >= 0.5));
            *step = f64::from((self.floors[i] + up).clamp(self.low[i], self.high[i]));
        }
        chunk.scales.assign(&self.scales().mapv(f64::from));
    }
}

fn row_mut(matrix: &mut Array2<f32>, row: usize) -> Option<&mut [f32]> {
    let width = matrix.ncols();
    matrix.as_slice_mut().and_then(|all| all.get_mut(row * width..(row + 1) * width))
}

/// h, its growth with v where it is free to move, and the soft codes, of floors and where codes may lie.
#[expect(clippy::needless_bitwise_bool, reason = "without branches the loop fills whole vectors")]
fn forward(
    v: &[f32],
    [floors, low, high]: [&[f32]; 3],
    h: &mut [f32],
    growth: &mut [f32],
    codes: &mut [f32],
) {
    let n = v.len();
    let (floors, low, high) = (&floors[..n], &low[..n], &high[..n]);
    let (h, growth, codes) = (&mut h[..n], &mut growth[..n], &mut codes[..n]);
    for i in 0..n {
        let (raw, slope) = stretched(v[i]);
        h[i] = clamp(raw, 0.0, 1.0);
        let free = (raw > 0.0) & (raw < 1.0) & (low[i] < high[i]);
        growth[i] = if free { slope } else { 0.0 };
        codes[i] = clamp(floors[i] + h[i], low[i], high[i]);
    }
}

/// Slopes by v, from those by code.
#[expect(clippy::needless_bitwise_bool, reason = "without branches the loop fills whole vectors")]
fn backward(
    by_code: &[f32],
    [floors, low, high]: [&[f32]; 3],
    h: &[f32],
    growth: &[f32],
    beta: Option<f32>,
    slopes: &mut [f32],
) {
    let n = slopes.len();
    let (by_code, floors, low, high) = (&by_code[..n], &floors[..n], &low[..n], &high[..n]);
    let (h, growth) = (&h[..n], &growth[..n]);
    for i in 0..n {
        let sum = floors[i] + h[i];
        slopes[i] = if (sum > low[i]) & (sum < high[i]) { by_code[i] } else { 0.0 };
    }
    if let Some(beta) = beta {
        for i in 0..n {
            // d/dh of 1 − |2h − 1|^β
            let far = 2.0 * h[i] - 1.0;
            let power = exp2((beta - 1.0) * log2(far.abs()));
            slopes[i] -= PRESSURE * 2.0 * beta * power.copysign(far);
        }
    }
    slopes.iter_mut().zip(growth).for_each(|(slope, growth)| *slope *= growth);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::distillation::testing::chunk;

    /// AIMET, `test_adaround_loss.py`, `test_compute_beta`: step 8000 of 10000, 20 to 2, a fifth warm.
    #[test]
    fn pressure_grows_along_a_cosine() {
        assert!((beta(8000, 10_000) - 4.636_038_969_321_072).abs() < 1e-12);
        assert_eq!((beta(0, 10_000), beta(2000, 10_000), beta(10_000, 10_000)), (20.0, 20.0, 2.0));
    }

    #[test]
    fn slopes_are_those_of_differences() {
        let (chunk, gram) = chunk(&[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], 3, 3.0);
        let gram = gram.mapv(|x| x as f32);
        let loss = |soft: &Soft<'_>, row: usize| -> f64 {
            let scales = soft.scales();
            let errors: Vec<f64> = (0..12)
                .map(|c| {
                    let i = row * 12 + c;
                    let h = stretched(soft.codes.values[i]).0.clamp(0.0, 1.0);
                    let code = (soft.floors[i] + h).clamp(soft.low[i], soft.high[i]);
                    f64::from(code * scales[[row, soft.scale_of[c]]] - soft.weights[[row, c]])
                })
                .collect();
            (0..12)
                .flat_map(|i| (0..12).map(move |j| (i, j)))
                .map(|(i, j)| errors[i] * f64::from(gram[[i, j]]) * errors[j])
                .sum()
        };
        let mut soft = Soft::new(&chunk);
        let (before, step) = (Soft::new(&chunk), 1e-2f32);
        soft.step(&gram, 0, None, true);
        for row in 0..3 {
            for column in 0..12 {
                let (mut up, mut down) = (Soft::new(&chunk), Soft::new(&chunk));
                up.codes.values[row * 12 + column] += step;
                down.codes.values[row * 12 + column] -= step;
                let unit = f64::from(before.first_scales[[row, soft.scale_of[column]]]);
                let slope = (loss(&up, row) - loss(&down, row)) / (2.0 * f64::from(step)) / (unit * unit);
                let ours = f64::from(soft.codes.slopes[row * 12 + column]);
                assert!((slope - ours).abs() < 0.02 * (1.0 + slope.abs()), "{row} {column}: {slope} {ours}");
            }
        }
    }

    #[test]
    fn soft_codes_end_as_codes() {
        let (mut chunk, gram) = chunk(&[0; 12], 5, 3.0);
        let nearest: f64 = chunk.losses(&gram).iter().sum();
        learn(&mut chunk, &gram, 400, true);
        assert!(chunk.steps.iter().all(|q| q.abs() <= 3.0 && q.fract() == 0.0));
        assert_eq!(chunk.steps[[0, 3]], 0.0);
        assert!(chunk.losses(&gram).iter().sum::<f64>() < nearest);
    }
}
