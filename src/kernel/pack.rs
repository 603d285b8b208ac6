//! Codes of 1 to 16 bits in a dense stream, low bits first: element i starts at bit i · b.

/// A code as it is held in memory: a byte up to 8 bits, two above.
pub(crate) trait Code: Copy + Default + Send + Sync + PartialEq {
    /// Packs codes of `bits` bits; higher bits of a code are dropped. `bytes` holds [`len`] of them.
    fn pack(codes: &[Self], bits: u32, bytes: &mut [u8]);

    /// Reads `codes.len()` codes of `bits` bits, zero-extended, from the start of `bytes`.
    fn unpack(bytes: &[u8], bits: u32, codes: &mut [Self]);
}

/// Bytes of `n` codes of `bits` bits; `None` when no memory could hold them.
pub(crate) fn len(n: usize, bits: u32) -> Option<usize> {
    let rest = (n % 8 * bits as usize).div_ceil(8);
    (n / 8).checked_mul(bits as usize)?.checked_add(rest)
}

/// Whether all bits of `bytes` behind the last of `n` codes are 0.
pub(crate) fn is_clean(bytes: &[u8], n: usize, bits: u32) -> bool {
    let used = n % 8 * bits as usize % 8;
    used == 0 || bytes.last().is_none_or(|last| last >> used == 0)
}

/// Reads codes from element `first` on.
pub(crate) fn unpack_from<C: Code>(bytes: &[u8], bits: u32, first: usize, codes: &mut [C]) {
    let (group, skip) = (first / 8, first % 8);
    let bytes = bytes.get(group * bits as usize..).unwrap_or_default();
    if skip == 0 {
        return C::unpack(bytes, bits, codes);
    }
    // The last group may have fewer bytes than eight codes take.
    let (mut group, mut eight) = ([0; 16], [C::default(); 8]);
    group.iter_mut().zip(bytes).for_each(|(own, byte)| *own = *byte);
    C::unpack(&group[..bits as usize], bits, &mut eight);
    let head = codes.len().min(8 - skip);
    let (start, rest) = codes.split_at_mut(head);
    start.copy_from_slice(&eight[skip..skip + head]);
    C::unpack(bytes.get(bits as usize..).unwrap_or_default(), bits, rest);
}

impl Code for u8 {
    fn pack(codes: &[Self], bits: u32, bytes: &mut [u8]) {
        match bits {
            1 => pack_bytes::<1>(codes, bytes),
            2 => pack_bytes::<2>(codes, bytes),
            3 => pack_bytes::<3>(codes, bytes),
            4 => pack_bytes::<4>(codes, bytes),
            5 => pack_bytes::<5>(codes, bytes),
            6 => pack_bytes::<6>(codes, bytes),
            7 => pack_bytes::<7>(codes, bytes),
            _ => bytes.iter_mut().zip(codes).for_each(|(byte, code)| *byte = *code),
        }
    }

    fn unpack(bytes: &[u8], bits: u32, codes: &mut [Self]) {
        match bits {
            1 => unpack_bytes::<1>(bytes, codes),
            2 => unpack_bytes::<2>(bytes, codes),
            3 => unpack_bytes::<3>(bytes, codes),
            4 => unpack_bytes::<4>(bytes, codes),
            5 => unpack_bytes::<5>(bytes, codes),
            6 => unpack_bytes::<6>(bytes, codes),
            7 => unpack_bytes::<7>(bytes, codes),
            _ => codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code = *byte),
        }
    }
}

impl Code for u16 {
    fn pack(codes: &[Self], bits: u32, bytes: &mut [u8]) {
        let mask = u128::MAX >> (128 - bits);
        for (eight, bytes) in codes.chunks(8).zip(bytes.chunks_mut(bits as usize)) {
            let place = |(i, &code): (usize, &u16)| (u128::from(code) & mask) << (i as u32 * bits);
            let word = eight.iter().enumerate().map(place).fold(0, |word, code| word | code);
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
    }

    fn unpack(bytes: &[u8], bits: u32, codes: &mut [Self]) {
        let mask = u128::MAX >> (128 - bits);
        for (eight, bytes) in codes.chunks_mut(8).zip(bytes.chunks(bits as usize)) {
            let mut word = [0; 16];
            word[..bytes.len()].copy_from_slice(bytes);
            let word = u128::from_le_bytes(word);
            let codes = (0..).map(|i| (word >> (i * bits) & mask) as u16);
            eight.iter_mut().zip(codes).for_each(|(code, value)| *code = value);
        }
    }
}

/// Eight codes of B bits are B bytes: a word at a time.
fn pack_bytes<const B: usize>(codes: &[u8], bytes: &mut [u8]) {
    let mask = u8::MAX >> (8 - B);
    let word = |codes: &[u8]| {
        codes.iter().enumerate().fold(0u64, |word, (i, &code)| word | u64::from(code & mask) << (i * B))
    };
    let (eights, rest) = codes.as_chunks::<8>();
    let (full, tail) = bytes.split_at_mut((eights.len() * B).min(bytes.len()));
    for (eight, out) in eights.iter().zip(full.as_chunks_mut::<B>().0) {
        out.copy_from_slice(&word(eight).to_le_bytes()[..B]);
    }
    tail.iter_mut().zip(word(rest).to_le_bytes()).for_each(|(byte, value)| *byte = value);
}

/// The inverse of [`pack_bytes`].
fn unpack_bytes<const B: usize>(bytes: &[u8], codes: &mut [u8]) {
    let mask = u64::from(u8::MAX >> (8 - B));
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let (eights, rest) = codes.as_chunks_mut::<8>();
    let (full, tail) = bytes.split_at((eights.len() * B).min(bytes.len()));
    for (eight, bytes) in eights.iter_mut().zip(full.as_chunks::<B>().0) {
        let word = word(bytes);
        for (i, code) in eight.iter_mut().enumerate() {
            *code = (word >> (i * B) & mask) as u8;
        }
    }
    let word = word(&tail[..tail.len().min(8)]);
    rest.iter_mut().enumerate().for_each(|(i, code)| *code = (word >> (i * B) & mask) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(n: usize) -> Vec<u16> {
        (0..n).map(|i| (i * 40_503 + i / 7) as u16).collect()
    }

    #[test]
    fn there_and_back() {
        for bits in 1..=16 {
            for n in [0, 1, 7, 8, 9, 15, 64, 131] {
                let mask = u16::MAX >> (16 - bits);
                let wide: Vec<u16> = codes(n).iter().map(|c| c & mask).collect();
                let mut bytes = vec![0xff; len(n, bits).unwrap()];
                u16::pack(&codes(n), bits, &mut bytes);
                assert!(is_clean(&bytes, n, bits));
                let mut back = vec![0xffff; n];
                u16::unpack(&bytes, bits, &mut back);
                assert_eq!(back, wide, "{bits} bits, {n} codes");
                if bits <= 8 {
                    let narrow: Vec<u8> = codes(n).iter().map(|&c| c as u8).collect();
                    let mut same = vec![0xff; bytes.len()];
                    u8::pack(&narrow, bits, &mut same);
                    assert_eq!(same, bytes);
                    let mut back = vec![0xff; n];
                    u8::unpack(&bytes, bits, &mut back);
                    assert!(back.iter().zip(&wide).all(|(&b, &w)| u16::from(b) == w));
                }
            }
        }
    }

    #[test]
    fn element_i_starts_at_bit_i_b() {
        let codes: Vec<u8> = (0..29).map(|i: u8| i.wrapping_mul(5) % 8).collect();
        let mut bytes = vec![0; len(29, 3).unwrap()];
        u8::pack(&codes, 3, &mut bytes);
        for (i, &code) in codes.iter().enumerate() {
            let bit = |k: usize| bytes[(i * 3 + k) / 8] >> ((i * 3 + k) % 8) & 1;
            assert_eq!(bit(0) | bit(1) << 1 | bit(2) << 2, code);
        }
    }

    #[test]
    fn reads_from_any_element() {
        let codes: Vec<u8> = (0..50).map(|i: u8| i.wrapping_mul(11) % 32).collect();
        let mut bytes = vec![0; len(50, 5).unwrap()];
        u8::pack(&codes, 5, &mut bytes);
        for first in 0..50 {
            for n in [0, 1, 5, 50 - first] {
                let mut back = vec![0; n.min(50 - first)];
                unpack_from(&bytes, 5, first, &mut back);
                assert_eq!(back, codes[first..first + back.len()]);
            }
        }
    }

    #[test]
    fn lengths_that_overflow() {
        assert_eq!(len(9, 3), Some(4));
        assert_eq!(len(usize::MAX, 16), None);
        assert!(!is_clean(&[0b10_0000], 1, 5) && is_clean(&[0b1_0000], 1, 5));
    }
}
