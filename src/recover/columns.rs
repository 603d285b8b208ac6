//! What a weight lost: which rows and which unfolded columns of the original are left, and where a constant can go.

use ndarray::{Array1, Array2, ArrayD};

use crate::evidence::Inputs;
use crate::evidence::objective::around_mean;
use crate::prune::Plan;
use crate::recover::Removal;
use crate::{Element, Error, Kind, Layer, Model, NormRole, Parameter, Result};

/// A weight of the pruned model beside the weight of the original that it comes from.
///
/// Both are seen as rows of outputs, each with `width` columns: those of the original's unfolded inputs
/// (channels of the row's group times taps).
pub(crate) struct Columns<'a, F> {
    pub(crate) original: &'a Parameter<F>,
    pub(crate) pruned: &'a Parameter<F>,
    /// original row of each row that is left
    rows: Vec<usize>,
    /// original columns that are left
    stay: Vec<usize>,
    width: usize,
}

impl<'a, F: Element> Columns<'a, F> {
    /// Every weight that is left and reads inputs. An embedding, which reads indices, is not among them, nor is a
    /// weight that the original does not have.
    pub(crate) fn all(removal: &Removal<'a, F>, pruned: &'a Model<F>) -> Result<Vec<Self>> {
        let weights = pruned.weights().filter(|p| *p.kind() != Kind::Embedding);
        weights.filter_map(|pruned| Self::of(removal, pruned).transpose()).collect()
    }

    fn of(removal: &Removal<'a, F>, pruned: &'a Parameter<F>) -> Result<Option<Self>> {
        let names = names_before(removal.plan(), pruned.name());
        let Some(original) = removal.original().find(&names[0]) else { return Ok(None) };
        let (Some(in_axis), out_axis) = (original.in_axis(), original.out_axis()) else { return Ok(None) };
        let name = pruned.name();
        let mut kept = Vec::new();
        for (axis, &len) in original.shape().iter().enumerate() {
            let stay = kept_positions(removal.plan(), &names, axis, len);
            let left = pruned.shape().get(axis).copied().unwrap_or(0);
            let stay = stay.filter(|s| s.len() == left && s.iter().all(|&p| p < len)).ok_or_else(|| {
                let (before, after) = (original.shape(), pruned.shape());
                Error::shape(format!("layer `{name}`: the plan does not lead from {before:?} to {after:?}"))
            })?;
            if axis != in_axis && axis != out_axis && left != len {
                return Err(Error::unsupported(format!(
                    "layer `{name}`: recovery of a kernel cut from {len} to {left} taps along axis {axis}"
                )));
            }
            kept.push(stay);
        }
        let taps = original.taps();
        let stay = kept[in_axis].iter().flat_map(|&c| c * taps..(c + 1) * taps).collect();
        let rows = std::mem::take(&mut kept[out_axis]);
        Ok(Some(Self { original, pruned, rows, stay, width: original.fan_in() }))
    }

    /// How many rows are left.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The original's row of each row that is left.
    #[cfg(feature = "rten")]
    pub(crate) fn kept_rows(&self) -> &[usize] {
        &self.rows
    }

    /// Columns of the original.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The original's group that a row belongs to.
    pub(crate) fn group(&self, row: usize) -> usize {
        let per_group = self.original.shape()[self.original.out_axis()] / self.original.groups().max(1);
        self.rows[row] / per_group.max(1)
    }

    /// The original's groups that have rows left, each with its rows.
    pub(crate) fn groups(&self) -> Vec<(usize, Vec<usize>)> {
        let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
        for row in 0..self.rows() {
            match groups.last_mut().filter(|(group, _)| *group == self.group(row)) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((self.group(row), vec![row])),
            }
        }
        groups
    }

    /// A row as the original has it.
    pub(crate) fn before(&self, row: usize) -> Vec<f64> {
        let values = self.original.values();
        let at = index(self.original, self.rows[row]);
        (0..self.width).map(|c| values[at(c)].widen()).collect()
    }

    /// A row as it is now, on the original's columns: 0 where a column is gone.
    pub(crate) fn now(&self, row: usize) -> Vec<f64> {
        let (values, at) = (self.pruned.values(), index(self.pruned, row));
        let mut full = vec![0.0; self.width];
        for (new, &old) in self.stay.iter().enumerate() {
            full[old] = values[at(new)].widen();
        }
        full
    }

    /// Columns that are left.
    pub(crate) fn stay(&self) -> &[usize] {
        &self.stay
    }

    /// Whether columns are gone, or weights that were not 0 are 0 now.
    pub(crate) fn lost(&self) -> bool {
        self.differs(|before, now| now == 0.0 && before != 0.0)
    }

    /// Whether columns are gone or any weight is another.
    #[expect(clippy::float_cmp, reason = "a weight that was not touched has the same bits")]
    pub(crate) fn changed(&self) -> bool {
        self.differs(|before, now| before != now)
    }

    fn differs(&self, differs: impl Fn(f64, f64) -> bool) -> bool {
        let row = |row: usize| {
            let (before, now) = (self.before(row), self.now(row));
            self.stay.iter().any(|&c| differs(before[c], now[c]))
        };
        self.stay.len() < self.width || (0..self.rows()).any(row)
    }

    /// What the mean output of each row lost, when its weights are those of `now`.
    pub(crate) fn shortfall(&self, inputs: &Inputs, now: impl Fn(usize) -> Vec<f64>) -> Vec<f64> {
        let of_group = |(group, rows): (usize, Vec<usize>)| {
            let mean = inputs.mean(group).to_vec();
            let of_row = |row| dot(&self.before(row), &mean) - dot(&now(row), &mean);
            rows.into_iter().map(of_row).collect::<Vec<_>>()
        };
        self.groups().into_iter().flat_map(of_group).collect()
    }

    /// The weight's array from its rows on the original's columns.
    pub(crate) fn array(&self, rows: &[Vec<F>]) -> ArrayD<F> {
        let mut array = self.pruned.array().clone();
        let values = array.as_slice_mut().unwrap_or_default();
        for (row, full) in rows.iter().enumerate() {
            let at = index(self.pruned, row);
            self.stay.iter().enumerate().for_each(|(new, &old)| values[at(new)] = full[old]);
        }
        array
    }

    /// The original layer and what it read.
    pub(crate) fn evidence(&self, removal: &Removal<'a, F>) -> Result<(Layer<'a, F>, &'a Inputs)> {
        let layer = removal.evidence().layer(removal.original(), self.original.name())?;
        let inputs = layer.inputs()?;
        if inputs.rows() == 0 {
            let name = layer.name();
            return Err(Error::missing(format!(
                "layer `{name}`: the inputs that were recorded hold no rows"
            )));
        }
        Ok((layer, inputs))
    }
}

/// Where a constant that is to be added to a weight's output goes: its bias, or else, with the other sign, the
/// running mean of the batch norm that follows (which subtracts it).
pub(crate) struct Constant<'a, F> {
    original: &'a Parameter<F>,
    pruned: &'a Parameter<F>,
    sign: f64,
}

impl<'a, F: Element> Constant<'a, F> {
    /// `None` when there is neither.
    pub(crate) fn of(
        removal: &Removal<'a, F>,
        pruned: &'a Model<F>,
        columns: &Columns<'a, F>,
    ) -> Result<Option<Self>> {
        let find = |model: &'a Model<F>, weight: &str| {
            let mean = || model.norm_of(weight, NormRole::Mean).map(|p| (p, -1.0));
            model.bias_of(weight).map(|p| (p, 1.0)).or_else(mean)
        };
        let before = find(removal.original(), columns.original.name());
        let now = find(pruned, columns.pruned.name());
        let (Some((original, sign)), Some((pruned, _))) = (before, now) else { return Ok(None) };
        let (len, rows) = (pruned.values().len(), columns.rows());
        if len != rows {
            let (name, weight) = (pruned.name(), columns.pruned.name());
            return Err(Error::shape(format!("`{name}` has {len} values, but `{weight}` has {rows} rows")));
        }
        Ok(Some(Self { original, pruned, sign }))
    }

    /// Sets it to what the original has, with `added` for each row.
    pub(crate) fn put(&self, model: &mut Model<F>, columns: &Columns<'a, F>, added: &[f64]) -> Result<()> {
        let before = self.original.values();
        let value = |(&row, c): (&usize, &f64)| F::narrow(before[row].widen() + self.sign * c);
        let values: Array1<F> = columns.rows.iter().zip(added).map(value).collect();
        model.set_values(self.pruned.name(), values.into_dyn())
    }
}

/// Σ (x − mean)·(x − mean)ᵀ of a group's columns. A column that spreads by less than 1e-5 of its size is taken as
/// constant: what is left of it is rounding.
pub(crate) fn centred(gram: &Array2<f64>, mean: &Array1<f64>, rows: u64) -> Array2<f64> {
    let mut centred = around_mean(gram, mean, rows);
    let constant: Vec<usize> = (0..mean.len()).filter(|&j| centred[[j, j]] <= 1e-10 * gram[[j, j]]).collect();
    for j in constant {
        centred.row_mut(j).fill(0.0);
        centred.column_mut(j).fill(0.0);
    }
    centred
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Flat index of each column of a row.
fn index<F: Element>(parameter: &Parameter<F>, row: usize) -> impl Fn(usize) -> usize + use<F> {
    let shape = parameter.shape();
    // Exchanged axes hold a matrix [in, out].
    let (start, step) =
        if parameter.is_row_major() { (row * parameter.fan_in(), 1) } else { (row, shape[1]) };
    move |column| start + column * step
}

/// What a parameter of the pruned model was called before each step of the plan: a block's own copy of a shared
/// weight was the shared one. The first is its name in the original, the last its name now.
fn names_before(plan: &Plan, name: &str) -> Vec<String> {
    let selections: Vec<_> = plan.selections().collect();
    let mut names = vec![name.to_owned()];
    for selection in selections.iter().rev() {
        let now = &names[names.len() - 1];
        let shared = selection.copies.iter().find(|(_, copies)| copies.iter().any(|(_, copy)| copy == now));
        names.push(shared.map_or_else(|| now.clone(), |(shared, _)| shared.clone()));
    }
    names.reverse();
    names
}

/// Positions of an axis of the original that are left; `None` when the plan's steps do not fit each other.
fn kept_positions(plan: &Plan, names: &[String], axis: usize, len: usize) -> Option<Vec<usize>> {
    let mut kept: Vec<usize> = (0..len).collect();
    for (selection, name) in plan.selections().zip(names) {
        if let Some(stay) = selection.kept(name, axis) {
            kept = stay.iter().map(|&p| kept.get(p).copied()).collect::<Option<_>>()?;
        }
    }
    Some(kept)
}
