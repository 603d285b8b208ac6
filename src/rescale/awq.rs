//! Activation-aware scales: what reads large inputs is rounded finer.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, Axis};

use crate::evidence::Inputs;
use crate::model::{CoupledSlot, Passage};
use crate::quantize::{QuantizedTensor, Quantizer, Uniform};
use crate::rescale::{Migration, Rescale, units};
use crate::{Coupling, Element, Error, Evidence, Kind, Layer, Model, Needs, Parameter, Result};

/// Rows of a weight whose errors are looked at, at most.
const ROWS: usize = 128;
/// The smallest input, against the largest, that still counts as one.
const LEAST: f64 = 1e-4;

/// Multiplies the columns that read large inputs, so that their rounding errors become smaller where they cost most:
/// `s_i` = `x_i`^α over the geometric mean of the largest and the smallest, `x_i` the root mean square of the inputs.
///
/// For each passage α is that of 0, 1/20, …, 1 with the smallest output error of the readers under the quantizer given:
/// Σ δ·G·δᵀ of at most 128 rows spread over each weight, G the Gram matrix of the inputs (their mean squares, where the
/// evidence has no more); an embedding that makes the units counts with its entries and Σ Wᵀ·W of its readers. α = 0 is
/// among them, so that nothing moves where nothing is gained. Passages are visited in order, each with what those before
/// left. Readers whose inputs were not recorded have no say.
///
/// Lin, Tang, Tang, Yang, Dang, Gan, Han: AWQ, activation-aware weight quantization (2023); there with the mean |x|.
///
/// ```
/// use ndarray::array;
/// use niwaki::quantize::{Bits, Uniform};
/// use niwaki::rescale::{Awq, Rescale};
/// use niwaki::{Coupling, Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let model = Model::<f32>::builder()
///     .parameter(Parameter::linear("fc1", array![[1.0, 0.5], [0.5, 1.0]]))
///     .parameter(Parameter::linear("fc2", array![[0.26, 1.0], [0.34, -0.9]]))
///     .coupling(Coupling::builder("hidden").outputs(["fc1"]).inputs(["fc2"]).homogeneous())
///     .build()?;
/// let mut evidence = Evidence::new(&model, Needs::GRAM);
/// evidence.record_input("fc2", &array![[20.0f32, 0.1], [30.0, 0.2]])?; // the first unit is large
/// let migration = Awq::new(Uniform::new(Bits::new(3)?)).plan(&model, &evidence)?;
/// assert!(migration.factors().all(|(_, factors)| factors[0] > factors[1]));
/// assert!(!migration.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Awq {
    quantizer: Uniform,
    steps: usize,
}

impl Awq {
    /// For weights that this quantizer will round; 20 steps of α.
    pub fn new(quantizer: Uniform) -> Self {
        Self { quantizer, steps: 20 }
    }

    /// How many exponents above 0 are tried: 1/steps, 2/steps, …, 1.
    pub fn steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }
}

impl<F: Element> Rescale<F> for Awq {
    fn plan(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<Migration> {
        units::check(model, evidence)?;
        let mut moved = model.clone();
        let mut total = Migration::new();
        for passage in model.passages() {
            let names = names(model, passage);
            let seen = total.apply_to_evidence(model, &evidence.only(&names))?;
            let step = self.passage(&alone(&moved, passage, &names)?, &seen, passage)?;
            if !step.is_empty() {
                moved = step.apply(&moved)?;
                total = total.then(step)?;
            }
        }
        Ok(total)
    }

    fn needs(&self) -> Needs {
        Needs::GRAM
    }

    fn check(&self) -> Result<()> {
        Quantizer::<F>::check(&self.quantizer)?;
        if self.steps == 0 {
            return Err(Error::setting("AWQ with 0 steps tries nothing"));
        }
        Ok(())
    }
}

impl Awq {
    /// The best factors of one passage, from a model of nothing else.
    fn passage<F: Element>(
        &self,
        part: &Model<F>,
        seen: &Evidence<F>,
        passage: &Passage,
    ) -> Result<Migration> {
        let Some(squares) = units::of_inputs(part, seen, passage, Inputs::mean_squares)? else {
            return Ok(Migration::new());
        };
        let sizes: Vec<f64> = squares.iter().map(|x| x.sqrt()).collect();
        let most = sizes.iter().fold(0.0f64, |most, x| most.max(*x));
        if most <= 0.0 {
            return Ok(Migration::new());
        }
        let sizes: Vec<f64> = sizes.iter().map(|x| x.max(LEAST * most)).collect();
        let least = sizes.iter().fold(f64::INFINITY, |least, x| least.min(*x));
        let middle = (most * least).sqrt();
        let mut best = (self.error(part, seen)?, Migration::new());
        for step in 1..=self.steps {
            let alpha = step as f64 / self.steps as f64;
            let factors = sizes.iter().map(|x| (x / middle).powf(alpha)).collect();
            let tried = Migration::new().scale(passage.name(), factors)?;
            let (part, seen) = (tried.apply(part)?, tried.apply_to_evidence(part, seen)?);
            let error = self.error(&part, &seen)?;
            if error < best.0 {
                best = (error, tried);
            }
        }
        Ok(best.1)
    }

    /// Mean squared output error of all weights of a model.
    fn error<F: Element>(&self, model: &Model<F>, evidence: &Evidence<F>) -> Result<f64> {
        let one = |weight: &Parameter<F>| {
            let layer = evidence.layer(model, weight.name())?;
            let grams = match grams(&layer)? {
                grams if grams.is_empty() => return Ok(0.0),
                grams => grams,
            };
            Ok(error(weight, &self.quantizer.quantize(&layer)?, &grams))
        };
        model.weights().map(one).sum()
    }
}

/// The weights that read a passage's units, and the embeddings that make them.
fn names<'a, F: Element>(model: &'a Model<F>, passage: &'a Passage) -> Vec<&'a str> {
    let mut names: Vec<&str> = passage.readers().iter().map(CoupledSlot::parameter).collect();
    names.extend(tables(model, passage).map(CoupledSlot::parameter));
    names.sort_unstable();
    names.dedup();
    names
}

fn tables<'a, F: Element>(
    model: &'a Model<F>,
    passage: &'a Passage,
) -> impl Iterator<Item = &'a CoupledSlot> {
    let table = |name: &str| model.find(name).is_some_and(|p| *p.kind() == Kind::Embedding);
    passage.makers().iter().filter(move |slot| table(slot.parameter()))
}

/// A model of these weights only.
fn alone<F: Element>(model: &Model<F>, passage: &Passage, names: &[&str]) -> Result<Model<F>> {
    let (makers, readers) = (tables(model, passage).cloned().collect(), passage.readers().to_vec());
    let mut builder = Model::builder();
    for name in names {
        builder = builder.parameter(model.parameter(name)?.clone());
    }
    let (name, size) = (passage.name(), passage.size());
    // The coupling tells an embedding who reads it.
    let slots = tables(model, passage).chain(&readers).cloned().collect();
    let coupling = Coupling::from_parts(name.to_owned(), size, slots, false);
    builder.coupled(coupling).passing(Passage::from_parts(name.to_owned(), size, makers, readers)).build()
}

/// What errors in two columns of a row cost for one sample, for each group; none for a weight of whose inputs nothing is
/// known.
fn grams<F: Element>(layer: &Layer<'_, F>) -> Result<Vec<Array2<f64>>> {
    let parameter = layer.parameter();
    if *parameter.kind() == Kind::Embedding {
        return Ok(layer.readers_gram().into_iter().collect());
    }
    if !layer.has_inputs() || layer.inputs()?.rows() == 0 {
        return Ok(Vec::new());
    }
    let inputs = layer.inputs()?;
    let gram = |group| match inputs.gram(group) {
        Some(gram) => gram / inputs.rows() as f64,
        None => Array2::from_diag(&inputs.mean_squares(group)),
    };
    Ok((0..inputs.groups()).map(gram).collect())
}

/// Σ δ·G·δᵀ over rows, as far as they are looked at; the mean over the entries of an embedding.
fn error<F: Element>(weight: &Parameter<F>, codes: &QuantizedTensor, grams: &[Array2<f64>]) -> f64 {
    let decoded = codes.decode::<F>();
    let table = *weight.kind() == Kind::Embedding;
    let axis = Axis(if table { 1 - weight.out_axis() } else { weight.out_axis() });
    let rows = weight.array().len_of(axis);
    let (looked_at, per_group) = (rows.min(ROWS), (rows / grams.len()).max(1));
    let mut sum = 0.0;
    for (group, gram) in grams.iter().enumerate() {
        let own = (0..looked_at).map(|k| k * rows / looked_at).filter(|row| row / per_group == group);
        let own: Vec<usize> = own.collect();
        let width = gram.nrows();
        let row = |&row: &usize| {
            let pairs = weight.array().index_axis(axis, row).into_iter().zip(decoded.index_axis(axis, row));
            pairs.map(|(a, b)| b.widen() - a.widen()).collect::<Vec<f64>>()
        };
        let deltas: Vec<f64> = own.iter().flat_map(row).collect();
        let Ok(deltas) = Array2::from_shape_vec((own.len(), width), deltas) else { continue };
        let mut products = Array2::zeros(deltas.raw_dim());
        general_mat_mul(1.0, &deltas, gram, 0.0, &mut products);
        sum += (&products * &deltas).sum();
    }
    sum * rows as f64 / looked_at as f64 / if table { rows as f64 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array2};

    use super::*;
    use crate::quantize::{Bits, GroupSize};

    fn noise(shape: (usize, usize), seed: u64) -> Array2<f64> {
        let mut state = seed;
        Array::from_shape_simple_fn(shape, || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        })
    }

    fn network() -> (Model<f64>, Evidence<f64>) {
        let model = Model::builder()
            .parameter(Parameter::embedding("table", noise((30, 16), 1)))
            .parameter(Parameter::linear("fc1", noise((16, 12), 2)))
            .parameter(Parameter::linear("fc2", noise((16, 24), 3)).axes(1, 0))
            .parameter(Parameter::linear("fc3", noise((8, 16), 4)))
            .coupling(Coupling::builder("hidden").outputs(["fc1"]).inputs(["fc2"]).homogeneous())
            .coupling(Coupling::builder("features").outputs(["table"]).inputs(["fc3"]).homogeneous())
            .build()
            .unwrap();
        let mut evidence = Evidence::new(&model, Needs::GRAM);
        for (name, seed) in [("fc2", 5), ("fc3", 6)] {
            let mut x = noise((60, 16), seed);
            x.column_mut(3).mapv_inplace(|x| 30.0 * x);
            evidence.record_input(name, &x).unwrap();
        }
        (model, evidence)
    }

    /// Mean squared output error of a model's weights.
    fn loss(model: &Model<f64>, evidence: &Evidence<f64>, quantizer: Uniform) -> f64 {
        Awq::new(quantizer).error(model, evidence).unwrap()
    }

    #[test]
    fn errors_get_smaller() {
        let (model, evidence) = network();
        for quantizer in [
            Uniform::new(Bits::FOUR),
            Uniform::new(Bits::new(3).unwrap()).per_group(GroupSize::new(8).unwrap()).affine(),
        ] {
            let migration = Awq::new(quantizer).plan(&model, &evidence).unwrap();
            let moved = migration.apply(&model).unwrap();
            let seen = migration.apply_to_evidence(&model, &evidence).unwrap();
            let (before, after) = (loss(&model, &evidence, quantizer), loss(&moved, &seen, quantizer));
            assert!(after < 0.7 * before, "{before} {after}");
        }
    }

    #[test]
    fn without_inputs() {
        let (model, _) = network();
        let error = Awq::new(Uniform::int8()).plan(&model, &Evidence::new(&model, Needs::GRAM)).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::MissingEvidence);
        assert!(error.to_string().contains("fc2"), "{error}");
        assert!(Rescale::<f32>::check(&Awq::new(Uniform::int8()).steps(0)).is_err());
    }
}
