//! Which samples are held out: decided by their values, so that batches, order and merging do not matter.

use std::borrow::Cow;

use crate::Element;
use crate::evidence::rows::Rows;

/// One sample in so many is held out.
const ONE_IN: u64 = 8;

/// Whether the sample that these numbers identify is held out.
pub(crate) fn is_held_out(numbers: impl IntoIterator<Item = u64>) -> bool {
    let mix = |h: u64, x: u64| (h ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(27);
    let hash = numbers.into_iter().fold(0x2545_f491_4f6c_dd1d_u64, mix);
    (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32 < (1 << 32) / ONE_IN
}

/// A value as a number that says which it is: −0 is 0, and f32 and f64 agree.
pub(crate) fn number<F: Element>(x: &F) -> u64 {
    (x.widen() + 0.0).to_bits()
}

/// The entries of axis 0 to learn from and those that are held out, by the samples that they belong to; by default each
/// is one, known by its values. Either may be none.
pub(super) fn split<'a, F: Element>(
    batch: &'a Rows<'a, F>,
    of_samples: Option<&[u64]>,
) -> [Option<Rows<'a, F>>; 2] {
    let count = batch.dims.first().copied().unwrap_or(0).max(1);
    let samples = || batch.values.chunks_exact((batch.values.len() / count).max(1));
    let held_out: Vec<bool> = match of_samples {
        Some(of) => of.iter().map(|&sample| is_held_out([sample])).collect(),
        None => samples().map(|values| is_held_out(values.iter().map(number))).collect(),
    };
    [false, true].map(|side| {
        let own = held_out.iter().filter(|&&held_out| held_out == side).count();
        let values = if own == held_out.len() {
            Cow::Borrowed(&*batch.values)
        } else {
            let own = samples().zip(&held_out).filter(|&(_, &held_out)| held_out == side);
            Cow::Owned(own.flat_map(|(sample, _)| sample).copied().collect())
        };
        let mut dims = batch.dims.clone();
        dims.iter_mut().take(1).for_each(|samples| *samples = own);
        (own > 0).then_some(Rows { values, dims })
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array4, ArrayD, Axis, Ix2};

    use super::*;
    use crate::{ErrorKind, Evidence, Geometry, Model, Needs, Parameter};

    fn samples(count: usize, dims: &[usize]) -> ArrayD<f32> {
        let shape: Vec<usize> = std::iter::once(count).chain(dims.iter().copied()).collect();
        let mut state = 9u64;
        ArrayD::from_shape_simple_fn(shape, || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32) / 16_777_216.0 - 0.5
        })
    }

    fn model() -> Model<f32> {
        Model::builder()
            .parameter(Parameter::linear("fc", Array2::ones((2, 5))))
            .parameter(Parameter::conv("conv", Array4::ones((4, 1, 2, 2)), Geometry::new().groups(2)))
            .build()
            .unwrap()
    }

    #[test]
    fn about_one_in_eight() {
        let held_out =
            samples(8000, &[3]).axis_iter(Axis(0)).filter(|s| is_held_out(s.iter().map(number))).count();
        assert!((900..1100).contains(&held_out), "{held_out}");
        assert_eq!([0.0f32, 1.5].map(|x| number(&x)), [-0.0f64, 1.5].map(|x| number(&x)));
    }

    #[test]
    fn a_sample_is_held_out_whole() {
        let model = model();
        let mut evidence = Evidence::new(&model, Needs::HELD_OUT);
        evidence.record_input("fc", &samples(80, &[7, 5])).unwrap();
        evidence.record_input("conv", &samples(80, &[2, 4, 3])).unwrap();
        for (name, positions) in [("fc", 7), ("conv", 6)] {
            let layer = evidence.layer(&model, name).unwrap();
            let (ours, held_out) = (layer.inputs().unwrap(), layer.held_out().unwrap());
            assert_eq!(ours.rows() + held_out.rows(), 80 * positions);
            assert_eq!(held_out.rows() % positions, 0);
            assert!(held_out.rows() > 0 && held_out.rows() < 40 * positions);
            assert!(held_out.gram(0).is_some() && ours.gram(0).is_some());
        }
    }

    #[test]
    fn batches_order_and_merging_do_not_matter() {
        let model = model();
        let x = samples(60, &[5]);
        let mut whole = Evidence::new(&model, Needs::HELD_OUT);
        whole.record_input("fc", &x).unwrap();
        let mut parts = [Evidence::new(&model, Needs::HELD_OUT), Evidence::new(&model, Needs::HELD_OUT)];
        let batches: Vec<_> = x.axis_chunks_iter(Axis(0), 7).collect();
        for (k, batch) in batches.iter().rev().enumerate() {
            parts[k % 2].record_input("fc", &batch.to_owned()).unwrap();
        }
        let [mut merged, other] = parts;
        merged.merge(&other).unwrap();
        let of = |evidence: &Evidence<f32>| {
            let layer = evidence.layer(&model, "fc").unwrap();
            [layer.inputs().unwrap().clone(), layer.held_out().unwrap().clone()]
        };
        for (a, b) in of(&whole).iter().zip(&of(&merged)) {
            assert_eq!(a.rows(), b.rows());
            let difference = a.gram(0).unwrap() - b.gram(0).unwrap();
            assert!(difference.iter().all(|d| d.abs() < 1e-6));
            assert!((a.mean(0) - b.mean(0)).iter().all(|d| d.abs() < 1e-9));
        }
    }

    #[test]
    fn few_samples_are_there_to_learn_from() {
        let model = model();
        let x = samples(60, &[5]).into_dimensionality::<Ix2>().unwrap();
        for held_out in [false, true] {
            let row =
                x.rows().into_iter().position(|r| is_held_out(r.iter().map(number)) == held_out).unwrap();
            let mut evidence = Evidence::new(&model, Needs::HELD_OUT);
            evidence.record_input("fc", &x.select(Axis(0), &[row])).unwrap();
            let layer = evidence.layer(&model, "fc").unwrap();
            assert!(layer.has_inputs() && layer.inputs().unwrap().rows() == 1);
            assert_eq!(layer.held_out().unwrap_err().kind(), ErrorKind::MissingEvidence);
        }
    }

    #[test]
    fn entries_go_the_way_of_their_sample() {
        let model = model();
        let x = samples(40, &[5]);
        let of: Vec<u64> = (0..40).map(|k| k / 4).collect();
        let mut evidence = Evidence::new(&model, Needs::HELD_OUT);
        evidence.record_input_of("fc", &of, &x).unwrap();
        let held_out = (0..10).filter(|&sample| is_held_out([sample])).count() as u64;
        assert!(held_out > 0);
        assert_eq!(evidence.layer(&model, "fc").unwrap().held_out().unwrap().rows(), 4 * held_out);
        let error = evidence.record_input_of("fc", &of[1..], &x).unwrap_err();
        assert_eq!(error.to_string(), "layer `fc`: 39 samples for 40 entries of its input");
        // Without anything held out it is the same as ever.
        let (mut a, mut b) = (Evidence::new(&model, Needs::GRAM), Evidence::new(&model, Needs::GRAM));
        a.record_input_of("fc", &of, &x).unwrap();
        b.record_input("fc", &x).unwrap();
        assert_eq!(a, b);
    }
}
