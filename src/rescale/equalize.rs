//! Cross-layer equalization: ranges of rows and of the columns that read them meet.

use crate::model::{CoupledSlot, Passage};
use crate::rescale::{Migration, Rescale};
use crate::{Element, Error, Evidence, Kind, Model, Needs, NormRole, Result};

/// Factors beyond this are cut: what is this far apart does not fit in few bits anyway.
pub(super) const FURTHEST: f64 = 1e6;
/// Added to variances before they divide; the exact number is the graph's own and does not matter here.
const EPSILON: f64 = 1e-5;
/// A sweep that changes no factor by more ends the iteration.
const SETTLED: f64 = 1e-6;

/// Gives each unit the same range where it is made and where it is read: `s_i` = √(`r1_i` / `r2_i`), `r1_i` the largest
/// |w| of the weights' rows that make unit i, `r2_i` of the columns that read it.
///
/// Passages are visited in turn until no factor changes, at most [`iterations`](Self::iterations) times, because a
/// weight may lie in two of them. Where a batch norm follows a weight, its scale and shift move and the weight stays; its
/// rows count as if the norm were folded into them. Units that no weight makes (behind a layer norm), and units that are
/// 0 on either side, stay. The network answers as before; no evidence is needed.
///
/// It helps where weights share a scale over rows that differ much ([`Uniform::per_tensor`](crate::quantize::Uniform)),
/// and columns that differ much within rows. Scales per row make up for rows of any range on their own.
///
/// Nagel, van Baalen, Blankevoort, Welling: Data-free quantization through weight equalization and bias correction
/// (2019).
///
/// ```
/// use ndarray::array;
/// use niwaki::rescale::{Equalize, Rescale};
/// use niwaki::{Coupling, Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("fc1", array![[8.0, 4.0], [1.0, 0.5]]))
///     .parameter(Parameter::linear("fc2", array![[2.0, 4.0]]))
///     .coupling(Coupling::builder("hidden").outputs(["fc1"]).inputs(["fc2"]).homogeneous())
///     .build()?;
/// let evidence = Evidence::new(&model, Needs::MOMENTS);
/// let migration = Equalize::new().plan(&model, &evidence)?;
/// assert_eq!(migration.factors().next(), Some(("hidden", &[2.0, 0.5][..])));
/// let moved = migration.apply(&model)?;
/// assert_eq!(moved.parameter("fc1")?.values(), [4.0, 2.0, 2.0, 1.0]);
/// assert_eq!(moved.parameter("fc2")?.values(), [4.0, 2.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Equalize {
    iterations: usize,
}

impl Equalize {
    /// At most 40 iterations.
    pub fn new() -> Self {
        Self { iterations: 40 }
    }

    /// How often all passages are visited, at most.
    pub fn iterations(self, iterations: usize) -> Self {
        Self { iterations }
    }
}

impl Default for Equalize {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Element> Rescale<F> for Equalize {
    fn plan(&self, model: &Model<F>, _: &Evidence<F>) -> Result<Migration> {
        let sides: Vec<Sides<'_>> = model.passages().iter().filter_map(|p| Sides::of(model, p)).collect();
        let mut moved = model.clone();
        let mut total = Migration::new();
        for _ in 0..self.iterations {
            let mut largest = 0.0f64;
            for side in &sides {
                let factors = side.factors(&moved)?;
                let change = factors.iter().map(|f| f.ln().abs()).fold(0.0, f64::max);
                if change > SETTLED {
                    let step = Migration::new().scale(side.passage.name(), factors)?;
                    moved = step.apply(&moved)?;
                    total = total.then(step)?;
                }
                largest = largest.max(change);
            }
            if largest <= SETTLED {
                break;
            }
        }
        Ok(total)
    }

    fn needs(&self) -> Needs {
        Needs::MOMENTS
    }

    fn check(&self) -> Result<()> {
        if self.iterations == 0 {
            return Err(Error::setting("equalization of 0 iterations does nothing"));
        }
        Ok(())
    }
}

/// The weights on both sides of a passage.
struct Sides<'a> {
    passage: &'a Passage,
    /// with the weight whose rows a norm's scale stands before
    makers: Vec<(&'a CoupledSlot, Option<String>)>,
    readers: Vec<&'a CoupledSlot>,
}

impl<'a> Sides<'a> {
    /// `None` where no weight makes its units.
    fn of<F: Element>(model: &Model<F>, passage: &'a Passage) -> Option<Self> {
        let maker = |slot: &'a CoupledSlot| match model.find(slot.parameter())?.kind() {
            kind if kind.is_weight() => Some((slot, None)),
            Kind::Norm { role: NormRole::Scale, of: Some(of) } => Some((slot, Some(of.clone()))),
            _ => None,
        };
        let makers: Vec<_> = passage.makers().iter().filter_map(maker).collect();
        let weight = |slot: &&CoupledSlot| model.find(slot.parameter()).is_some_and(|p| p.kind().is_weight());
        let readers: Vec<_> = passage.readers().iter().filter(weight).collect();
        (!makers.is_empty() && !readers.is_empty()).then_some(Self { passage, makers, readers })
    }

    fn factors<F: Element>(&self, model: &Model<F>) -> Result<Vec<f64>> {
        let (mut made, mut read) = (vec![0.0; self.passage.size()], vec![0.0; self.passage.size()]);
        for (slot, norm_of) in &self.makers {
            let ranges = match norm_of {
                None => ranges(model, slot.parameter(), slot.axis())?,
                Some(weight) => folded(model, slot.parameter(), weight)?,
            };
            raise(&mut made, slot, &ranges);
        }
        for slot in &self.readers {
            raise(&mut read, slot, &ranges(model, slot.parameter(), slot.axis())?);
        }
        let factor = |(made, read): (&f64, &f64)| {
            if *made > 0.0 && *read > 0.0 {
                (made / read).sqrt().clamp(FURTHEST.recip(), FURTHEST)
            } else {
                1.0
            }
        };
        Ok(made.iter().zip(&read).map(factor).collect())
    }
}

/// Largest |w| at each position of an axis.
pub(super) fn ranges<F: Element>(model: &Model<F>, parameter: &str, axis: usize) -> Result<Vec<f64>> {
    let parameter = model.parameter(parameter)?;
    let len = parameter.shape().get(axis).copied().unwrap_or(1);
    let inner = parameter.shape().iter().skip(axis + 1).product::<usize>().max(1);
    let mut ranges = vec![0.0f64; len];
    for (at, run) in parameter.values().chunks_exact(inner).enumerate() {
        let range = &mut ranges[at % len];
        *range = run.iter().fold(*range, |most, w| most.max(w.widen().abs()));
    }
    Ok(ranges)
}

/// Ranges of a weight's rows, multiplied as the batch norm behind them will.
fn folded<F: Element>(model: &Model<F>, scale: &str, weight: &str) -> Result<Vec<f64>> {
    let rows = ranges(model, weight, model.parameter(weight)?.out_axis())?;
    let variance = model.norm_of(weight, NormRole::Variance);
    let spread = |row: usize| {
        let variance = variance.and_then(|v| v.values().get(row)).map_or(1.0, |v| v.widen().max(0.0));
        (variance + EPSILON).sqrt()
    };
    let scales = model.parameter(scale)?.values();
    let folded = rows.iter().zip(scales).enumerate();
    Ok(folded.map(|(row, (range, scale))| range * scale.widen().abs() / spread(row)).collect())
}

/// The largest at the positions of each unit.
pub(super) fn raise(units: &mut [f64], slot: &CoupledSlot, of: &[f64]) {
    for (unit, positions) in units.iter_mut().zip(slot.all_positions()) {
        *unit = positions.iter().filter_map(|&p| of.get(p)).fold(*unit, |most, x| most.max(*x));
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array;

    use super::*;
    use crate::{Coupling, Geometry, Parameter, Slot};

    fn count(step: f32) -> impl FnMut() -> f32 {
        let mut next = 1.0 - step;
        move || {
            next += step;
            next
        }
    }

    /// AIMET, `TestDLEqualization.cpp`, test `SanityTestForDepthWiseSeparableLayer`: weights 1, 2, …, 12, then 1, 3, …,
    /// 23 a channel for itself, then 1, 2, …, 12; the first weights become 1 / 0.7137658 and 0.93401319.
    #[test]
    fn three_layers_with_a_depthwise_one() {
        let conv = |name: &str, shape: [usize; 4], step: f32, groups: usize| {
            Parameter::conv(
                name,
                Array::from_shape_simple_fn(shape, count(step)),
                Geometry::new().groups(groups),
            )
        };
        let model = Model::<f32>::builder()
            .parameter(conv("previous", [2, 2, 3, 1], 1.0, 1))
            .parameter(Parameter::bias("previous.bias", ndarray::array![1.0f32, 2.0], "previous"))
            .parameter(conv("depthwise", [2, 1, 6, 1], 2.0, 2))
            .parameter(conv("next", [2, 2, 3, 1], 1.0, 1))
            // A depthwise convolution reads by its rows: only a traced graph tells its two sides apart.
            .build()
            .unwrap();
        let slot = |name: &str, axis| {
            Coupling::builder("x").slot(Slot::at(name, axis)).build(|n| model.find(n)).unwrap().slots()[0]
                .clone()
        };
        let inner = Passage::from_parts(
            "previous".into(),
            2,
            vec![slot("previous", 0), slot("previous.bias", 0)],
            vec![slot("depthwise", 0)],
        );
        let outer =
            Passage::from_parts("depthwise".into(), 2, vec![slot("depthwise", 0)], vec![slot("next", 1)]);
        let model = model.parameters().iter().cloned().fold(Model::builder(), crate::ModelBuilder::parameter);
        let model = model.passing(inner).passing(outer).build().unwrap();
        let evidence = Evidence::new(&model, Needs::MOMENTS);
        let moved = Equalize::new().plan(&model, &evidence).unwrap().apply(&model).unwrap();
        let first = |name: &str| moved.parameter(name).unwrap().values()[0];
        assert!((first("previous").recip() - 0.713_765_8).abs() < 1e-6);
        assert_eq!(first("previous"), first("previous.bias"));
        assert!((first("next") - 0.934_013_2).abs() < 1e-6);
    }

    #[test]
    fn ranges_meet_and_zeros_stay() {
        let model = Model::<f32>::builder()
            .parameter(Parameter::linear("a", ndarray::array![[3.0, -12.0], [0.0, 0.0], [1.0, 0.0]]))
            .parameter(Parameter::linear("b", ndarray::array![[3.0, 1.0, 0.0], [1.0, 2.0, 0.0]]))
            .coupling(Coupling::builder("hidden").outputs(["a"]).inputs(["b"]).homogeneous())
            .build()
            .unwrap();
        let evidence = Evidence::new(&model, Needs::MOMENTS);
        let migration = Equalize::new().plan(&model, &evidence).unwrap();
        assert_eq!(migration.factors().next(), Some(("hidden", &[2.0, 1.0, 1.0][..])));
        assert!(Rescale::<f32>::check(&Equalize::new().iterations(0)).is_err());
    }
}
