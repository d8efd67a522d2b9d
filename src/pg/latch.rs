//! Waiting without being deaf to interrupts.

use pgrx::prelude::*;
use std::time::Duration;

/// Sleeps on the process latch; cancel, terminate and shutdown end it as errors.
pub fn nap(time: Duration) {
    // SAFETY: MyLatch belongs to this process; WaitLatch is made to be called like this.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            time.as_millis().min(3_600_000) as i64,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    check_interrupts();
}

/// CHECK_FOR_INTERRUPTS.
pub fn check_interrupts() {
    pgrx::check_for_interrupts!();
}
