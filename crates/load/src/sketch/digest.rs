//! SipHash (Aumasson, Bernstein: *SipHash: a fast short-input PRF*, INDOCRYPT 2012), 64 and 128
//! bits. Keyed, so that nobody who may choose entity values can choose collisions.

/// The key of the hash: two random words, the same in all processes of a server.
pub type Seed = [u64; 2];

struct State([u64; 4]);

impl State {
    fn new(seed: Seed) -> Self {
        let [k0, k1] = seed;
        State([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    fn rounds(&mut self, count: usize) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        for _ in 0..count {
            v0 = v0.wrapping_add(v1);
            v1 = v1.rotate_left(13) ^ v0;
            v0 = v0.rotate_left(32);
            v2 = v2.wrapping_add(v3);
            v3 = v3.rotate_left(16) ^ v2;
            v0 = v0.wrapping_add(v3);
            v3 = v3.rotate_left(21) ^ v0;
            v2 = v2.wrapping_add(v1);
            v1 = v1.rotate_left(17) ^ v2;
            v2 = v2.rotate_left(32);
        }
        self.0 = [v0, v1, v2, v3];
    }

    fn mix(&mut self, word: u64, rounds: usize) {
        self.0[3] ^= word;
        self.rounds(rounds);
        self.0[0] ^= word;
    }

    fn mix_all(&mut self, prefix: &[u64], bytes: &[u8], rounds: usize) {
        for word in prefix {
            self.mix(*word, rounds);
        }
        let mut words = bytes.chunks_exact(8);
        for chunk in &mut words {
            self.mix(little_endian(chunk), rounds);
        }
        let length = prefix.len().wrapping_mul(8).wrapping_add(bytes.len()) as u64;
        self.mix(length << 56 | little_endian(words.remainder()), rounds);
    }

    fn folded(&self) -> u64 {
        let [v0, v1, v2, v3] = self.0;
        v0 ^ v1 ^ v2 ^ v3
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

/// SipHash-1-3 of the words followed by the bytes: quick, for finding.
pub(super) fn hash64(seed: Seed, prefix: &[u64], bytes: &[u8]) -> u64 {
    let mut state = State::new(seed);
    state.mix_all(prefix, bytes, 1);
    state.0[2] ^= 0xff;
    state.rounds(3);
    state.folded()
}

/// SipHash-2-4 with 128 bits of output: for telling values apart that are not kept whole. Two of
/// a million different values are equal in it with probability below 2e-27.
pub(super) fn digest128(seed: Seed, bytes: &[u8]) -> [u64; 2] {
    let mut state = State::new(seed);
    state.0[1] ^= 0xee;
    state.mix_all(&[], bytes, 2);
    state.0[2] ^= 0xee;
    state.rounds(4);
    let low = state.folded();
    state.0[1] ^= 0xdd;
    state.rounds(4);
    [low, state.folded()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hasher;

    fn hex(words: [u64; 2]) -> String {
        words
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    /// Vectors of the reference implementation (as OpenSSL computes them): key 00..0f, input 00..(length - 1).
    #[test]
    fn digests_are_those_of_the_reference() {
        let seed = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let input: Vec<u8> = (0..64).collect();
        assert_eq!(
            hex(digest128(seed, &[])),
            "a3817f04ba25a8e66df67214c7550293"
        );
        assert_eq!(
            hex(digest128(seed, &input[..1])),
            "da87c1d86b99af44347659119b22fc45"
        );
        assert_eq!(
            hex(digest128(seed, &input[..63])),
            "5150d1772f50834a503e069a973fbd7c"
        );
    }

    /// The standard library's hasher is SipHash-1-3 with a key of zeros.
    #[test]
    fn hashes_are_those_of_the_standard_library() {
        let input: Vec<u8> = (0..100u8).map(|n| n.wrapping_mul(7)).collect();
        for length in 0..100 {
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            hasher.write(&input[..length]);
            assert_eq!(hash64([0, 0], &[], &input[..length]), hasher.finish());
        }
        let words = [little_endian(&input[..8]), little_endian(&input[8..16])];
        assert_eq!(
            hash64([1, 2], &words, &input[16..33]),
            hash64([1, 2], &[], &input[..33])
        );
    }
}
