//! PostgreSQL's lists, without the guard that pgrx puts around every call.

use pgrx::pg_sys;

/// Number of elements; NIL has none.
pub unsafe fn length(list: *const pg_sys::List) -> usize {
    // SAFETY: the caller passes NIL or a list.
    unsafe {
        if list.is_null() {
            0
        } else {
            (*list).length as usize
        }
    }
}

/// Element `i`, counted from 0, of a list of pointers.
pub unsafe fn nth<T>(list: *const pg_sys::List, i: usize) -> *mut T {
    // SAFETY: the caller keeps i below the length.
    unsafe { (*(*list).elements.add(i)).ptr_value.cast() }
}
