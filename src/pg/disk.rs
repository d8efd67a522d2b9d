//! Room on disk.

use pgrx::prelude::*;
use std::ffi::CString;

/// Bytes free where a tablespace lies, as far as the server may use them. `None` where that is not known.
pub fn free_bytes(tablespace: &str) -> Option<u64> {
    let name = CString::new(tablespace).ok()?;
    // SAFETY: a catalog look-up; a name that is too long is no tablespace's.
    let oid = unsafe { pg_sys::get_tablespace_oid(name.as_ptr(), true) };
    // Every server process works in the data directory.
    let directory = match oid {
        pg_sys::InvalidOid => return None,
        pg_sys::DEFAULTTABLESPACE_OID => "base".to_owned(),
        other => format!("pg_tblspc/{}", other.to_u32()),
    };
    let path = CString::new(directory).ok()?;
    // SAFETY: the path is a C string and the structure is filled where the call succeeds.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut stat) == 0)
            .then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
