//! Values of entity columns as keys, and back as text.

use super::managed::Managed;
use super::memory;
use load::sketch::Key;
use pgrx::pg_sys;

mod c {
    use pgrx::pg_sys::*;
    unsafe extern "C-unwind" {
        pub fn pg_detoast_datum_packed(value: *mut varlena) -> *mut varlena;
        pub fn DirectFunctionCall1Coll(
            function: PGFunction,
            collation: Oid,
            argument: Datum,
        ) -> Datum;
        pub fn numeric_trim_scale(call: FunctionCallInfo) -> Datum;
    }
}

/// The key of a value that is not NULL. `None` where nothing is counted.
///
/// Values that are equal have the same key, with two exceptions that show as entities of their own: other
/// spellings under a nondeterministic collation, and types whose equal values have several forms (other
/// than numeric and char(n), which are brought to one).
///
/// # Safety
/// The datum is of the entity column's type.
pub unsafe fn key(managed: &Managed, value: pg_sys::Datum) -> Option<Key> {
    // SAFETY: the length of fixed types comes from the catalog, that of others from the value.
    unsafe {
        let seed = memory::seed()?;
        let (length, by_value) = (managed.length, managed.by_value);
        let with = |bytes: &[u8]| {
            Key::new(
                seed,
                pg_sys::MyDatabaseId.to_u32(),
                managed.root.to_u32(),
                managed.typid.to_u32(),
                bytes,
            )
        };
        if by_value {
            return Some(with(&(value.value() as u64).to_ne_bytes()));
        }
        if length > 0 {
            let bytes = std::slice::from_raw_parts(value.cast_mut_ptr::<u8>(), length as usize);
            return Some(held(with(bytes), bytes));
        }
        if length != -1 {
            return None;
        }
        let value = if managed.typid == pg_sys::NUMERICOID {
            c::DirectFunctionCall1Coll(Some(c::numeric_trim_scale), pg_sys::InvalidOid, value)
        } else {
            value
        };
        let plain = c::pg_detoast_datum_packed(value.cast_mut_ptr());
        let start = pgrx::varlena::vardata_any(plain).cast::<u8>();
        let mut bytes = std::slice::from_raw_parts(start, pgrx::varlena::varsize_any_exhdr(plain));
        if managed.typid == pg_sys::BPCHAROID {
            bytes = bytes.trim_ascii_end();
        }
        let key = held(with(bytes), bytes);
        if plain.cast::<u8>() != value.cast_mut_ptr::<u8>() {
            pg_sys::pfree(plain.cast());
        }
        Some(key)
    }
}

/// A key, whose value is held beside it if it is long.
fn held(key: Key, bytes: &[u8]) -> Key {
    if !key.is_whole() {
        memory::hold_value(&key, bytes);
    }
    key
}

/// The value as its type's output function writes it in this session. Of one that is too long to be held
/// the beginning.
pub fn text(key: &Key) -> String {
    let typid = pg_sys::Oid::from(key.type_oid());
    let long;
    let bytes = if key.is_whole() {
        key.inline()
    } else if let Some(held) = memory::held_value(key) {
        long = held;
        &long[..]
    } else {
        let digest = format!("{:016x}", key.digest()[0]);
        return if is_text(typid) {
            let beginning = String::from_utf8_lossy(key.inline());
            format!("{}...#{digest}", beginning.trim_end_matches('\u{fffd}'))
        } else {
            format!("#{digest}")
        };
    };
    // SAFETY: the bytes came from a value of this type; the type is looked up, since it may be gone.
    unsafe { output(typid, bytes) }.unwrap_or_else(|| "?".to_owned())
}

unsafe fn output(typid: pg_sys::Oid, bytes: &[u8]) -> Option<String> {
    // SAFETY: a value is made of the bytes as `key` took it apart.
    unsafe {
        if !pg_sys::get_typisdefined(typid) {
            return None;
        }
        let mut output = pg_sys::InvalidOid;
        let mut is_varlena = false;
        pg_sys::getTypeOutputInfo(typid, &mut output, &mut is_varlena);
        let mut length = 0;
        let mut by_value = false;
        pg_sys::get_typlenbyval(typid, &mut length, &mut by_value);
        let datum = if by_value {
            pg_sys::Datum::from(u64::from_ne_bytes(bytes.try_into().ok()?))
        } else if length > 0 {
            if bytes.len() != length as usize {
                return None;
            }
            let copy = pg_sys::palloc(length as usize).cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, length as usize);
            pg_sys::Datum::from(copy)
        } else {
            let value = pg_sys::palloc(bytes.len() + pg_sys::VARHDRSZ).cast::<pg_sys::varlena>();
            pgrx::varlena::set_varsize_4b(value, (bytes.len() + pg_sys::VARHDRSZ) as i32);
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                value.cast::<u8>().add(pg_sys::VARHDRSZ),
                bytes.len(),
            );
            pg_sys::Datum::from(value)
        };
        let text = pg_sys::OidOutputFunctionCall(output, datum);
        Some(
            std::ffi::CStr::from_ptr(text)
                .to_string_lossy()
                .into_owned(),
        )
    }
}

/// Stands for all statements and rows of a partition that name no entity, or that belong to none.
pub fn many(relid: pg_sys::Oid) -> Option<Key> {
    special(relid, MANY)
}

/// Stands for everything that is done in a partition.
pub fn total(relid: pg_sys::Oid) -> Option<Key> {
    special(relid, TOTAL)
}

const MANY: &[u8] = b"many";
const TOTAL: &[u8] = b"total";

fn special(relid: pg_sys::Oid, what: &[u8]) -> Option<Key> {
    let seed = memory::seed()?;
    // SAFETY: set once, when the process connects.
    let database = unsafe { pg_sys::MyDatabaseId.to_u32() };
    Some(Key::new(seed, database, relid.to_u32(), 0, what))
}

/// What a key stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Entity,
    Many,
    Total,
}

pub fn kind(key: &Key) -> Kind {
    match key.inline() {
        _ if key.type_oid() != 0 => Kind::Entity,
        MANY => Kind::Many,
        _ => Kind::Total,
    }
}

fn is_text(typid: pg_sys::Oid) -> bool {
    [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID].contains(&typid)
}
