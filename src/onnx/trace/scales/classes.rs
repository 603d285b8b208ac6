//! A class for each position of a tensor, and which classes are one.

use ndarray::{ArrayD, Axis, IxDyn};

/// More positions than this are not followed one by one.
const MOST: usize = 1 << 22;

/// A class for each position; along an axis of length 1 all positions have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Classes(pub(super) ArrayD<u32>);

/// Disjoint sets of classes. Number 0 is that of what stays as it is.
#[derive(Debug)]
pub(super) struct Sets {
    parent: Vec<u32>,
}

impl Sets {
    pub(super) fn new() -> Self {
        Self { parent: vec![0] }
    }

    pub(super) fn root(&mut self, mut class: u32) -> u32 {
        while self.parent[class as usize] != class {
            let above = self.parent[self.parent[class as usize] as usize];
            self.parent[class as usize] = above;
            class = above;
        }
        class
    }

    pub(super) fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b) as usize] = a.min(b);
    }

    pub(super) fn hold(&mut self, classes: &Classes) {
        classes.0.iter().for_each(|&class| self.join(class, 0));
    }

    pub(super) fn is_held(&mut self, classes: &Classes) -> bool {
        classes.0.iter().all(|&class| self.root(class) == 0)
    }

    fn fresh(&mut self, count: usize) -> Option<Vec<u32>> {
        let first = u32::try_from(self.parent.len()).ok()?;
        let end = first.checked_add(u32::try_from(count).ok()?)?;
        self.parent.extend(first..end);
        Some((first..end).collect())
    }
}

impl Classes {
    /// Of a tensor that stays.
    pub(super) fn held(rank: usize) -> Self {
        Self(ArrayD::zeros(vec![1; rank]))
    }

    /// A new class for each position; `None` where they are too many.
    pub(super) fn fresh(sets: &mut Sets, dims: &[usize]) -> Option<Self> {
        let count = dims.iter().try_fold(1usize, |n, &len| n.checked_mul(len)).filter(|&n| n <= MOST)?;
        ArrayD::from_shape_vec(dims, sets.fresh(count)?).ok().map(Self)
    }

    /// Of a tensor of this rank, along one axis.
    pub(super) fn along(classes: Vec<u32>, axis: usize, rank: usize) -> Self {
        let mut shape = vec![1; rank.max(1)];
        if let Some(len) = shape.get_mut(axis) {
            *len = classes.len();
        }
        ArrayD::from_shape_vec(shape, classes).map_or_else(|_| Self::held(rank), Self)
    }

    pub(super) fn rank(&self) -> usize {
        self.0.ndim()
    }

    /// Whether positions along an axis may have different classes.
    pub(super) fn differs(&self, axis: usize) -> bool {
        self.0.shape().get(axis).is_some_and(|&len| len > 1)
    }

    /// Whether positions differ along this axis at most.
    pub(super) fn only_along(&self, axis: usize) -> bool {
        (0..self.rank()).all(|other| other == axis || !self.differs(other))
    }

    pub(super) fn fits(&self, dims: &[usize]) -> bool {
        let shape = self.0.shape();
        shape.len() == dims.len() && shape.iter().zip(dims).all(|(&own, &len)| own == 1 || own == len)
    }

    /// Of a tensor without positions.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn to_vec(&self) -> Vec<u32> {
        self.0.iter().copied().collect()
    }

    /// With axes that make no difference of length 1.
    pub(super) fn compact(self, sets: &mut Sets) -> Self {
        let mut roots = self.0.mapv(|class| sets.root(class));
        for axis in 0..roots.ndim() {
            let first = roots.index_axis(Axis(axis), 0);
            if roots.len_of(Axis(axis)) > 1 && roots.axis_iter(Axis(axis)).all(|slice| slice == first) {
                roots = first.to_owned().insert_axis(Axis(axis));
            }
        }
        Self(roots)
    }

    /// All positions along the axes of these lengths; `None` where they are too many, or do not fit.
    pub(super) fn spread(&self, dims: &[usize]) -> Option<Self> {
        let count = dims.iter().try_fold(1usize, |n, &len| n.checked_mul(len)).filter(|&n| n <= MOST)?;
        let spread = self.0.broadcast(IxDyn(dims))?.as_standard_layout().into_owned();
        (spread.len() == count).then_some(Self(spread))
    }

    /// With more axes of length 1 in front.
    pub(super) fn raised(mut self, rank: usize) -> Self {
        while self.0.ndim() < rank {
            self.0 = self.0.insert_axis(Axis(0));
        }
        self
    }

    /// The classes of one axis, all its positions; `None` where they differ along others too.
    pub(super) fn of_axis(&self, axis: usize, len: usize) -> Option<Vec<u32>> {
        if !self.only_along(axis) || axis >= self.rank() {
            return None;
        }
        let mut dims = vec![1; self.rank()];
        dims[axis] = len;
        self.spread(&dims).map(|classes| classes.to_vec())
    }

    /// One class for those of several tensors that meet, shapes broadcast; `None` where that cannot be done.
    pub(super) fn meet(sets: &mut Sets, all: &[Self]) -> Option<Self> {
        let rank = all.iter().map(Self::rank).max()?;
        let raised: Vec<Self> = all.iter().map(|classes| classes.clone().raised(rank)).collect();
        let most = |axis: usize| raised.iter().map(|c| c.0.shape()[axis]).max().unwrap_or(1);
        let dims: Vec<usize> = (0..rank).map(most).collect();
        let spread: Vec<Self> = raised.iter().map(|c| c.spread(&dims)).collect::<Option<_>>()?;
        let (first, others) = spread.split_first()?;
        for other in others {
            first.0.iter().zip(&other.0).for_each(|(&a, &b)| sets.join(a, b));
        }
        Some(first.clone())
    }
}
