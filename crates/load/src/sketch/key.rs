//! Who an entity is: a value of a type in a relation of a database.

use super::digest::{Seed, digest128, hash64};

/// Values up to this many bytes are kept whole, longer ones as this long a beginning.
pub const INLINE_BYTES: usize = 48;

/// The identity of an entity. Plain data; values longer than [`INLINE_BYTES`] are told apart by
/// their length and a keyed digest of 128 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    database: u32,
    relation: u32,
    type_oid: u32,
    length: u32,
    digest: [u64; 2],
    inline: [u8; INLINE_BYTES],
}

impl Key {
    /// The key of a value, given as bytes of any form that is equal where the values are equal.
    pub fn new(seed: Seed, database: u32, relation: u32, type_oid: u32, value: &[u8]) -> Self {
        let mut inline = [0; INLINE_BYTES];
        for (to, from) in inline.iter_mut().zip(value) {
            *to = *from;
        }
        let whole = value.len() <= INLINE_BYTES;
        Key {
            database,
            relation,
            type_oid,
            length: u32::try_from(value.len()).unwrap_or(u32::MAX),
            digest: if whole {
                [0, 0]
            } else {
                digest128(seed, value)
            },
            inline,
        }
    }

    /// A hash of the key with all 64 bits usable, for [`shard_of`](super::shard_of) and for
    /// finding. Every process must use the same seed.
    pub fn hash(&self, seed: Seed) -> u64 {
        let [low, high] = self.digest;
        let prefix = [
            u64::from(self.database) << 32 | u64::from(self.relation),
            u64::from(self.type_oid) << 32 | u64::from(self.length),
            low,
            high,
        ];
        if self.is_whole() {
            hash64(seed, prefix.split_at(2).0, self.inline())
        } else {
            hash64(seed, &prefix, &[])
        }
    }

    /// The oid of the database.
    pub fn database(&self) -> u32 {
        self.database
    }

    /// The oid of the managed table or partition that the caller counts the entity for.
    pub fn relation(&self) -> u32 {
        self.relation
    }

    /// The oid of the value's type.
    pub fn type_oid(&self) -> u32 {
        self.type_oid
    }

    /// The length of the whole value, in bytes.
    pub fn length_bytes(&self) -> u32 {
        self.length
    }

    /// The value, or its first [`INLINE_BYTES`] bytes, which may end within a character.
    pub fn inline(&self) -> &[u8] {
        let length = (self.length as usize).min(INLINE_BYTES);
        self.inline.get(..length).unwrap_or(&self.inline)
    }

    /// Whether [`inline`](Self::inline) is the whole value.
    pub fn is_whole(&self) -> bool {
        self.length as usize <= INLINE_BYTES
    }

    /// The digest of a value that is not whole; zeros for one that is.
    pub fn digest(&self) -> [u64; 2] {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_with_the_same_beginning_differ() {
        let seed = [1, 2];
        let one = Key::new(seed, 5, 6, 25, &[b'x'; 100]);
        let mut value = [b'x'; 100];
        value[99] = b'y';
        let other = Key::new(seed, 5, 6, 25, &value);
        assert_ne!(one, other);
        assert_ne!(one.hash(seed), other.hash(seed));
        assert_eq!(one.inline(), other.inline());
        assert_eq!(one, Key::new(seed, 5, 6, 25, &[b'x'; 100]));
        assert!(!one.is_whole());
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let seed = [3, 4];
        let keys = [
            Key::new(seed, 1, 2, 3, b"a"),
            Key::new(seed, 9, 2, 3, b"a"),
            Key::new(seed, 1, 9, 3, b"a"),
            Key::new(seed, 1, 2, 9, b"a"),
            Key::new(seed, 1, 2, 3, b"b"),
            Key::new(seed, 1, 2, 3, b""),
            Key::new(seed, 1, 2, 3, b"a\0"),
            Key::new(seed, 1, 2, 3, &[0; 48]),
            Key::new(seed, 1, 2, 3, &[0; 49]),
        ];
        for (i, one) in keys.iter().enumerate() {
            for other in &keys[..i] {
                assert_ne!(one, other);
                assert_ne!(one.hash(seed), other.hash(seed));
            }
        }
    }
}
