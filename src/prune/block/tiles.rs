//! Whole tiles of a weight matrix.

use crate::importance::{Norm, Scores};
use crate::kernel::par;
use crate::prune::block::unshare::Unshared;
use crate::prune::rank::{Ranked, lowest};
use crate::prune::targets::target_setters;
use crate::prune::{Cut, Mask, Plan, Pruner, Scope, Sparsity, Targets};
use crate::{Element, Error, Model, Parameter, Result};

/// How the scores of a tile become one number.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pool {
    /// The norm that the criterion gives slices, over the tile's weights: √(Σ s² / n) for L2, Σ |s| / n for L1,
    /// the largest for L∞ (default).
    #[default]
    Norm,
    /// Mean of |s|.
    Mean,
    /// Largest |s|.
    Max,
}

/// Sets whole tiles of weight matrices to zero (block-sparse): of the n tiles, the floor(n · s) with the lowest
/// scores, ties by index.
///
/// A tile is `rows` outputs by `cols` inputs. A convolution is seen as the matrix [out, in · taps]. Tiles at the
/// far edges may be smaller: scores are means over a tile's weights, so that they compare. A tile whose weights
/// are all 0 already counts as gone and goes first.
///
/// Defaults: per layer; [`Pool::Norm`]; the first and the last weight of the model are kept unless
/// [`include_ends`](Self::include_ends) or [`set`](Self::set) asks for them. With [`Scope::PerRow`] each row of
/// tiles gives up its share. Weights that several blocks share are first copied for each
/// ([`block`](crate::prune::block)), unless [`keep_shared`](Self::keep_shared); patterns name the weights as they
/// are before.
///
/// Narang, Undersander, Diamos: Block-sparse recurrent neural networks (2017).
///
/// ```
/// use ndarray::array;
/// use niwaki::importance::{Magnitude, Scores};
/// use niwaki::prune::{Pruner, Sparsity, Tiles};
/// use niwaki::{Evidence, Model, Needs, Parameter};
///
/// # fn main() -> niwaki::Result<()> {
/// let weights = array![[1.0f32, 2.0, 9.0], [3.0, 4.0, 9.0], [5.0, 5.0, 1.0]];
/// let model = Model::builder().parameter(Parameter::linear("fc", weights)).build()?;
/// let scores = Scores::compute(&Magnitude::l2(), &model, &Evidence::new(&model, Needs::MOMENTS))?;
/// let pruner = Tiles::new(2, 2, Sparsity::new(0.5)?).include_ends();
/// let pruned = pruner.plan(&model, &scores)?.apply(&model)?;
/// assert_eq!(pruned.parameter("fc")?.values(), [0.0, 0.0, 9.0, 0.0, 0.0, 9.0, 5.0, 5.0, 0.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tiles {
    rows: usize,
    cols: usize,
    sparsity: Sparsity,
    pool: Pool,
    scope: Scope,
    keep_shared: bool,
    pub(crate) targets: Targets,
}

impl Tiles {
    /// This fraction of each layer's tiles of `rows` outputs by `cols` inputs goes.
    pub fn new(rows: usize, cols: usize, sparsity: Sparsity) -> Self {
        let (pool, scope, targets) = (Pool::default(), Scope::default(), Targets::default());
        Self { rows, cols, sparsity, pool, scope, keep_shared: false, targets }
    }

    /// How the scores of a tile become one number.
    pub fn pool(self, pool: Pool) -> Self {
        Self { pool, ..self }
    }

    /// Among which tiles the lowest are looked for: those of each layer, of all layers, or of each row of tiles.
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Leaves weights that several blocks share as they are.
    pub fn keep_shared(self) -> Self {
        Self { keep_shared: true, ..self }
    }

    target_setters!("weight", ends);
}

impl<F: Element> Pruner<F> for Tiles {
    fn plan(&self, model: &Model<F>, scores: &Scores<F>) -> Result<Plan> {
        <Self as Pruner<F>>::check(self)?;
        let targets = self.targets.weights(model, self.sparsity)?;
        let Unshared { mut plan, model, scores, copies } = Unshared::new(model, scores, self.keep_shared)?;
        let mut layers = Vec::new();
        for (declared, sparsity) in targets {
            for name in copies.names_after(declared) {
                let (parameter, score) = (model.parameter(&name)?, scores.layer(&name)?);
                let norm = match self.pool {
                    Pool::Norm => score.slice_norm(),
                    Pool::Mean => Norm::L1,
                    Pool::Max => Norm::Max,
                };
                let grid = Grid::new(parameter, self.rows, self.cols);
                let scores = grid.scores(&Ranked::new(parameter, score), norm);
                layers.push(Tiled { parameter, sparsity, grid, gone: vec![false; scores.len()], scores });
            }
        }
        self.choose(&mut layers);
        let masks = layers.iter().map(|l| (l.parameter.name().to_owned(), l.grid.mask(l.parameter, &l.gone)));
        let masks = masks.collect();
        let notes = layers.iter().map(Tiled::note).collect();
        plan.push(Cut { masks, notes, ..Cut::default() })?;
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        if self.rows == 0 || self.cols == 0 {
            let (rows, cols) = (self.rows, self.cols);
            return Err(Error::setting(format!("a tile of {rows} × {cols} weights holds nothing")));
        }
        self.targets.check()
    }
}

impl Tiles {
    /// Marks the tiles that go.
    fn choose<F: Element>(&self, layers: &mut [Tiled<'_, F>]) {
        let mut pooled = Vec::new();
        for (at, layer) in layers.iter_mut().enumerate() {
            match self.scope {
                Scope::Global if layer.sparsity == self.sparsity => pooled.push(at),
                Scope::PerRow => {
                    for row in 0..layer.grid.tile_rows() {
                        let members = layer.grid.row(row);
                        let scores: Vec<f64> = members.iter().map(|&k| layer.scores[k]).collect();
                        let gone = lowest(&scores, layer.sparsity.of(scores.len()));
                        for k in gone {
                            layer.gone[members[k]] = true;
                        }
                    }
                }
                _ => {
                    let gone = lowest(&layer.scores, layer.sparsity.of(layer.scores.len()));
                    for k in gone {
                        layer.gone[k] = true;
                    }
                }
            }
        }
        let owners: Vec<(usize, usize)> =
            pooled.iter().flat_map(|&at| (0..layers[at].scores.len()).map(move |k| (at, k))).collect();
        let scores: Vec<f64> = owners.iter().map(|&(at, k)| layers[at].scores[k]).collect();
        for place in lowest(&scores, self.sparsity.of(scores.len())) {
            let (at, k) = owners[place];
            layers[at].gone[k] = true;
        }
    }
}

/// A layer and its tiles.
struct Tiled<'a, F> {
    parameter: &'a Parameter<F>,
    sparsity: Sparsity,
    grid: Grid,
    scores: Vec<f64>,
    gone: Vec<bool>,
}

impl<F: Element> Tiled<'_, F> {
    fn note(&self) -> String {
        let (name, tiles) = (self.parameter.name(), self.gone.len());
        let gone = self.gone.iter().filter(|&&gone| gone).count();
        format!("layer `{name}`: {gone} of {tiles} tiles go")
    }
}

/// The tiles of a matrix, numbered as they lie in memory.
#[derive(Clone, Copy, Debug)]
struct Grid {
    /// lines of memory and the length of one
    lines: usize,
    width: usize,
    /// what a tile takes of them
    tile_lines: usize,
    tile_width: usize,
    /// whether lines are outputs
    by_output: bool,
}

impl Grid {
    fn new<F: Element>(parameter: &Parameter<F>, rows: usize, cols: usize) -> Self {
        let by_output = parameter.is_row_major();
        let lines = parameter.shape()[0];
        let width = parameter.shape()[1..].iter().product();
        let (tile_lines, tile_width) = if by_output { (rows, cols) } else { (cols, rows) };
        Self { lines, width, tile_lines: tile_lines.min(lines), tile_width: tile_width.min(width), by_output }
    }

    /// Tiles along the lines, and across.
    fn counts(&self) -> (usize, usize) {
        (self.lines.div_ceil(self.tile_lines), self.width.div_ceil(self.tile_width))
    }

    fn tile_rows(&self) -> usize {
        let (down, across) = self.counts();
        if self.by_output { down } else { across }
    }

    /// The tiles that hold the same outputs.
    fn row(&self, row: usize) -> Vec<usize> {
        let (down, across) = self.counts();
        if self.by_output {
            (row * across..(row + 1) * across).collect()
        } else {
            (0..down).map(|line| line * across + row).collect()
        }
    }

    /// The score of each tile.
    fn scores<F: Element>(&self, layer: &Ranked<'_, F>, norm: Norm) -> Vec<f64> {
        let (weights, scores, (down, across)) = (layer.parameter.values(), layer.values(), self.counts());
        let band = self.tile_lines * self.width;
        let scores = par::map(down, |line| {
            let at = line * band..weights.len().min((line + 1) * band);
            let (weights, scores) = (&weights[at.clone()], &scores[at]);
            let mut tile = Vec::with_capacity(self.tile_lines * self.tile_width);
            let score = |k: usize| {
                let columns = k * self.tile_width..self.width.min((k + 1) * self.tile_width);
                tile.clear();
                let mut zero = true;
                for (weights, scores) in weights.chunks(self.width).zip(scores.chunks(self.width)) {
                    let pairs = weights[columns.clone()].iter().zip(&scores[columns.clone()]);
                    for (weight, &score) in pairs {
                        zero &= weight.is_zero();
                        let score = if layer.by_magnitude() { score.abs() } else { score };
                        tile.push(if weight.is_zero() { F::zero() } else { score });
                    }
                }
                let mean = if norm == Norm::Max { 1.0 } else { tile.len() as f64 };
                if zero { f64::NEG_INFINITY } else { norm.finish(norm.partial(&tile) / mean) }
            };
            (0..across).map(score).collect::<Vec<f64>>()
        });
        scores.concat()
    }

    /// Keeps all but the tiles that are gone.
    fn mask<F: Element>(&self, parameter: &Parameter<F>, gone: &[bool]) -> Mask {
        let across = self.counts().1;
        let mut flags = vec![1u8; parameter.values().len()];
        par::for_chunks_mut(&mut flags, self.width, |line, flags| {
            let tiles = &gone[line / self.tile_lines * across..];
            for (flags, _) in flags.chunks_mut(self.tile_width).zip(tiles).filter(|(_, gone)| **gone) {
                flags.fill(0);
            }
        });
        Mask::from_values(parameter.shape(), &flags, |_| |&flag: &u8| flag == 1)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Array4, array};

    use super::*;
    use crate::importance::Magnitude;
    use crate::{Block, Evidence, Geometry, Needs};

    fn pruned(pruner: &Tiles, model: &Model<f32>) -> Model<f32> {
        let scores = Scores::compute(&Magnitude::l2(), model, &Evidence::new(model, Needs::MOMENTS)).unwrap();
        pruner.clone().include_ends().plan(model, &scores).unwrap().apply(model).unwrap()
    }

    fn one(parameter: Parameter<f32>) -> Model<f32> {
        Model::builder().parameter(parameter).build().unwrap()
    }

    fn tiles(rows: usize, cols: usize, sparsity: f64) -> Tiles {
        Tiles::new(rows, cols, Sparsity::new(sparsity).unwrap())
    }

    #[test]
    fn edges_are_smaller_and_turning_changes_nothing() {
        let weights = Array2::from_shape_fn((7, 10), |(i, j)| ((i / 3 * 5 + j / 4 * 3) % 11 + 1) as f32);
        let model = one(Parameter::linear("w", weights.clone()));
        // Values of the 3 × 3 tiles: 1 4 7 / 6 9 1 / 11 3 6.
        let after = pruned(&tiles(3, 4, 0.4), &model);
        let expected = weights.mapv(|w| if w <= 3.0 { 0.0 } else { w });
        assert_eq!(after.parameter("w").unwrap().array(), &expected.into_dyn());
        for scope in [Scope::PerLayer, Scope::PerRow] {
            let pruner = tiles(3, 4, 0.4).scope(scope);
            let turned = one(Parameter::linear("w", weights.t().to_owned()).axes(1, 0));
            let (straight, turned) = (pruned(&pruner, &model), pruned(&pruner, &turned));
            assert_eq!(straight.parameter("w").unwrap().array(), turned.parameter("w").unwrap().array().t());
        }
    }

    #[test]
    fn each_row_of_tiles_gives_up_its_share() {
        let model = one(Parameter::linear("w", array![[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [9.0, 7.0, 8.0]]));
        let after = pruned(&tiles(2, 1, 0.34).scope(Scope::PerRow), &model);
        assert_eq!(after.parameter("w").unwrap().values(), [0.0, 2.0, 3.0, 0.0, 2.0, 3.0, 9.0, 0.0, 8.0]);
    }

    #[test]
    fn convolutions_are_matrices_and_ties_go_by_index() {
        let conv = Parameter::conv("w", Array4::ones((2, 2, 2, 2)), Geometry::new());
        let after = pruned(&tiles(1, 4, 0.5), &one(conv));
        let zeros = after.parameter("w").unwrap().values().iter().map(|w| *w == 0.0);
        assert_eq!(zeros.collect::<Vec<_>>(), [[true; 8], [false; 8]].concat());
    }

    #[test]
    fn global_ranks_tiles_of_all_layers_and_gone_tiles_count() {
        let model = Model::builder()
            .parameter(Parameter::linear("a", array![[1.0, 1.0, 0.0, 0.0]]))
            .parameter(Parameter::linear("b", array![[2.0, 2.0, 3.0, 3.0]]))
            .build()
            .unwrap();
        let global = tiles(1, 2, 0.75).scope(Scope::Global);
        let after = pruned(&global, &model);
        assert_eq!(after.parameter("a").unwrap().values(), [0.0; 4]);
        assert_eq!(after.parameter("b").unwrap().values(), [0.0, 0.0, 3.0, 3.0]);
        let apart = pruned(&global.set("b", Sparsity::default()), &model);
        assert_eq!(apart.nonzero_count(), 2 + 4);
    }

    #[test]
    fn shared_weights_get_copies() {
        let model = Model::builder()
            .parameter(Parameter::linear("w", array![[1.0, 2.0]]))
            .block(Block::new("b1").parameters(["w"]))
            .block(Block::new("b2").parameters(["w"]))
            .build()
            .unwrap();
        let after = pruned(&tiles(1, 1, 0.25).set("w", Sparsity::new(0.5).unwrap()), &model);
        for block in ["b1", "b2"] {
            let name = after.block(block).unwrap().parameter("w").unwrap();
            assert_eq!(after.parameter(name).unwrap().values(), [0.0, 2.0]);
        }
        assert_eq!(pruned(&tiles(1, 1, 0.5).keep_shared(), &model).parameters().len(), 1);
    }

    #[test]
    fn empty_tiles_are_an_error() {
        let scores = |m: &Model<f32>| Scores::compute(&Magnitude::l2(), m, &Evidence::new(m, Needs::MOMENTS));
        let model = one(Parameter::linear("w", array![[1.0]]));
        assert!(tiles(0, 4, 0.5).include_ends().plan(&model, &scores(&model).unwrap()).is_err());
        let huge = tiles(usize::MAX, usize::MAX, 0.5).include_ends();
        assert!(huge.plan(&model, &scores(&model).unwrap()).unwrap().apply(&model).is_ok());
    }
}
