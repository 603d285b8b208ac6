//! N of M: a fixed number of weights in every group.

use crate::importance::Scores;
use crate::kernel::par;
use crate::prune::rank::Ranked;
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Mask, Plan, Pruner, Sparsity, Targets};
use crate::{Element, Error, Model, Parameter, Result};

/// Keeps `keep` of every `of` consecutive weights: those with the highest scores; of equal scores the later by index.
///
/// Groups lie along the input axis: consecutive inputs of a linear layer, consecutive channels of a convolution
/// at each tap of its kernel. [`axis`](Self::axis) says otherwise. The axis must be a multiple of `of` in every
/// layer that takes part: runtimes that skip the zeros need whole groups. Weights that are 0 already go first.
///
/// The first and the last weight of the model are kept unless [`include_ends`](Self::include_ends) or
/// [`include`](Self::include) asks for them.
///
/// Mishra and others: Accelerating sparse deep neural networks (2021), for 2 of 4. Names differ in the field: where
/// TensorFlow's toolkit says "m by n", m is the number of zeros.
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{NOfM, Pruner};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = array![[1.0f32, -4.0, 3.0, 2.0, 5.0, 5.0, 5.0, 0.0]];
/// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
/// let scores = Scores::compute(&Magnitude::l1(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
/// let pruned = NOfM::new(2, 4)?.include_ends().plan(&model, &scores)?.apply(&model)?;
/// assert_eq!(pruned.parameter("fc")?.values(), [0.0, -4.0, 3.0, 0.0, 0.0, 5.0, 5.0, 0.0]);
/// assert!(NOfM::new(5, 4).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NOfM {
    keep: usize,
    of: usize,
    axis: Option<usize>,
    pub(crate) targets: Targets,
}

impl NOfM {
    /// Keeps `keep` of every `of` weights.
    ///
    /// # Errors
    /// Unless 1 ≤ keep ≤ of.
    pub fn new(keep: usize, of: usize) -> Result<Self> {
        if keep == 0 || keep > of {
            return Err(Error::setting(format!("cannot keep {keep} of every {of} weights")));
        }
        Ok(Self { keep, of, axis: None, targets: Targets::default() })
    }

    /// Groups along this axis of every layer, not along its input axis.
    pub fn axis(self, axis: usize) -> Self {
        Self { axis: Some(axis), ..self }
    }

    target_setters!("weight", include);

    /// The axis that the groups of a layer lie along.
    fn axis_of<F: Element>(&self, parameter: &Parameter<F>) -> Result<usize> {
        let (name, shape) = (parameter.name(), parameter.shape());
        let axis = self.axis.or(parameter.in_axis()).unwrap_or(0);
        let len = *shape
            .get(axis)
            .ok_or_else(|| Error::shape(format!("layer `{name}` {shape:?} has no axis {axis} for groups")))?;
        if len.is_multiple_of(self.of) {
            return Ok(axis);
        }
        let (keep, of) = (self.keep, self.of);
        Err(Error::shape(format!(
            "layer `{name}` {shape:?}: {keep} of {of}: axis {axis} of length {len} is not a multiple of {of}"
        )))
    }

    /// Which weights stay.
    fn mask<F: Element>(&self, layer: &Ranked<'_, F>, axis: usize) -> Mask {
        let (shape, values) = (layer.parameter.shape(), layer.values());
        let inner: usize = shape[axis + 1..].iter().product();
        // The axis divides, so that slabs of `of` neighbours on it tile the array.
        let slab = self.of * inner;
        let per_task = slab * (par::CHUNK / slab).max(1);
        let by_magnitude = layer.by_magnitude();
        let flags = par::map_chunks(values, per_task, |_, values| {
            let mut flags = vec![1u8; values.len()];
            let mut keys = vec![(0, 0); self.of];
            for (values, flags) in values.chunks(slab).zip(flags.chunks_mut(slab)) {
                for start in 0..inner {
                    for (k, (key, value)) in
                        keys.iter_mut().zip(values[start..].iter().step_by(inner)).enumerate()
                    {
                        *key = (if by_magnitude { value.magnitude_key() } else { value.order_key() }, k);
                    }
                    lowest_first(&mut keys, self.of - self.keep);
                    keys[..self.of - self.keep].iter().for_each(|&(_, k)| flags[start + k * inner] = 0);
                }
            }
            flags
        });
        Mask::from_values(shape, &flags.concat(), |_| |&flag: &u8| flag == 1)
    }
}

/// Brings the `count` lowest (key, index) pairs to the front.
fn lowest_first(keys: &mut [(u64, usize)], count: usize) {
    if keys.len() > 16 && count > 0 {
        keys.select_nth_unstable(count - 1);
        return;
    }
    // A few steps of selection sort beat the general way on groups of four.
    for k in 0..count {
        let least = (k..keys.len()).min_by_key(|&at| keys[at]).unwrap_or(k);
        keys.swap(k, least);
    }
}

impl<F: Element> Pruner<F> for NOfM {
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
        let mut masks = Vec::new();
        for (name, _) in self.targets.weights(model, Sparsity::default())? {
            let parameter = model.parameter(name)?;
            let axis = self.axis_of(parameter)?;
            masks.push((name.to_owned(), self.mask(&Ranked::new(parameter, scores.layer(name)?), axis)));
        }
        Plan::of(model, Cut { masks, ..Cut::default() })
    }

    fn check(&self) -> Result<()> {
        self.targets.check()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array4, ArrayD, Axis};

    use super::*;
    use crate::importance::Magnitude;
    use crate::{Evidence, Geometry, Needs};

    fn pruned(pruner: &NOfM, parameter: Parameter<f32>) -> Result<ArrayD<f32>> {
        let model = Model::builder().parameter(parameter).build()?;
        let scores = Scores::compute(&Magnitude::l1(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
        let left = pruner.clone().include_ends().plan(&model, &scores)?.apply(&model)?;
        Ok(left.parameter("w")?.array().clone())
    }

    /// Each group of `of` along the axis keeps the `keep` largest, of equals the later.
    fn check(before: &ArrayD<f32>, after: &ArrayD<f32>, axis: usize, (keep, of): (usize, usize)) {
        for (before, after) in before.lanes(Axis(axis)).into_iter().zip(after.lanes(Axis(axis))) {
            let (before, after) = (before.to_vec(), after.to_vec());
            for (before, after) in before.chunks(of).zip(after.chunks(of)) {
                let mut order: Vec<usize> = (0..of).collect();
                order.sort_by(|&a, &b| before[a].abs().total_cmp(&before[b].abs()));
                let mut expected = before.to_vec();
                order[..of - keep].iter().for_each(|&k| expected[k] = 0.0);
                assert_eq!(after, expected);
            }
        }
    }

    #[test]
    fn groups_along_every_axis() {
        let value = |k: usize| ((k * 7919) % 23) as f32 - 11.0;
        let linear = Array2::from_shape_fn((320, 240), |(i, j)| value(i * 240 + j));
        let conv = Array4::from_shape_fn((4, 8, 3, 3), |(i, j, y, x)| value(i * 72 + j * 9 + y * 3 + x));
        let (linear, conv) = (linear.into_dyn(), conv.into_dyn());
        for (keep, of) in [(2, 4), (1, 2), (1, 4), (3, 8), (8, 8), (7, 40)] {
            let n_of_m = NOfM::new(keep, of).unwrap();
            let row = pruned(&n_of_m, Parameter::linear("w", linear.clone())).unwrap();
            check(&linear, &row, 1, (keep, of));
            let turned = pruned(&n_of_m, Parameter::linear("w", linear.clone()).axes(1, 0)).unwrap();
            check(&linear, &turned, 0, (keep, of));
            if of <= 8 {
                let taps = pruned(&n_of_m, Parameter::conv("w", conv.clone(), Geometry::new())).unwrap();
                check(&conv, &taps, 1, (keep, of));
            }
        }
        let along =
            pruned(&NOfM::new(2, 3).unwrap().axis(3), Parameter::conv("w", conv.clone(), Geometry::new()));
        check(&conv, &along.unwrap(), 3, (2, 3));
    }

    #[test]
    fn an_axis_that_does_not_divide_names_the_layer() {
        let wrong = |pruner: &NOfM| {
            let parameter = Parameter::linear("w", Array2::ones((4, 6)));
            pruned(pruner, parameter).unwrap_err().to_string()
        };
        let two_of_four = NOfM::new(2, 4).unwrap();
        let message = "layer `w` [4, 6]: 2 of 4: axis 1 of length 6 is not a multiple of 4";
        assert_eq!(wrong(&two_of_four), message);
        assert_eq!(wrong(&two_of_four.axis(2)), "layer `w` [4, 6] has no axis 2 for groups");
        assert!(NOfM::new(0, 4).is_err() && NOfM::new(0, 0).is_err());
        assert!(wrong(&NOfM::new(1, usize::MAX).unwrap()).contains("not a multiple"));
    }
}
