//! Settings. Each says why its default is what it is.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::CString;

/// What the autopilot may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Autopilot {
    #[name = c"off"]
    Off,
    #[name = c"advise"]
    Advise,
    #[name = c"shadow"]
    Shadow,
    #[name = c"migrate"]
    Migrate,
}

pub static MAX_STALL_MS: GucSetting<i32> = GucSetting::<i32>::new(50);
pub static REVERT_WINDOW_S: GucSetting<i32> = GucSetting::<i32>::new(600);
pub static COPY_RATE_LIMIT_KB: GucSetting<i32> = GucSetting::<i32>::new(0);
pub static MAX_JOBS: GucSetting<i32> = GucSetting::<i32>::new(4);
pub static WAIT_TIMEOUT_S: GucSetting<i32> = GucSetting::<i32>::new(3600);
pub static MAX_ENTITIES: GucSetting<i32> = GucSetting::<i32>::new(10_000);
pub static TRACK_LOAD: GucSetting<bool> = GucSetting::<bool>::new(true);
pub static HISTORY_RETENTION_MIN: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 60);
pub static AUTOPILOT: GucSetting<Autopilot> = GucSetting::<Autopilot>::new(Autopilot::Advise);
pub static MOVE_BUDGET_MB: GucSetting<i32> = GucSetting::<i32>::new(100 * 1024);
pub static MAX_MOVES: GucSetting<i32> = GucSetting::<i32>::new(2);
pub static BUSY_PERCENT: GucSetting<i32> = GucSetting::<i32>::new(85);
pub static PREDICT_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(5 * 60_000);
pub static PREDICT_HORIZON_MIN: GucSetting<i32> = GucSetting::<i32>::new(60);
pub static PREDICT_SLOT_MS: GucSetting<i32> = GucSetting::<i32>::new(5 * 60_000);
pub static DAY_LENGTH_MS: GucSetting<i32> = GucSetting::<i32>::new(24 * 60 * 60_000);
pub static HISTORY_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(60_000);
pub static FAILPOINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

pub fn init() {
    GucRegistry::define_int_guc(
        c"shadowpart.max_stall",
        c"Longest time for which a step may hold up writers: waiting for its lock and holding it together.",
        c"Past it the step is rolled back and tried again later. The default is below what a user notices; \
          raise it where transactions that write are long and a swap finds no gap between them.",
        &MAX_STALL_MS,
        1,
        60_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"shadowpart.revert_window",
        c"How long after a swap the way back stays open; 0 means none, -1 for ever.",
        c"The old rows are kept and mirrored meanwhile: space and one more write for each write to a moved \
          entity. The default gives a person time to look at the graphs.",
        &REVERT_WINDOW_S,
        -1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"shadowpart.copy_rate_limit",
        c"Most data that one job copies or removes each second; 0 means as fast as it can.",
        c"Lower it when the disk is the bottleneck of the foreground work.",
        &COPY_RATE_LIMIT_KB,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"shadowpart.max_jobs",
        c"Most jobs at work at a time in the whole cluster.",
        c"Each takes one of max_worker_processes while it works, not while it rests. More than a few only \
          compete for the same disks.",
        &MAX_JOBS,
        1,
        super::job::shared::SLOTS as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"shadowpart.wait_timeout",
        c"Longest time a job waits for transactions older than the shadow to end; 0 means without limit.",
        c"The job then fails, says who was in the way, and takes the shadow away.",
        &WAIT_TIMEOUT_S,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"shadowpart.max_entities",
        c"Entities of the whole cluster whose load is counted one by one, in shared memory.",
        c"The others are counted together. Each takes about 0.5 kB. The default finds everybody with more than \
          a thousandth of the load with room to spare.",
        &MAX_ENTITIES,
        0,
        10_000_000,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"shadowpart.track_load",
        c"Whether reads and writes of the entities of managed tables are counted.",
        c"On by default: it costs a busy session a hundredth or two of its time at most.",
        &TRACK_LOAD,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"shadowpart.history_retention",
        c"How far the history of the load goes back; 0 means that there is none.",
        c"Minutes are kept for two days at most, five minutes for two weeks, hours for all of it. The default \
          shows a month: the same day a week ago, and whether it was always so.",
        &HISTORY_RETENTION_MIN,
        0,
        10 * 366 * 24 * 60,
        GucContext::Sighup,
        GucFlags::UNIT_MIN,
    );
    autopilot();
    if cfg!(feature = "failpoints") {
        GucRegistry::define_string_guc(
            c"shadowpart.failpoint",
            c"NAME=ACTION of a point at which a test interferes; only in test builds.",
            c"Actions: panic, error, kill, exit, sleep:MILLISECONDS.",
            &FAILPOINT,
            GucContext::Suset,
            GucFlags::NO_SHOW_ALL,
        );
    }
}

/// Settings of what is predicted and done about it.
fn autopilot() {
    GucRegistry::define_enum_guc(
        c"shadowpart.autopilot",
        c"What may be done about predicted saturation: off, advise, shadow or migrate.",
        c"advise records what would be done; shadow makes, resizes and drops shadows; migrate also swaps. The \
          default touches nothing: read shadow_decisions for a while before you trust it with more. \
          shadow_set_policy() sets it for one table. Turning it off stops at once what it has begun.",
        &AUTOPILOT,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"shadowpart.predict_interval",
        c"How often the load is predicted and the autopilot decides; 0 means never.",
        c"Forecasts are made of slots of five minutes, so more often tells little more; rules that look at the \
          present load react once a minute at the latest.",
        &PREDICT_INTERVAL_MS,
        0,
        24 * 60 * 60_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"shadowpart.predict_horizon",
        c"How far ahead saturation is predicted.",
        c"Should be twice as long as the longest move takes. On real traces an hour was predicted much better \
          than a quarter of one.",
        &PREDICT_HORIZON_MIN,
        5,
        24 * 60,
        GucContext::Sighup,
        GucFlags::UNIT_MIN,
    );
    GucRegistry::define_int_guc(
        c"shadowpart.autopilot_budget",
        c"Most data that the autopilot copies in 24 hours; -1 means any.",
        c"A bound on what a wrong prediction can cost.",
        &MOVE_BUDGET_MB,
        -1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"shadowpart.autopilot_moves",
        c"Most copies that the autopilot has under way at a time.",
        c"Below shadowpart.max_jobs, so that what a person asks for is begun at once.",
        &MAX_MOVES,
        1,
        super::job::shared::SLOTS as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"shadowpart.autopilot_busy",
        c"Per cent of CPU, or of a disk, in use from which on the autopilot begins nothing.",
        c"A copy on a machine that is busy already makes things worse before it makes them better. 100 means never.",
        &BUSY_PERCENT,
        1,
        100,
        GucContext::Sighup,
        GucFlags::default(),
    );
    // With these three a year passes in minutes: for demonstrations and tests.
    for (name, short, setting, min, max) in [
        (
            c"shadowpart.history_interval",
            c"How often the load is recorded.",
            &HISTORY_INTERVAL_MS,
            50,
            60_000,
        ),
        (
            c"shadowpart.predict_slot",
            c"Width of the slots that forecasts are made of.",
            &PREDICT_SLOT_MS,
            50,
            60 * 60_000,
        ),
        (
            c"shadowpart.day_length",
            c"Length of the day that the load is expected to repeat itself after.",
            &DAY_LENGTH_MS,
            1_000,
            24 * 60 * 60_000,
        ),
    ] {
        GucRegistry::define_int_guc(
            name,
            short,
            c"For demonstrations and tests, in which a day passes in seconds. Leave it alone elsewhere.",
            setting,
            min,
            max,
            GucContext::Sighup,
            GucFlags::UNIT_MS,
        );
    }
}

/// How many times as fast as in life the load is recorded: more than 1 in demonstrations and tests only.
pub fn haste() -> f64 {
    60_000.0 / f64::from(HISTORY_INTERVAL_MS.get().max(1))
}

/// Settings of this prefix that nobody defined are refused from here on.
pub fn reserve_prefix() {
    // SAFETY: the name is a C string literal; PostgreSQL copies it. (14 spells the function differently.)
    #[cfg(not(feature = "pg14"))]
    unsafe {
        pgrx::pg_sys::MarkGUCPrefixReserved(c"shadowpart".as_ptr())
    };
    #[cfg(feature = "pg14")]
    unsafe {
        pgrx::pg_sys::EmitWarningsOnPlaceholders(c"shadowpart".as_ptr())
    };
}
