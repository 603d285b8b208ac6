//! Flags, one a byte, to bits and back.

/// Elements of one word.
pub(crate) const WORD: usize = 64;

/// 64 flags (0 or 1) as bits, the first lowest.
pub(crate) fn gather(flags: &[u8; WORD]) -> u64 {
    let (bytes, _) = flags.as_chunks::<8>();
    // The product moves flag i of eight from bit 8·i to bit 56 + i; no two meet.
    let byte = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    bytes.iter().enumerate().fold(0, |word, (k, eight)| word | byte(eight) << (8 * k))
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
    fn there_and_back() {
        for word in [0, u64::MAX, 0x8000_0000_0000_0001, 0x0123_4567_89ab_cdef, 0xdead_beef_cafe_f00d] {
            let flags = scatter(word);
            assert!((0..WORD).all(|bit| u64::from(flags[bit]) == word >> bit & 1), "{word:#x}");
            assert_eq!(gather(&flags), word);
        }
    }
}
