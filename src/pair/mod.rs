//! A pair: a primary and its shadow, with a live mirror in one direction and a swap that exchanges the
//! roles.
//!
//! Each file is one thing that is done to a pair, in the order of its life: `build` (a table like the
//! primary), `trigger` (capture and mirror), `copy`, `index`, `hierarchy` (wrap, join, leave, unwrap),
//! `catch_up`, `wait` (older transactions), `verify`, `resize` (entities come and go), `bound` and `swap`,
//! `hidden` (the rows left behind). Functions here run inside a transaction that the caller (`job`) has begun, and record in
//! the same transaction what they have done. Uses `mirror` and `planner::sight`; knows no jobs.

pub mod bound;
pub mod build;
pub mod catch_up;
pub mod copy;
pub mod dismantle;
pub mod hidden;
pub mod hierarchy;
pub mod index;
pub mod members;
pub mod resize;
pub mod swap;
pub mod trigger;
pub mod verify;
pub mod wait;

use crate::pg::error::{Error, Result};
use crate::pg::sql;
use pgrx::prelude::*;

/// A shadow as the catalog has it.
#[derive(Clone, Debug)]
pub struct Shadow {
    pub id: i64,
    pub relation: pg_sys::Oid,
    pub entity_column: String,
    /// Text forms; `None` for a whole partition.
    pub entities: Option<Vec<String>>,
    /// Entities that are coming to it.
    pub adding: Option<Vec<String>>,
    /// Entities that have left it, some of whose rows may still be in the shadow.
    pub removing: Option<Vec<String>>,
    pub target: String,
    pub state: lifecycle::State,
    pub goal: lifecycle::Goal,
    pub verify: bool,
    pub verified: bool,
    pub waited: bool,
    /// It has owned its entities once: somebody may still be reading it.
    pub reverted: bool,
    pub max_stall_ms: i32,
    pub waiter_pid: Option<i32>,
}

/// One leaf and its shadow.
#[derive(Clone, Debug)]
pub struct Pair {
    pub id: i64,
    pub primary: pg_sys::Oid,
    pub shadow: Option<pg_sys::Oid>,
    pub wrapper: Option<pg_sys::Oid>,
    /// The wrapper was made for this pair.
    pub wrapped: bool,
    pub delta: Option<pg_sys::Oid>,
    pub key_columns: Vec<String>,
    /// Text form of the value with which the side that owns nothing holds its place; `None`: NULL.
    pub reserved: Option<String>,
    pub phase: String,
    pub swapped: bool,
    pub blocks_done: i64,
    /// It is there for entities that are coming, or leaving, alone: it goes when they do not stay.
    pub tentative: bool,
}

impl Shadow {
    pub fn load(id: i64) -> Result<Shadow> {
        let rows = sql::query(
            "SELECT id, relation, entity_column::text, entities, target::text, state, goal, verify, verified,
                    waited, max_stall_ms, waiter_pid, adding, removing, reverted
               FROM shadowpart.shadow WHERE id = $1",
            &[id.into()],
            |row| {
                Ok(Shadow {
                    id,
                    relation: row.get::<pg_sys::Oid>(2)?.unwrap_or(pg_sys::InvalidOid),
                    entity_column: row.get::<String>(3)?.unwrap_or_default(),
                    entities: row.get::<Vec<String>>(4)?,
                    target: row.get::<String>(5)?.unwrap_or_default(),
                    state: word(row.get::<String>(6)?),
                    goal: word(row.get::<String>(7)?),
                    verify: row.get::<bool>(8)?.unwrap_or(true),
                    verified: row.get::<bool>(9)?.unwrap_or(false),
                    waited: row.get::<bool>(10)?.unwrap_or(false),
                    max_stall_ms: row.get::<i32>(11)?.unwrap_or(50),
                    waiter_pid: row.get::<i32>(12)?,
                    adding: row.get::<Vec<String>>(13)?,
                    removing: row.get::<Vec<String>>(14)?,
                    reverted: row.get::<bool>(15)?.unwrap_or(false),
                })
            },
        )?;
        rows.into_iter().next().ok_or_else(|| no_such_shadow(id))
    }

    pub fn pairs(&self) -> Result<Vec<Pair>> {
        sql::query(
            "SELECT id, primary_relid, shadow_relid, wrapper_relid, wrapped, delta_relid, key_columns::text[],
                    reserved, phase, swapped, blocks_done, tentative
               FROM shadowpart.pair WHERE shadow_id = $1 ORDER BY id",
            &[self.id.into()],
            |row| {
                Ok(Pair {
                    id: row.get::<i64>(1)?.unwrap_or(0),
                    primary: row.get::<pg_sys::Oid>(2)?.unwrap_or(pg_sys::InvalidOid),
                    shadow: row.get::<pg_sys::Oid>(3)?,
                    wrapper: row.get::<pg_sys::Oid>(4)?,
                    wrapped: row.get::<bool>(5)?.unwrap_or(false),
                    delta: row.get::<pg_sys::Oid>(6)?,
                    key_columns: row.get::<Vec<String>>(7)?.unwrap_or_default(),
                    reserved: row.get::<String>(8)?,
                    phase: row.get::<String>(9)?.unwrap_or_default(),
                    swapped: row.get::<bool>(10)?.unwrap_or(false),
                    blocks_done: row.get::<i64>(11)?.unwrap_or(0),
                    tentative: row.get::<bool>(12)?.unwrap_or(false),
                })
            },
        )
    }

    /// The same shadow as if it were for these entities.
    pub fn of(&self, entities: Vec<String>) -> Shadow {
        Shadow {
            entities: Some(entities),
            ..self.clone()
        }
    }

    /// Why this shadow may not be trusted, if it may not.
    pub fn stale_reason(&self) -> Result<Option<String>> {
        sql::value::<String>(
            "SELECT t.reason FROM shadowpart.stale t JOIN shadowpart.pair p ON p.id = t.pair_id
              WHERE p.shadow_id = $1 LIMIT 1",
            &[self.id.into()],
        )
    }
}

impl Pair {
    /// The shadow relation, which exists from the capture phase on.
    pub fn shadow(&self) -> Result<pg_sys::Oid> {
        self.shadow
            .ok_or_else(|| missing("shadow relation", self.id))
    }

    pub fn wrapper(&self) -> Result<pg_sys::Oid> {
        self.wrapper.ok_or_else(|| missing("wrapper", self.id))
    }

    pub fn delta(&self) -> Result<pg_sys::Oid> {
        self.delta.ok_or_else(|| missing("delta table", self.id))
    }

    /// Both sides hold the rows of the shadow's entities in every snapshot, whatever else goes on.
    pub fn is_mirrored(&self) -> bool {
        self.phase == "mirror" || self.is_growing() || self.is_shrinking()
    }

    /// Entities are coming to it.
    pub fn is_growing(&self) -> bool {
        matches!(self.phase.as_str(), "add" | "add-copy" | "add-catch-up")
    }

    /// Entities are leaving it.
    pub fn is_shrinking(&self) -> bool {
        matches!(self.phase.as_str(), "remove" | "remove-rows")
    }

    /// Records that the pair has come to a phase.
    pub fn enter(&self, phase: &str) -> Result<()> {
        sql::execute(
            "UPDATE shadowpart.pair SET phase = $2, phase_since = clock_timestamp() WHERE id = $1",
            &[self.id.into(), phase.into()],
        )?;
        Ok(())
    }
}

fn missing(what: &str, pair: i64) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("pair {pair} has no {what} yet"),
    )
}

pub fn no_such_shadow(id: i64) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("shadow {id} does not exist"),
    )
    .detail("No shadow of this database has, or had, this id.")
    .hint("SELECT id, relation, state FROM shadow_status lists the shadows.")
}

fn word<T: std::str::FromStr>(text: Option<String>) -> T
where
    T::Err: std::fmt::Display,
{
    let text = text.unwrap_or_default();
    text.parse()
        .unwrap_or_else(|e| error!("shadowpart catalog: {e}"))
}

/// Runs `work` as the owner of a relation, as index builds and VACUUM do: functions in index
/// expressions are the owner's code, not the superuser's.
pub fn as_owner<T>(relid: pg_sys::Oid, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let owner = sql::value::<pg_sys::Oid>(
        "SELECT relowner FROM pg_catalog.pg_class WHERE oid = $1",
        &[relid.into()],
    )?
    .unwrap_or(pg_sys::InvalidOid);
    // SAFETY: set back on both ways out; an error that unwinds aborts the transaction, which sets the
    // user back too.
    unsafe {
        let mut user = pg_sys::InvalidOid;
        let mut context = 0;
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(
            owner,
            context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32,
        );
        let outcome = work();
        pg_sys::SetUserIdAndSecContext(user, context);
        outcome
    }
}
