//! Flags, one a byte, to bits and back.

use crate::Element;

/// Elements of one word.
pub(crate) const WORD: usize = 64;

/// One bit for each value, by what `flag` says of one after another.
#[inline]
pub(crate) fn pack<A>(values: &[A], words: &mut [u64], mut flag: impl FnMut(&A) -> bool) {
    // Many flags at a time: read back at once, they would have to wait for their own way to the cache.
    const BATCH: usize = 16;
    let mut flags = [0; BATCH * WORD];
    for (values, words) in values.chunks(BATCH * WORD).zip(words.chunks_mut(BATCH)) {
        flags[values.len()..].fill(0);
        flags.iter_mut().zip(values).for_each(|(to, value)| *to = u8::from(flag(value)));
        words.iter_mut().zip(flags.as_chunks().0).for_each(|(word, flags)| *word = gather(flags));
    }
}

/// 64 flags (0 or 1) as bits, the first lowest.
#[inline]
pub(crate) fn gather(flags: &[u8; WORD]) -> u64 {
    let (bytes, _) = flags.as_chunks::<8>();
    // The product moves flag i of eight from bit 8·i to bit 56 + i; no two meet.
    let byte = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    bytes.iter().enumerate().fold(0, |word, (k, eight)| word | byte(eight) << (8 * k))
}

/// Zeroes the values whose bit is not set.
#[inline]
pub(crate) fn zero_unset<F: Element>(word: u64, values: &mut [F; WORD]) {
    const LANES: usize = 16;
    let (groups, _) = values.as_chunks_mut::<LANES>();
    for (k, group) in groups.iter_mut().enumerate() {
        // The bits stay where they are and each lane tests its own: vector code without a shuffle.
        let bits = (word >> (LANES * k)) as u32;
        for (lane, value) in group.iter_mut().enumerate() {
            *value = if bits & 1 << lane == 0 { F::zero() } else { *value };
        }
    }
}

/// The inverse of [`gather`].
pub(crate) fn scatter(word: u64) -> [u8; WORD] {
    let mut flags = [0; WORD];
    let (bytes, _) = flags.as_chunks_mut::<8>();
    for (k, eight) in bytes.iter_mut().enumerate() {
        // Eight copies of the byte, of copy i only bit i kept, and moved to the lowest place.
        let copies = (word >> (8 * k) & 0xff).wrapping_mul(0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
        *eight = ((copies.wrapping_add(0x7f7f_7f7f_7f7f_7f7f) | copies) >> 7 & 0x0101_0101_0101_0101)
            .to_le_bytes();
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_any_length() {
        for len in [0, 1, 63, 64, 65, 1023, 1024, 1025, 3000] {
            let values: Vec<u32> = (0..len as u32).map(|k| k.wrapping_mul(2_654_435_761) >> 7).collect();
            let mut words = vec![u64::MAX; values.len().div_ceil(WORD)];
            pack(&values, &mut words, |v| v % 3 == 0);
            let bit = |k: usize| words[k / WORD] >> (k % WORD) & 1 == 1;
            assert!((0..words.len() * WORD).all(|k| bit(k) == values.get(k).is_some_and(|v| v % 3 == 0)));
        }
    }

    #[test]
    fn there_and_back() {
        for word in [0, u64::MAX, 0x8000_0000_0000_0001, 0x0123_4567_89ab_cdef, 0xdead_beef_cafe_f00d] {
            let flags = scatter(word);
            assert!((0..WORD).all(|bit| u64::from(flags[bit]) == word >> bit & 1), "{word:#x}");
            assert_eq!(gather(&flags), word);
            let mut values = [3.0f32; WORD];
            zero_unset(word, &mut values);
            assert!(
                (0..WORD).all(|bit| values[bit].to_bits() == (3.0 * f32::from(flags[bit])).to_bits()),
                "{word:#x}"
            );
        }
    }
}
