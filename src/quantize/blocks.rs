//! Which scale belongs to which weight.

use std::ops::Range;

use crate::quantize::Scope;
use crate::{Error, Result};

/// A tensor as [outer, len, inner], cut along the middle into blocks of `size`, the last of which may be short.
/// The weight (o, a, j) has scale ((o · blocks + a / size) · inner + j) mod scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) outer: usize,
    pub(crate) len: usize,
    pub(crate) inner: usize,
    pub(crate) size: usize,
    /// How many scales there are.
    pub(crate) scales: usize,
}

/// A run of neighbours in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// All with this scale.
    One(Range<usize>, usize),
    /// The first with this scale, the next with the next.
    Each(Range<usize>, usize),
}

impl Blocks {
    /// # Errors
    /// The shape has no such axis.
    pub(crate) fn new(shape: &[usize], scope: Scope) -> Result<Self> {
        let n: usize = shape.iter().product();
        let missing = |axis: usize| {
            Error::setting(format!("scope `{scope}`: shape {shape:?} has no axis {axis} for it"))
        };
        match scope {
            Scope::Model | Scope::Tensor => {
                Ok(Self { outer: 1, len: n, inner: 1, size: n.max(1), scales: 1 })
            }
            Scope::Channel { axis } => {
                let len = *shape.get(axis).ok_or_else(|| missing(axis))?;
                let (outer, inner): (usize, usize) =
                    (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
                if inner == 1 && outer > 1 {
                    // Neighbours have neighbouring scales: one block a column.
                    return Ok(Self { outer: 1, len: outer, inner: len, size: outer, scales: len });
                }
                Ok(Self { outer: outer * len, len: inner, inner: 1, size: inner.max(1), scales: len })
            }
            Scope::Group { size, axis } => {
                let first = *shape.first().ok_or_else(|| missing(axis))?;
                let rest = shape[1..].iter().product();
                let (outer, len, inner) = match axis {
                    0 => (1, first, rest),
                    1 if shape.len() > 1 => (first, rest, 1),
                    _ => return Err(missing(axis)),
                };
                let size = size.get().min(len).max(1);
                Ok(Self { outer, len, inner, size, scales: outer * len.div_ceil(size) * inner })
            }
        }
    }

    /// The shape of the scales of a scope.
    pub(crate) fn scale_shape(self, scope: Scope) -> Vec<usize> {
        match scope {
            Scope::Group { axis: 0, .. } => vec![self.len.div_ceil(self.size), self.inner],
            Scope::Group { .. } => vec![self.outer, self.len.div_ceil(self.size)],
            _ => vec![self.scales],
        }
    }

    /// Whether each scale's weights are one run in memory, the runs in the order of the scales.
    pub(crate) fn is_contiguous(self) -> bool {
        self.inner == 1 && self.scales == self.outer * self.len.div_ceil(self.size)
    }

    /// The scale of a weight, by its flat index.
    pub(crate) fn scale_of(self, index: usize) -> usize {
        let row = self.len * self.inner;
        let block = index / row * self.len.div_ceil(self.size) + index % row / self.inner / self.size;
        (block * self.inner + index % self.inner) % self.scales
    }

    /// Calls `f` with the segments of a range of flat indices, in order.
    pub(crate) fn segments(self, range: Range<usize>, mut f: impl FnMut(Segment)) {
        let (row, blocks) = (self.len * self.inner, self.len.div_ceil(self.size));
        let mut at = range.start;
        while at < range.end {
            let (o, a, j) = (at / row, at % row / self.inner, at % self.inner);
            let block = o * blocks + a / self.size;
            if self.inner == 1 {
                let stop = o * row + ((a / self.size + 1) * self.size).min(self.len);
                let stop = stop.min(range.end);
                f(Segment::One(at..stop, block % self.scales));
                at = stop;
            } else {
                let stop = (at + self.inner - j).min(range.end);
                f(Segment::Each(at..stop, (block * self.inner + j) % self.scales));
                at = stop;
            }
        }
    }

    /// Flat indices of the weights of one scale, as runs in order.
    pub(crate) fn runs(self, scale: usize) -> impl Iterator<Item = Range<usize>> {
        let blocks = self.len.div_ceil(self.size);
        let period = self.scales / self.inner;
        let (first, j) = (scale / self.inner, scale % self.inner);
        (first..self.outer * blocks).step_by(period.max(1)).flat_map(move |block| {
            let start = block % blocks * self.size;
            let (o, stop) = (block / blocks, (start + self.size).min(self.len));
            let base = o * self.len;
            let (runs, width) = if self.inner == 1 { (1, stop - start) } else { (stop - start, 1) };
            (0..runs).map(move |k| {
                let at = (base + start + k) * self.inner + j;
                at..at + width
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::GroupSize;

    /// The scale of an index, said plainly.
    fn plain(shape: &[usize], scope: Scope, index: usize) -> usize {
        let rest: usize = shape.iter().skip(1).product();
        match scope {
            Scope::Channel { axis } => index / shape[axis + 1..].iter().product::<usize>() % shape[axis],
            Scope::Group { size, axis: 1 } => {
                index / rest * rest.div_ceil(size.get()) + index % rest / size.get()
            }
            Scope::Group { size, .. } => index / rest / size.get() * rest + index % rest,
            _ => 0,
        }
    }

    #[test]
    fn segments_and_runs_agree_with_the_plain_rule() {
        let group = |size, axis| Scope::Group { size: GroupSize::new(size).unwrap(), axis };
        let scopes = [Scope::Tensor, Scope::Channel { axis: 0 }, group(4, 0), group(3, 0), group(100, 0)];
        let more = [Scope::Channel { axis: 1 }, group(4, 1), group(3, 1), group(100, 1)];
        for shape in [&[7usize][..], &[5, 8], &[8, 5], &[4, 3, 2, 2], &[1, 9], &[9, 1]] {
            let n: usize = shape.iter().product();
            for scope in scopes.iter().chain(more.iter().filter(|_| shape.len() > 1)).copied() {
                let blocks = Blocks::new(shape, scope).unwrap();
                for range in [0..n, 2..n, 1..n - 1, 3..4] {
                    let mut seen = Vec::new();
                    blocks.segments(range.clone(), |segment| match segment {
                        Segment::One(r, k) => seen.extend(r.map(|i| (i, k))),
                        Segment::Each(r, k) => seen.extend(r.zip(k..)),
                    });
                    let expected: Vec<_> = range.map(|i| (i, plain(shape, scope, i))).collect();
                    assert_eq!(seen, expected, "{shape:?} {scope}");
                }
                assert!((0..n).all(|i| blocks.scale_of(i) == plain(shape, scope, i)), "{shape:?} {scope}");
                for scale in 0..blocks.scales {
                    let indices: Vec<usize> = blocks.runs(scale).flatten().collect();
                    let expected: Vec<usize> = (0..n).filter(|&i| plain(shape, scope, i) == scale).collect();
                    assert_eq!(indices, expected, "{shape:?} {scope} {scale}");
                }
                assert_eq!(blocks.scale_shape(scope).iter().product::<usize>(), blocks.scales);
            }
        }
    }

    #[test]
    fn axes_that_are_not_there() {
        assert!(Blocks::new(&[2, 3], Scope::Channel { axis: 2 }).is_err());
        let size = GroupSize::new(2).unwrap();
        assert!(Blocks::new(&[4], Scope::Group { size, axis: 1 }).is_err());
        assert!(Blocks::new(&[], Scope::Group { size, axis: 0 }).is_err());
        assert!(Blocks::new(&[4, 4], Scope::Group { size, axis: 2 }).is_err());
    }
}
