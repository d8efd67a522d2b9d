//! Numbers that look random and are the same everywhere: a hash of what they are for.

/// Mixes 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood: *Fast splittable pseudorandom
/// number generators*, OOPSLA 2014).
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number in [0, 1) that depends on three others.
pub fn uniform(seed: u64, first: u64, second: u64) -> f64 {
    let bits = mix(mix(mix(seed) ^ first) ^ second) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_evenly() {
        let mean = (0..10_000).map(|i| uniform(1, 2, i)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01);
        assert_eq!(uniform(1, 2, 3), uniform(1, 2, 3));
        assert_ne!(uniform(1, 2, 3), uniform(1, 3, 2));
    }
}
