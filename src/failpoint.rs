//! Named points at which a test can stop, fail or kill a job. Compiled to nothing without the
//! feature `failpoints`.

/// Interferes here when `shadowpart.failpoint` says so.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::hit($name);
    };
}

/// Every point, in the order in which a migration passes them.
#[cfg(feature = "failpoints")]
pub const NAMES: &[&str] = &[
    "request-accepted",
    "begin",
    "capture-before",
    "capture-locked",
    "capture-after",
    "copy-before",
    "copy-chunk",
    "copy-after",
    "index-before",
    "index-each",
    "index-after",
    "wrap-before",
    "wrap-detached",
    "wrap-after",
    "join-before",
    "join-attached",
    "join-after",
    "catch-up-batch",
    "mirror-before",
    "mirror-locked",
    "mirror-after",
    "verify-before",
    "wait-before",
    "wait-after",
    "swap-before",
    "swap-locked",
    "swap-bounds",
    "swap-after",
    "add-before",
    "add-locked",
    "add-captured",
    "add-chunk",
    "add-catch-up",
    "add-mirror-locked",
    "add-mirrored",
    "add-waited",
    "add-after",
    "call-off",
    "remove-before",
    "remove-locked",
    "remove-begun",
    "remove-batch",
    "remove-shrunk",
    "remove-waited",
    "remove-after",
    "finalize-locked",
    "finalize-after",
    "hidden-batch",
    "hidden-after",
    "retire-before",
    "retire-after",
    "retire-dropped",
    "drop-before",
    "drop-detached",
    "drop-after",
    "unwrap-before",
    "unwrap-after",
];

#[cfg(feature = "failpoints")]
pub fn hit(name: &str) {
    use pgrx::prelude::*;
    debug_assert!(NAMES.contains(&name), "unlisted failpoint {name}");
    let Some(setting) = crate::guc::FAILPOINT.get() else {
        return;
    };
    let setting = setting.to_string_lossy().into_owned();
    let Some((wanted, action)) = setting.split_once('=') else {
        return;
    };
    if wanted != name {
        return;
    }
    log!("shadowpart: failpoint {name}: {action}");
    match action {
        // What the postmaster cannot tell from `kill -9`: it restarts the whole server.
        "kill" | "panic" => std::process::abort(),
        // SAFETY: ends this process in the ordinary way, exit callbacks included.
        "exit" => unsafe { pg_sys::proc_exit(1) },
        "error" => {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("failpoint {name}")
            );
        }
        other => {
            if let Some(ms) = other
                .strip_prefix("sleep:")
                .and_then(|ms| ms.parse::<u64>().ok())
            {
                crate::pg::latch::nap(std::time::Duration::from_millis(ms));
            }
        }
    }
}

/// How often the scheduler ticks, if a test wants it to be other than once a minute: `tick=MILLISECONDS`.
#[cfg(feature = "failpoints")]
pub fn tick_us() -> Option<i64> {
    let setting = crate::guc::FAILPOINT.get()?;
    let ms: i64 = setting.to_str().ok()?.strip_prefix("tick=")?.parse().ok()?;
    Some(ms.max(1).saturating_mul(1000))
}

#[cfg(not(feature = "failpoints"))]
pub fn tick_us() -> Option<i64> {
    None
}
