//! Which of many scores are the smallest: exact, in constant extra memory, without sorting.

use crate::Element;
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

/// Tables that a pass counts in by turns, so that equal neighbours do not wait for each other's increment.
const TABLES: usize = 4;

/// Keys that share the digits found so far are set apart once they are at most one in this many.
const APART: usize = 8;

/// Finds the cut for the `count` smallest keys of all `parts`. Keys have `bits` significant bits.
///
/// A radix selection: a pass counts the next digit of the keys that share the digits found so far, and so finds the
/// one bucket in which the cut lies. Once few keys share them these are copied, and the rest of the search reads
/// only the copy. It ends as soon as a bucket has to go whole.
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
        if shift > 0 && histogram[bucket] <= total / APART {
            let apart = set_apart(parts, &key, prefix, shift);
            let parts: Vec<&[u64]> = apart.iter().map(Vec::as_slice).collect();
            let Cut { key, ties } = among(&parts, shift, rest);
            return Cut { key: (prefix << shift) + key, ties };
        }
    }
    Cut { key: prefix, ties: rest }
}

/// How many keys equal the cut in each [`par::CHUNK`] of each part; nothing where no ties are to be told apart.
/// `from` gives the test for what has at least this key.
pub(crate) fn tied<A: Sync, K: Fn(&A) -> bool>(
    parts: &[&[A]],
    Cut { key, ties }: Cut,
    from: impl Fn(u64) -> K + Sync + Send,
) -> Vec<usize> {
    let count = |_, chunk: &[A]| {
        let (all, above) = (from(key), from(key + 1));
        // A chunk has few elements: 32 bits count them, and are summed in vector code.
        chunk.iter().map(|x| u32::from(all(x)) - u32::from(above(x))).sum::<u32>() as usize
    };
    let parts = if ties == 0 { &[] } else { parts };
    parts.iter().flat_map(|part| par::map_chunks(part, par::CHUNK, count)).collect()
}

/// Whether a finite number's magnitude has at least this key: they order alike, and comparing floats is vector code.
pub(crate) fn at_least_magnitude<F: Element>(key: u64) -> impl Fn(&F) -> bool {
    let least: F = magnitude(key);
    move |x| x.abs() >= least
}

/// The magnitude that has this key; infinity for a key beyond all magnitudes.
pub(crate) fn magnitude<F: Element>(key: u64) -> F {
    if key >> F::MAGNITUDE_BITS == 0 { F::read_le(&key.to_le_bytes()[..F::BYTES]) } else { F::infinity() }
}

/// [`smallest`] of plain keys.
fn among(parts: &[&[u64]], bits: u32, count: usize) -> Cut {
    smallest(parts, |&key| key, bits, count)
}

/// The bits below `shift` of the keys whose higher bits equal `prefix`.
fn set_apart<A: Sync>(
    parts: &[&[A]],
    key: &(impl Fn(&A) -> u64 + Sync + Send),
    prefix: u64,
    shift: u32,
) -> Vec<Vec<u64>> {
    const BLOCK: usize = 64;
    let low = (1u64 << shift) - 1;
    let mut apart = Vec::new();
    for part in parts {
        apart.extend(par::map_chunks(part, par::CHUNK * 16, |_, chunk| {
            let mut found = Vec::new();
            for block in chunk.chunks(BLOCK) {
                // Each is written and few are counted: no branch that could be guessed wrong.
                let (mut keys, mut n) = ([0; BLOCK], 0);
                for item in block {
                    let key = key(item);
                    keys[n % BLOCK] = key & low;
                    n += usize::from(key >> shift == prefix);
                }
                found.extend_from_slice(&keys[..n]);
            }
            found
        }));
    }
    apart
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
        let counts = par::map_chunks(part, par::CHUNK * 16, |_, chunk| {
            let mut tables = vec![[0u32; TABLES]; mask + 1];
            let mut count = |item: &A, at: usize| {
                let digits = key(item) >> shift;
                // A key of another bucket adds nothing, wherever that falls.
                tables[digits as usize & mask][at] += u32::from(digits >> width == prefix);
            };
            let (quads, rest) = chunk.as_chunks::<TABLES>();
            for quad in quads {
                for (at, item) in quad.iter().enumerate() {
                    count(item, at);
                }
            }
            for item in rest {
                count(item, 0);
            }
            tables
        });
        for table in &counts {
            for (sum, n) in total.iter_mut().zip(table) {
                *sum += n.iter().map(|&n| n as usize).sum::<usize>();
            }
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
        for range in [1, 3, 100, 1 << 13, 1 << 40] {
            let keys: Vec<u64> = (0..500)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 20) % range
                })
                .collect();
            for count in [0, 1, 7, 250, 499, 500] {
                for bits in [44, 53, 64] {
                    let cut = smallest(&[&keys[..123], &keys[123..]], |&k| k, bits, count);
                    assert_eq!(by_cut(&keys, cut), by_sorting(&keys, count), "{range} {count} {bits}");
                }
            }
        }
    }
}
