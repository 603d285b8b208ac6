//! Single weights.

use crate::importance::Scores;
use crate::kernel::select::{self, Cut as Threshold};
use crate::kernel::{par, sample};
use crate::prune::rank::Ranked;
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Mask, Plan, Pruner, Sparsity, Targets};
use crate::{Element, Model, Result};

/// Among which weights the lowest scores are looked for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Each layer gives up its share (default).
    #[default]
    PerLayer,
    /// One threshold over all layers; a layer with a sparsity of its own stays apart.
    Global,
    /// Each output row gives up its share.
    PerRow,
}

/// Sets single weights to zero: of n, the floor(n · s) with the lowest scores, ties by index.
///
/// Weights that are 0 already count as gone and go first. The first and the last weight of the model are kept
/// unless [`include_ends`](Self::include_ends) or [`set`](Self::set) asks for them. Default scope: per layer.
///
/// Han, Pool, Tran, Dally: Learning both weights and connections for efficient neural networks (2015).
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Pruner, Scope, Sparsity, Unstructured};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = array![[1.0f32, -2.0, 9.0], [-3.0, 4.0, 5.0]];
/// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
/// let scores = Scores::compute(&Magnitude::l1(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
/// let pruner = Unstructured::new(Sparsity::new(0.34)?).scope(Scope::PerRow).include_ends();
/// let pruned = pruner.plan(&model, &scores)?.apply(&model)?;
/// assert_eq!(pruned.parameter("fc")?.values(), [0.0, -2.0, 9.0, 0.0, 4.0, 5.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Unstructured {
    sparsity: Sparsity,
    scope: Scope,
    pub(crate) targets: Targets,
}

impl Unstructured {
    /// This fraction of each layer's weights goes.
    pub fn new(sparsity: Sparsity) -> Self {
        Self { sparsity, scope: Scope::PerLayer, targets: Targets::default() }
    }

    /// Among which weights the lowest are looked for.
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    target_setters!("weight", ends);
}

impl<F: Element> Pruner<F> for Unstructured {
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
        let (mut together, mut masks) = (Vec::new(), Vec::new());
        for (name, sparsity) in self.targets.weights(model, self.sparsity)? {
            let ranked = Ranked::new(model.parameter(name)?, scores.layer(name)?);
            match self.scope {
                Scope::Global if sparsity == self.sparsity => together.push(ranked),
                Scope::PerRow => masks.push((name.to_owned(), per_row(&ranked, sparsity))),
                _ => masks.extend(pooled(vec![ranked], sparsity)),
            }
        }
        masks.extend(pooled(together, self.sparsity));
        Plan::of(model, Cut { masks, ..Cut::default() })
    }

    fn check(&self) -> Result<()> {
        self.targets.check()
    }
}

/// One threshold over all these layers; ties go in the order of layers.
fn pooled<F: Element>(mut layers: Vec<Ranked<'_, F>>, sparsity: Sparsity) -> Vec<(String, Mask)> {
    let count = sparsity.of(layers.iter().map(|l| l.values().len()).sum());
    if layers.iter().all(Ranked::by_magnitude) {
        let parts: Vec<&[F]> = layers.iter().map(Ranked::values).collect();
        return sampled(&layers, &parts, count).unwrap_or_else(|| {
            let threshold = select::smallest(&parts, |w: &F| w.magnitude_key(), F::MAGNITUDE_BITS, count);
            above(&layers, &parts, threshold, select::at_least_magnitude)
        });
    }
    // A criterion may score some layers by magnitude and others one by one.
    layers = layers.into_iter().map(Ranked::by_value).collect();
    let parts: Vec<&[F]> = layers.iter().map(Ranked::values).collect();
    let threshold = select::smallest(&parts, |s: &F| s.order_key(), F::MAGNITUDE_BITS + 1, count);
    above(&layers, &parts, threshold, |key| move |s: &F| s.order_key() >= key)
}

/// The masks without a search, where a sample of the weights tells enough.
fn sampled<F: Element>(
    layers: &[Ranked<'_, F>],
    parts: &[&[F]],
    count: usize,
) -> Option<Vec<(String, Mask)>> {
    let stay = sample::without_smallest(parts, count)?.into_iter().zip(layers);
    let mask = |(words, layer): (_, &Ranked<'_, F>)| {
        Some((layer.parameter.name().to_owned(), Mask::from_words(layer.parameter.shape(), words)?))
    };
    stay.map(mask).collect()
}

/// Keeps what lies above the threshold; of the ties the first by layer and index go. `from` makes the test whether
/// a value has at least a key.
fn above<F: Element, K: Fn(&F) -> bool>(
    layers: &[Ranked<'_, F>],
    parts: &[&[F]],
    threshold: Threshold,
    from: impl Fn(u64) -> K + Copy + Sync + Send,
) -> Vec<(String, Mask)> {
    let counts = select::tied(parts, threshold, from);
    let (mut ties, mut counts) = (threshold.ties, counts.as_slice());
    let mask = |layer: &Ranked<'_, F>| {
        let chunks = layer.values().len().div_ceil(par::CHUNK).min(counts.len());
        let (own, others) = counts.split_at(chunks);
        let mask = above_in(layer, Threshold { ties, ..threshold }, own, from);
        counts = others;
        ties = ties.saturating_sub(own.iter().sum());
        (layer.parameter.name().to_owned(), mask)
    };
    layers.iter().map(mask).collect()
}

/// The mask of one layer; `counts` are the ties of each chunk.
fn above_in<F: Element, K: Fn(&F) -> bool>(
    layer: &Ranked<'_, F>,
    Threshold { key: least, ties }: Threshold,
    counts: &[usize],
    from: impl Fn(u64) -> K + Sync + Send,
) -> Mask {
    let (shape, values) = (layer.parameter.shape(), layer.values());
    if ties == 0 {
        return Mask::from_values(shape, values, |_| from(least));
    }
    let sum = |sum: &mut usize, n: &usize| {
        *sum += n;
        Some(*sum)
    };
    let up_to: Vec<usize> = counts.iter().scan(0, sum).collect();
    // All ties of a chunk go, or all stay but for one chunk, where they run out.
    let mut mask = Mask::from_values(shape, values, |chunk| from(least + u64::from(up_to[chunk] <= ties)));
    let torn = up_to.partition_point(|&n| n <= ties);
    let gone = torn.checked_sub(1).map_or(0, |k| up_to[k]);
    let start = (torn * par::CHUNK).min(values.len());
    let (all, above) = (from(least), from(least + 1));
    let tied = values[start..].iter().enumerate().filter(|(_, v)| all(v) & !above(v));
    tied.take(ties - gone).for_each(|(k, _)| mask.clear(start + k));
    mask
}

/// Each output row on its own.
fn per_row<F: Element>(layer: &Ranked<'_, F>, sparsity: Sparsity) -> Mask {
    if layer.by_magnitude() {
        per_row_by(layer, sparsity, |w| w.magnitude_key())
    } else {
        per_row_by(layer, sparsity, |s| s.order_key())
    }
}

fn per_row_by<F: Element>(
    layer: &Ranked<'_, F>,
    sparsity: Sparsity,
    key: impl Fn(&F) -> u64 + Copy + Sync + Send,
) -> Mask {
    let (shape, values, axis) = (layer.parameter.shape(), layer.values(), layer.parameter.out_axis());
    let (rows, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    // The key and the flat index of the last weight of each row that goes.
    let last: Vec<Option<(u64, usize)>> = par::map(rows, |row| {
        let runs = values.chunks(inner).skip(row).step_by(rows);
        let keys: Vec<u64> = runs.flatten().map(key).collect();
        let nth = sparsity.of(keys.len()).checked_sub(1)?;
        let least = *keys.clone().select_nth_unstable(nth).1;
        let below = keys.iter().filter(|&&k| k < least).count();
        let at = (0..keys.len()).filter(|&at| keys[at] == least).nth(nth - below)?;
        Some((least, (at / inner * rows + row) * inner + at % inner))
    });
    Mask::from_values(shape, values, |chunk| {
        let mut at = chunk * par::CHUNK;
        let (mut row, mut left) = (at / inner % rows, inner - at % inner);
        let last = &last;
        move |v: &F| {
            let keeps = last[row].is_none_or(|(least, tie)| {
                let key = key(v);
                key > least || (key == least && at > tie)
            });
            (at, left) = (at + 1, left - 1);
            if left == 0 {
                (row, left) = ((row + 1) % rows, inner);
            }
            keeps
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ndarray::{Array2, ArrayD, array};

    use super::*;
    use crate::importance::{Importance, Magnitude, Norm, Score};
    use crate::{Evidence, Layer, Needs, Parameter};

    /// Scores given by name; magnitudes for the rest.
    #[derive(Debug)]
    struct Given(HashMap<&'static str, ArrayD<f32>>);

    impl Importance<f32> for Given {
        fn score(&self, layer: &Layer<'_, f32>) -> Result<Score<f32>> {
            let given = self.0.get(layer.name()).cloned();
            Ok(given.map_or_else(|| Score::magnitude(Norm::L2), Score::elements))
        }
    }

    fn model(weights: &[(&str, Array2<f32>)]) -> Model<f32> {
        let add = |builder: crate::ModelBuilder<f32>, (name, array): &(&str, Array2<f32>)| {
            builder.parameter(Parameter::linear(*name, array.clone()))
        };
        weights.iter().fold(Model::builder(), add).build().unwrap()
    }

    fn pruned(pruner: &Unstructured, criterion: &dyn Importance<f32>, model: &Model<f32>) -> Model<f32> {
        let scores = Scores::compute(criterion, model, &Evidence::new(model, Needs::MOMENTS)).unwrap();
        pruner.clone().include_ends().plan(model, &scores).unwrap().apply(model).unwrap()
    }

    fn at(sparsity: f64) -> Unstructured {
        Unstructured::new(Sparsity::new(sparsity).unwrap())
    }

    /// The rule, spelled out: sort by (score, index).
    fn by_sorting(scores: &[f32], count: usize) -> Vec<bool> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let mut keeps = vec![true; scores.len()];
        order[..count].iter().for_each(|&k| keeps[k] = false);
        keeps
    }

    #[test]
    fn rows_break_ties_by_index() {
        let model = model(&[("w", array![[1.0, -1.0, 1.0, 1.0], [4.0, 3.0, 3.0, 3.0]])]);
        let pruned = pruned(&at(0.5).scope(Scope::PerRow), &Magnitude::l1(), &model);
        assert_eq!(pruned.parameter("w").unwrap().values(), [0.0, 0.0, 1.0, 1.0, 4.0, 0.0, 0.0, 3.0]);
    }

    #[test]
    fn rows_of_any_size_and_axis() {
        // 67 · 1031 weights are more than one chunk, and no row ends where a chunk does.
        let (rows, columns) = (67, 1031);
        let weights = Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 17) % 13 + 1) as f32);
        let pruner = at(0.3).scope(Scope::PerRow);
        let by_row = pruned(&pruner, &Magnitude::l1(), &model(&[("w", weights.clone())]));
        let by_row = by_row.parameter("w").unwrap().array().clone();
        for (row, before) in by_row.outer_iter().zip(weights.outer_iter()) {
            let keeps: Vec<bool> = row.iter().map(|w| *w != 0.0).collect();
            assert_eq!(keeps, by_sorting(&before.to_vec(), 309));
        }
        let turned = Parameter::linear("w", weights.t().to_owned()).axes(1, 0);
        let turned = pruned_one(&pruner, turned);
        assert_eq!(turned.parameter("w").unwrap().array().t(), by_row);
    }

    fn pruned_one(pruner: &Unstructured, parameter: Parameter<f32>) -> Model<f32> {
        pruned(pruner, &Magnitude::l1(), &Model::builder().parameter(parameter).build().unwrap())
    }

    #[test]
    fn global_ties_go_in_the_order_of_layers() {
        let ones = || Array2::ones((1, 4));
        let model = model(&[("a", ones()), ("b", ones() * 2.0), ("c", ones()), ("d", ones())]);
        let pruned = pruned(&at(7.0 / 16.0).scope(Scope::Global), &Magnitude::l1(), &model);
        let kept = |name| pruned.parameter(name).unwrap().values().to_vec();
        assert_eq!(kept("a"), [0.0; 4]);
        assert_eq!(kept("b"), [2.0; 4]);
        assert_eq!(kept("c"), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(kept("d"), [1.0; 4]);
    }

    #[test]
    fn global_leaves_overrides_apart() {
        let model = model(&[("a", array![[1.0, 2.0, 3.0, 4.0]]), ("b", array![[0.1, 0.2, 0.3, 0.4]])]);
        let pruner = at(0.5).scope(Scope::Global).set("b", Sparsity::new(0.25).unwrap());
        let left = pruned(&pruner, &Magnitude::l1(), &model);
        assert_eq!(left.parameter("a").unwrap().values(), [0.0, 0.0, 3.0, 4.0]);
        assert_eq!(left.parameter("b").unwrap().values(), [0.0, 0.2, 0.3, 0.4]);
    }

    #[test]
    fn global_ranks_magnitudes_beside_scores() {
        let model = model(&[("a", array![[-9.0, -1.0]]), ("b", array![[1.0, 1.0]])]);
        let given = Given(HashMap::from([("b", array![[0.5f32, -2.0]].into_dyn())]));
        let pruned = pruned(&at(0.5).scope(Scope::Global), &given, &model);
        assert_eq!(pruned.parameter("a").unwrap().values(), [-9.0, -1.0]);
        assert_eq!(pruned.parameter("b").unwrap().values(), [0.0, 0.0]);
    }

    #[test]
    fn signed_scores_rank_as_they_are_and_zeros_go_first() {
        let model = model(&[("w", array![[1.0, 0.0, 1.0, 1.0, 1.0]])]);
        let scores = array![[-1.0f32, 7.0, 3.0, -5.0, 0.0]].into_dyn();
        let given = Given(HashMap::from([("w", scores)]));
        let kept = |s: f64| {
            let pruned = pruned(&at(s), &given, &model);
            pruned.parameter("w").unwrap().values().to_vec()
        };
        assert_eq!(kept(0.2), [1.0, 0.0, 1.0, 1.0, 1.0]);
        assert_eq!(kept(0.4), [1.0, 0.0, 1.0, 0.0, 1.0]);
        assert_eq!(kept(0.6), [0.0, 0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn what_is_gone_counts() {
        let weights = Array2::from_shape_fn((4, 25), |(i, j)| (1 + (i * 25 + j) * 37 % 101) as f32);
        let half = pruned(&at(0.5), &Magnitude::l1(), &model(&[("w", weights.clone())]));
        let twice = pruned(&at(0.8), &Magnitude::l1(), &half);
        assert_eq!(twice, pruned(&at(0.8), &Magnitude::l1(), &model(&[("w", weights)])));
        assert_eq!(twice.nonzero_count(), 20);
    }

    /// |w| as scores of its own, negated: the largest go first.
    #[derive(Debug)]
    struct Small;

    impl Importance<f32> for Small {
        fn score(&self, layer: &Layer<'_, f32>) -> Result<Score<f32>> {
            Ok(Score::elements(layer.parameter().array().mapv(|w| -w.abs())))
        }
    }

    /// Two layers of some chunks, with `levels` different magnitudes.
    fn levelled(levels: usize) -> Model<f32> {
        let weights = |rows, columns, by| {
            Array2::from_shape_fn((rows, columns), |(i, j)| {
                let k = (i * columns + j + 1) * by % 1_000_003;
                (k % levels) as f32 * if k % 3 == 0 { -1.0 } else { 1.0 }
            })
        };
        Model::builder()
            .parameter(Parameter::linear("a", weights(300, 701, 7919)))
            .parameter(Parameter::linear("b", weights(200, 611, 104_729)).axes(1, 0))
            .build()
            .unwrap()
    }

    /// Which of the members go: the `count` that rank lowest, ties by place.
    fn lowest(members: &[(usize, usize, f32)], count: usize) -> Vec<(usize, usize)> {
        let mut order = members.to_vec();
        order.sort_by(|a, b| a.2.total_cmp(&b.2).then((a.0, a.1).cmp(&(b.0, b.1))));
        order[..count].iter().map(|&(layer, k, _)| (layer, k)).collect()
    }

    #[test]
    fn every_scope_equals_sorting() {
        for (levels, small) in [(2, false), (7, false), (1_000_003, false), (7, true), (1_000_003, true)] {
            let model = levelled(levels);
            let evidence = Evidence::new(&model, Needs::MOMENTS);
            let importance: Box<dyn Importance<f32>> =
                if small { Box::new(Small) } else { Box::new(Magnitude::l1()) };
            let scores = Scores::compute(&importance, &model, &evidence).unwrap();
            let rank = |w: f32| match (small, w == 0.0) {
                (true, false) => -w.abs(),
                (true, true) => f32::NEG_INFINITY,
                (false, _) => w.abs(),
            };
            let layers: Vec<Vec<(usize, usize, f32)>> = model
                .parameters()
                .iter()
                .enumerate()
                .map(|(l, p)| p.values().iter().enumerate().map(|(k, &w)| (l, k, rank(w))).collect())
                .collect();
            let rows: Vec<Vec<_>> = (0..300)
                .map(|row| layers[0][row * 701..][..701].to_vec())
                .chain((0..611).map(|row| layers[1].iter().copied().skip(row).step_by(611).collect()))
                .collect();
            for (scope, pools) in [
                (Scope::PerLayer, layers.clone()),
                (Scope::Global, vec![layers.concat()]),
                (Scope::PerRow, rows),
            ] {
                for removed in [0.0, 0.3, 0.5, 0.9] {
                    let sparsity = Sparsity::new(removed).unwrap();
                    let plan = Unstructured::new(sparsity).scope(scope).include_ends();
                    let plan = plan.plan(&model, &scores).unwrap();
                    let mut gone: Vec<_> =
                        pools.iter().flat_map(|pool| lowest(pool, sparsity.of(pool.len()))).collect();
                    gone.sort_unstable();
                    let masked: Vec<_> = ["a", "b"]
                        .iter()
                        .enumerate()
                        .flat_map(|(l, name)| {
                            let mask = plan.weight_mask(name);
                            let gone =
                                mask.map(|m| (0..m.len()).filter(|&k| !m.keeps(k)).collect::<Vec<_>>());
                            gone.unwrap_or_default().into_iter().map(move |k| (l, k))
                        })
                        .collect();
                    assert!(masked == gone, "{levels} {small} {scope:?} {removed}");
                }
            }
        }
    }
}
