//! Random streams: one for each layer, from the caller's seed and the layer's name.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A generator that depends on nothing but the seed and the name (FNV-1a).
pub(crate) fn stream(seed: u64, name: &str) -> StdRng {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&hash.to_le_bytes());
    StdRng::from_seed(bytes)
}
