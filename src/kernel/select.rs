//! Which of many scores are the smallest: exact, in constant extra memory, without sorting.

use crate::kernel::par;

/// The cut below which exactly `count` keys lie, ties broken by index: keys smaller than `key` go, and so do the
/// first `ties` (by index) of those equal to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) key: u64,
    pub(crate) ties: usize,
}

impl Cut {
    /// Nothing goes.
    pub(crate) const NONE: Self = Self { key: 0, ties: 0 };
}

/// Bits of the key that one pass over the data settles.
const DIGIT: u32 = 12;

/// Finds the cut for the `count` smallest keys of all `parts`. Keys have `bits` significant bits.
///
/// A radix selection: each pass counts the next digit of the keys that share the digits found so far. The first
/// pass sees everything, the later ones only what fell into one bucket, but they all read the data once. Passes
/// end as soon as a bucket has to go whole.
pub(crate) fn smallest<A: Sync>(
    parts: &[&[A]],
    key: impl Fn(&A) -> u64 + Sync + Send,
    bits: u32,
    count: usize,
) -> Cut {
    let total: usize = parts.iter().map(|p| p.len()).sum();
    if count == 0 {
        return Cut::NONE;
    }
    if count >= total {
        return Cut { key: u64::MAX, ties: 0 };
    }
    let (mut prefix, mut shift, mut rest) = (0u64, bits, count);
    while shift > 0 {
        let width = DIGIT.min(shift);
        shift -= width;
        let histogram = count_digits(parts, &key, prefix, shift, width);
        let mut bucket = 0;
        while rest > histogram[bucket] {
            rest -= histogram[bucket];
            bucket += 1;
        }
        prefix = (prefix << width) | bucket as u64;
        if rest == histogram[bucket] {
            // The whole bucket goes: the cut is at the first key of the next one.
            return Cut { key: (prefix + 1) << shift, ties: 0 };
        }
    }
    Cut { key: prefix, ties: rest }
}

/// How often each digit (`width` bits above `shift`) occurs among keys whose higher bits equal `prefix`.
fn count_digits<A: Sync>(
    parts: &[&[A]],
    key: &(impl Fn(&A) -> u64 + Sync + Send),
    prefix: u64,
    shift: u32,
    width: u32,
) -> Vec<usize> {
    let mask = (1usize << width) - 1;
    let mut total = vec![0usize; mask + 1];
    for part in parts {
        // Four tables, so that equal neighbours do not wait for each other's increment.
        let counts = par::map_chunks(part, par::CHUNK * 16, |_, chunk| {
            let mut tables = vec![[0u32; 4]; mask + 1];
            let mut at = 0;
            for item in chunk {
                let digits = key(item) >> shift;
                if digits >> width == prefix {
                    tables[digits as usize & mask][at] += 1;
                    at = (at + 1) & 3;
                }
            }
            tables
        });
        for table in &counts {
            total
                .iter_mut()
                .zip(table)
                .for_each(|(sum, n)| *sum += n.iter().map(|&n| n as usize).sum::<usize>());
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_sorting(keys: &[u64], count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|&i| (keys[i], i));
        order.truncate(count);
        order.sort_unstable();
        order
    }

    fn by_cut(keys: &[u64], cut: Cut) -> Vec<usize> {
        let mut ties = cut.ties;
        let goes = |&k: &u64| {
            k < cut.key
                || (k == cut.key && ties > 0 && {
                    ties -= 1;
                    true
                })
        };
        let flags: Vec<bool> = keys.iter().map(goes).collect();
        (0..keys.len()).filter(|&i| flags[i]).collect()
    }

    #[test]
    fn equals_sorting() {
        let mut state = 1u64;
        for range in [3, 100, 1 << 40] {
            let keys: Vec<u64> = (0..500)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 20) % range
                })
                .collect();
            for count in [0, 1, 7, 250, 499, 500] {
                let cut = smallest(&[&keys[..123], &keys[123..]], |&k| k, 44, count);
                assert_eq!(by_cut(&keys, cut), by_sorting(&keys, count), "{range} {count}");
            }
        }
    }
}
