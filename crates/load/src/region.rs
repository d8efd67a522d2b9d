//! Bytes of shared memory seen as structs: the only unsafe code of this crate.

#![allow(unsafe_code)]

use crate::sketch::{Bucket, Header, Node, Slot};
use crate::values;

/// A type whose values are any bytes, and whose bytes all mean something.
///
/// # Safety
///
/// Every bit pattern is a valid value, there is no padding, there are no pointers, and the type is
/// not zero-sized.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: two u32.
unsafe impl Plain for Bucket {}
// SAFETY: repr(C) of an f64 and two u32: 16 bytes, aligned to 8.
unsafe impl Plain for Node {}
// SAFETY: repr(C) of numbers of eight bytes, of pairs of u32, and of arrays of bytes of a multiple
// of eight, the same for any number of measures; `nothing_is_padded` in `sketch::layout` checks it.
unsafe impl<const MEASURES: usize> Plain for Slot<MEASURES> {}
// SAFETY: as for `Slot`.
unsafe impl<const MEASURES: usize> Plain for Header<MEASURES> {}
// SAFETY: repr(C) of numbers of eight bytes and pairs of u32; `nothing_is_padded` in `values`
// checks it.
unsafe impl Plain for values::Header {}
// SAFETY: as for `values::Header`.
unsafe impl Plain for values::Place {}

/// The first `count` values in these bytes, and the bytes after them. `None` if they are not
/// aligned for the type or too few.
pub(crate) fn split<T: Plain>(bytes: &[u8], count: usize) -> Option<(&[T], &[u8])> {
    let length = size_of::<T>().checked_mul(count)?;
    let (head, rest) = bytes.split_at_checked(length)?;
    let first = head.as_ptr().cast::<T>();
    if !first.is_aligned() {
        return None;
    }
    // SAFETY: `head` holds exactly `count` values, is aligned and initialised, any bytes are valid
    // values of a `Plain` type, and the borrow of `bytes` lives on in the result.
    Some((unsafe { std::slice::from_raw_parts(first, count) }, rest))
}

/// The same, to be changed.
pub(crate) fn split_mut<T: Plain>(bytes: &mut [u8], count: usize) -> Option<(&mut [T], &mut [u8])> {
    let length = size_of::<T>().checked_mul(count)?;
    let (head, rest) = bytes.split_at_mut_checked(length)?;
    let first = head.as_mut_ptr().cast::<T>();
    if !first.is_aligned() {
        return None;
    }
    // SAFETY: as in `split`; `head` is borrowed exclusively and apart from `rest`, and a `Plain`
    // type has no padding that would leave bytes uninitialised once it is written.
    Some((
        unsafe { std::slice::from_raw_parts_mut(first, count) },
        rest,
    ))
}
