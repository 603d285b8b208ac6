//! [`Mask`]: one bit for each element.

use crate::Element;
use crate::kernel::bits::{self, WORD};
use crate::kernel::par;
use crate::kernel::simd::vectorized;

/// Which elements of an array stay, one bit each.
///
/// ```
/// use niwaki::prune::Mask;
/// let mask = Mask::from_fn(&[2, 2], |k| k != 1);
/// assert_eq!((mask.kept(), mask.keeps(1), mask.keeps(2)), (3, false, true));
/// let mut values = [1.0f32, 2.0, 3.0, 4.0];
/// mask.apply(&mut values);
/// assert_eq!(values, [1.0, 0.0, 3.0, 4.0]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    shape: Vec<usize>,
    words: Vec<u64>,
}

impl Mask {
    /// Asks `keeps` for each flat (row-major) index, in any order and on any thread.
    pub fn from_fn(shape: &[usize], keeps: impl Fn(usize) -> bool + Sync + Send) -> Self {
        let len: usize = shape.iter().product();
        let mut words = vec![0u64; len.div_ceil(WORD)];
        par::for_chunks_mut(&mut words, par::CHUNK / WORD, |k, words| {
            for (j, word) in words.iter_mut().enumerate() {
                let start = k * par::CHUNK + j * WORD;
                for bit in 0..WORD.min(len - start) {
                    *word |= u64::from(keeps(start + bit)) << bit;
                }
            }
        });
        Self { shape: shape.to_vec(), words }
    }

    /// A mask for `values`, by chunks of [`par::CHUNK`]: for each chunk `rule` gives the function that says, value
    /// after value, which of them stay.
    pub(crate) fn from_values<A: Sync, K: FnMut(&A) -> bool>(
        shape: &[usize],
        values: &[A],
        rule: impl Fn(usize) -> K + Sync + Send,
    ) -> Self {
        let mut words = vec![0u64; values.len().div_ceil(WORD)];
        par::zip_chunks_mut(values, par::CHUNK, &mut words, par::CHUNK / WORD, |k, values, words| {
            let rule = rule(k);
            vectorized(
                #[inline(always)]
                || bits::pack(values, words, rule),
            );
        });
        Self { shape: shape.to_vec(), words }
    }

    /// The shape of the array it is for.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many elements it has bits for.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no bits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the element at this flat index stays; false past the end.
    pub fn keeps(&self, index: usize) -> bool {
        self.words.get(index / WORD).is_some_and(|word| word >> (index % WORD) & 1 == 1)
    }

    /// How many elements stay.
    pub fn kept(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Sets to 0 what does not stay.
    pub fn apply<F: Element>(&self, values: &mut [F]) {
        par::zip_chunks_mut(&self.words, par::CHUNK / WORD, values, par::CHUNK, |_, words, values| {
            let (blocks, rest) = values.as_chunks_mut::<WORD>();
            vectorized(
                #[inline(always)]
                || {
                    for (&word, block) in words.iter().zip(blocks) {
                        bits::zero_unset(word, block);
                    }
                },
            );
            let word = words.last().copied().unwrap_or_default();
            for (bit, value) in rest.iter_mut().enumerate() {
                *value = if word >> bit & 1 == 1 { *value } else { F::zero() };
            }
        });
    }

    /// The element at this flat index, which there is, goes too.
    pub(crate) fn clear(&mut self, index: usize) {
        self.words[index / WORD] &= !(1 << (index % WORD));
    }

    /// The mask of what stays of the array after some positions of an axis are kept.
    pub(crate) fn select(&self, axis: usize, kept: &[usize]) -> Self {
        let mut shape = self.shape.clone();
        let (len, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        shape[axis] = kept.len();
        let slab = kept.len() * inner;
        Self::from_fn(&shape, |k| {
            let (outer, at, rest) = (k / slab, k % slab / inner, k % inner);
            self.keeps((outer * len + kept[at]) * inner + rest)
        })
    }

    /// What stays by both masks, of one shape.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
        self
    }

    /// The bits, 64 to a word, the first lowest.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// A mask from its words; `None` when their number does not fit or bits past the end are set.
    pub(crate) fn from_words(shape: &[usize], words: Vec<u64>) -> Option<Self> {
        let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let tail = len % WORD;
        let clean = tail == 0 || words.last().is_some_and(|word| word >> tail == 0);
        (words.len() == len.div_ceil(WORD) && clean).then(|| Self { shape: shape.to_vec(), words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_indices_agree() {
        let values: Vec<f32> = (0..150_001).map(|i| ((i * 7919) % 1000) as f32).collect();
        let by_value = Mask::from_values(&[values.len()], &values, |_| |v: &f32| *v > 300.0);
        assert_eq!(by_value, Mask::from_fn(&[values.len()], |k| values[k] > 300.0));
        let mut applied = values.clone();
        by_value.apply(&mut applied);
        assert!(applied.iter().zip(&values).all(|(a, v)| *a == if *v > 300.0 { *v } else { 0.0 }));
        assert_eq!(by_value.kept(), applied.iter().filter(|v| **v != 0.0).count());
    }

    #[test]
    fn selects_along_any_axis() {
        let mask = Mask::from_fn(&[2, 3, 2], |k| k % 5 != 0);
        let cut = mask.select(1, &[0, 2]);
        assert_eq!(cut.shape(), [2, 2, 2]);
        let kept: Vec<bool> = (0..8).map(|k| cut.keeps(k)).collect();
        assert_eq!(kept, [0, 1, 4, 5, 6, 7, 10, 11].map(|k| mask.keeps(k)));
    }

    #[test]
    fn words_are_checked() {
        assert!(Mask::from_words(&[70], vec![u64::MAX, 0b11_1111]).is_some());
        assert!(Mask::from_words(&[70], vec![u64::MAX, 0b111_1111]).is_none());
        assert!(Mask::from_words(&[usize::MAX, 2], vec![0]).is_none());
    }
}
