//! Which magnitudes are the smallest, most often in a single pass: a sample says where to look.

use crate::Element;
use crate::kernel::bits::{self, WORD};
use crate::kernel::par;
use crate::kernel::select::{self, Cut};

/// Values that are looked at to guess, and how many times as many make that worth it.
const SAMPLE: usize = 1 << 16;
const WORTH: usize = 4;

/// At most one value in this many is set apart; where the sample leaves more in doubt, it was no help.
const APART: usize = 16;

/// Bits for the values of each part that stay when the `count` smallest by magnitude go, ties by place; all values
/// are finite. Nothing when there are few values, or the sample misled: [`select::smallest`] always finds the cut.
///
/// A sample says between which two magnitudes the cut should lie. One pass keeps what is not below the lower one and
/// sets apart what is between the two; of these the smallest go, until as many are gone as should be.
pub(crate) fn without_smallest<F: Element>(parts: &[&[F]], count: usize) -> Option<Vec<Vec<u64>>> {
    let [low, high] = bracket(parts, count)?;
    let (mut below, mut between) = (0, Vec::new());
    let mut stay: Vec<Vec<u64>> = Vec::with_capacity(parts.len());
    for (part, values) in parts.iter().enumerate() {
        let mut words = Vec::with_capacity(values.len().div_ceil(WORD));
        for split in par::map_chunks(values, par::CHUNK, |_, chunk| split(chunk, low, high)) {
            let split = split?;
            below += split.below;
            between.push((part, words.len(), split.between));
            words.extend(split.words);
        }
        stay.push(words);
    }
    let rest = count.checked_sub(below)?;
    let keys: Vec<u64> = between.iter().flat_map(|(.., doubtful)| doubtful).map(|d| d.over).collect();
    if rest > keys.len() {
        return None;
    }
    let bits = u64::BITS - (high - low).leading_zeros();
    let Cut { key, mut ties } = select::smallest(&[&keys], |&over| over, bits, rest);
    for (part, start, doubtful) in between {
        let words = &mut stay[part][start..];
        for Doubtful { over, at } in doubtful {
            let tie = over == key && ties > 0;
            ties -= usize::from(tie);
            words[at / WORD] &= !(u64::from(tie || over < key) << (at % WORD));
        }
    }
    Some(stay)
}

/// Keys of two magnitudes that the cut should lie between, by every n-th value.
fn bracket<F: Element>(parts: &[&[F]], count: usize) -> Option<[u64; 2]> {
    let total: usize = parts.iter().map(|p| p.len()).sum();
    if total < WORTH * SAMPLE {
        return None;
    }
    // Odd, so that the steps do not keep to some columns of a matrix.
    let step = (total / SAMPLE) | 1;
    let picked = parts.iter().flat_map(|part| part.iter().step_by(step));
    let mut keys: Vec<u64> = picked.map(|x| x.magnitude_key()).collect();
    let at = (keys.len() as f64 * (count as f64 / total as f64)) as usize;
    // Four standard deviations of the rank of a median.
    let margin = 2 * keys.len().isqrt();
    let low = at.checked_sub(margin).map_or(0, |at| *keys.select_nth_unstable(at).1);
    let high = at + margin;
    let high =
        if high < keys.len() { *keys.select_nth_unstable(high).1 } else { F::infinity().magnitude_key() };
    Some([low, high])
}

/// A value that the sample leaves in doubt.
#[derive(Debug)]
struct Doubtful {
    /// How far its key lies over the lower one.
    over: u64,
    /// Its place in the chunk.
    at: usize,
}

/// What one chunk gives.
#[derive(Debug, Default)]
struct Split {
    /// Bits for what is not below the lower magnitude.
    words: Vec<u64>,
    below: usize,
    between: Vec<Doubtful>,
}

/// Sets apart what is from the low key to the high one; nothing where that is too much.
fn split<F: Element>(values: &[F], low: u64, high: u64) -> Option<Split> {
    const BATCH: usize = 16;
    let at_least = select::at_least_magnitude::<F>(low);
    let above = select::at_least_magnitude::<F>(high + 1);
    let mut split = Split { words: vec![0; values.len().div_ceil(WORD)], ..Split::default() };
    let mut high_words = [0; BATCH];
    let batches = split.words.chunks_mut(BATCH).zip(values.chunks(BATCH * WORD)).enumerate();
    for (batch, (words, values)) in batches {
        bits::pack(values, words, &at_least);
        bits::pack(values, &mut high_words, &above);
        for (k, (low_bits, high_bits)) in words.iter().zip(&high_words).enumerate() {
            let mut bits = low_bits & !high_bits;
            while bits != 0 {
                let at = k * WORD + bits.trailing_zeros() as usize;
                split
                    .between
                    .push(Doubtful { over: values[at].magnitude_key() - low, at: batch * BATCH * WORD + at });
                bits &= bits - 1;
            }
        }
        if split.between.len() > par::CHUNK / APART {
            return None;
        }
    }
    let stay: usize = split.words.iter().map(|word| word.count_ones() as usize).sum();
    split.below = values.len() - stay;
    Some(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether what stays is what stays by the radix selection; nothing where the sample was no help.
    fn agrees(parts: &[&[f32]], count: usize) -> Option<bool> {
        let stay = without_smallest(parts, count)?;
        let Cut { key, mut ties } = select::smallest(parts, |x| x.magnitude_key(), 31, count);
        let mut stays = |x: &f32| {
            let tie = x.magnitude_key() == key && ties > 0;
            ties -= usize::from(tie);
            x.magnitude_key() >= key && !tie
        };
        let bit = |part: usize, k: usize| stay[part][k / WORD] >> (k % WORD) & 1 == 1;
        Some((0..parts.len()).all(|p| parts[p].iter().enumerate().all(|(k, x)| bit(p, k) == stays(x))))
    }

    #[test]
    fn equals_the_radix_selection() {
        let mut state = 1u64;
        let values: Vec<f32> = (0..WORTH * SAMPLE + 1000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 40) as f32 - (1 << 23) as f32
            })
            .collect();
        // With many ties, but few to a value.
        let coarse: Vec<f32> = values.iter().map(|x| (x / 4096.0).trunc()).collect();
        let n = values.len();
        for values in [&values, &coarse] {
            for count in [0, 1, n / 10, n / 2, n - 1000, n - 1, n] {
                let parts = [&values[..70_001], &values[70_001..]];
                assert_eq!(agrees(&parts, count), Some(true), "{count}");
            }
        }
    }

    #[test]
    fn gives_up_where_the_sample_misleads() {
        let n = WORTH * SAMPLE;
        let step = (n / SAMPLE) | 1;
        let values: Vec<f32> = (0..n).map(|k| if k % step == 0 { 1e9 } else { k as f32 }).collect();
        assert_eq!(agrees(&[&values], n / 2), None);
        // One value: all are in doubt.
        assert_eq!(agrees(&[&vec![1.0; n]], n / 2), None);
        assert_eq!(agrees(&[&values[..100]], 50), None);
    }
}
