//! The session's side of a request: hands it to a worker through a piece of shared memory, and waits.

use super::accept::New;
use super::change::Change;
use super::{launcher, shared};
use crate::pair::wait::Waiting;
use crate::pg::error::{Error, Result};
use crate::pg::latch;
use crate::pg::sql;
use lifecycle::{Goal, State};
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What is asked of a worker.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum Request {
    New(New),
    Command {
        id: i64,
        goal: String,
        max_stall_ms: Option<i32>,
        waiter_pid: Option<i32>,
    },
    Resize(Change),
}

/// What it answers when the request is committed.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Answer {
    pub id: i64,
    pub notice: Option<String>,
    /// Entities that come to a shadow, or leave it, as the catalog has them.
    #[serde(default)]
    pub entities: Vec<String>,
}

impl Answer {
    pub fn new(id: i64, notice: Option<String>) -> Answer {
        Answer {
            id,
            notice,
            entities: Vec::new(),
        }
    }
}

/// Room for an answer, an error with all its texts included.
const ANSWER_BYTES: usize = 16 * 1024;

const PENDING: u32 = 0;
const ANSWERED: u32 = 1;

/// Head of the segment; the request follows, and then room for the answer.
#[repr(C)]
struct Head {
    status: AtomicU32,
    request_len: u32,
    answer_len: u32,
}

/// A dynamic shared memory segment with one request.
pub struct Mail {
    segment: *mut pg_sys::dsm_segment,
}

impl Mail {
    fn send(request: &Request) -> Result<Mail> {
        let text = serde_json::to_vec(request).map_err(internal)?;
        // SAFETY: the segment is as large as what is written into it.
        unsafe {
            let segment = pg_sys::dsm_create(size_of::<Head>() + text.len() + ANSWER_BYTES, 0);
            let head = pg_sys::dsm_segment_address(segment).cast::<Head>();
            head.write(Head {
                status: AtomicU32::new(PENDING),
                request_len: text.len() as u32,
                answer_len: 0,
            });
            std::ptr::copy_nonoverlapping(text.as_ptr(), head.add(1).cast::<u8>(), text.len());
            Ok(Mail { segment })
        }
    }

    /// The worker's view; `None` when the session has gone away meanwhile.
    pub fn attach(handle: u32) -> Option<Mail> {
        // SAFETY: the mapping outlives transactions: it belongs to no resource owner.
        unsafe {
            pg_sys::CurrentResourceOwner = std::ptr::null_mut();
            let segment = pg_sys::dsm_attach(handle);
            if segment.is_null() {
                return None;
            }
            pg_sys::dsm_pin_mapping(segment);
            Some(Mail { segment })
        }
    }

    fn head(&self) -> *mut Head {
        // SAFETY: the segment is mapped while `self` lives.
        unsafe { pg_sys::dsm_segment_address(self.segment).cast() }
    }

    fn bytes(&self, from: usize, len: usize) -> &[u8] {
        // SAFETY: within the segment, see `send`.
        unsafe { std::slice::from_raw_parts(self.head().add(1).cast::<u8>().add(from), len) }
    }

    pub fn request(&self) -> Result<Request> {
        // SAFETY: written before the worker was started.
        let len = unsafe { (*self.head()).request_len } as usize;
        serde_json::from_slice(self.bytes(0, len)).map_err(internal)
    }

    pub fn answer(&self, outcome: Result<Answer>) {
        let mut text = serde_json::to_vec(&outcome).unwrap_or_default();
        if text.len() > ANSWER_BYTES {
            let short = Error::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "an error too long to be passed on",
            );
            text = serde_json::to_vec(&Err::<Answer, _>(short)).unwrap_or_default();
        }
        // SAFETY: room for ANSWER_BYTES follows the request; the status is written last.
        unsafe {
            let head = self.head();
            let room = head.add(1).cast::<u8>().add((*head).request_len as usize);
            std::ptr::copy_nonoverlapping(text.as_ptr(), room, text.len());
            (*head).answer_len = text.len() as u32;
            (*head).status.store(ANSWERED, Ordering::Release);
        }
    }

    fn answered(&self) -> Option<Result<Answer>> {
        // SAFETY: the answer is complete once the status says so.
        unsafe {
            let head = &*self.head();
            if head.status.load(Ordering::Acquire) != ANSWERED {
                return None;
            }
            let text = self.bytes(head.request_len as usize, head.answer_len as usize);
            Some(
                serde_json::from_slice::<Result<Answer>>(text).unwrap_or_else(|e| Err(internal(e))),
            )
        }
    }
}

fn internal(e: serde_json::Error) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        format!("shadowpart request: {e}"),
    )
}

/// Hands a request to a worker of its own and waits until it is committed or refused.
///
/// A worker may be terminated before it has answered. What it had committed is looked for then, and the
/// request made again where there is nothing.
pub fn submit(request: &Request) -> Result<Answer> {
    for _ in 0..3 {
        if let Some(outcome) = submit_once(request)? {
            return Ok(outcome);
        }
        match request {
            Request::New(new) => {
                if let Some(id) = committed(new)? {
                    return Ok(Answer::new(id, None));
                }
            }
            Request::Resize(change) => {
                if let Some(entities) = changed(change)? {
                    return Ok(Answer {
                        entities,
                        ..Answer::new(change.id, None)
                    });
                }
            }
            Request::Command { .. } => {}
        }
    }
    Err(Error::new(
        PgSqlErrorCode::ERRCODE_OPERATOR_INTERVENTION,
        "background workers ended before they had accepted the request",
    )
    .detail("Nothing has been changed.")
    .hint("The server log says why they ended. Try again."))
}

/// The shadow that a request has made, if it has made one.
fn committed(new: &New) -> Result<Option<i64>> {
    crate::api::as_superuser(|| {
        crate::pg::xact::fresh_snapshot(|| {
            sql::value::<i64>(
                "SELECT id FROM shadowpart.shadow
                  WHERE relation = $1 AND entities IS NOT DISTINCT FROM $2 AND target = $3 AND waiter_pid = $4
                    AND created_at >= statement_timestamp()
                  ORDER BY id DESC LIMIT 1",
                &[
                    pg_sys::Oid::from(new.relation).into(),
                    new.entities.clone().into(),
                    new.target.as_str().into(),
                    new.waiter_pid.into(),
                ],
            )
        })
    })
}

/// What a request is adding or removing, or has, if it was committed.
fn changed(change: &Change) -> Result<Option<Vec<String>>> {
    crate::api::as_superuser(|| {
        crate::pg::xact::fresh_snapshot(|| {
            sql::value::<Vec<String>>(
                "SELECT coalesce(CASE WHEN $2 THEN adding ELSE removing END, $3) FROM shadowpart.shadow
                  WHERE id = $1 AND since >= statement_timestamp() AND waiter_pid IS NOT DISTINCT FROM $4",
                &[
                    change.id.into(),
                    change.add.into(),
                    change.entities.clone().into(),
                    change.waiter_pid.into(),
                ],
            )
        })
    })
}

/// `None`: the worker ended without an answer.
fn submit_once(request: &Request) -> Result<Option<Answer>> {
    let mail = Mail::send(request)?;
    // SAFETY: plain reads of this process's own state.
    let (database, pid, handle) = unsafe {
        (
            pg_sys::MyDatabaseId.to_u32(),
            pg_sys::MyProcPid,
            pg_sys::dsm_segment_handle(mail.segment),
        )
    };
    let worker = launcher::start_worker(
        "shadowpart job",
        "shadowpart_worker",
        database,
        &format!("request={handle}"),
        pid,
    );
    let Some(worker) = worker else {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "no background worker slot is free",
        )
        .detail("A shadow is built and swapped by a background worker, and all of max_worker_processes are in use.")
        .hint("Try again later, or raise max_worker_processes."));
    };
    let mut pause = Duration::from_micros(500);
    let outcome = loop {
        if let Some(outcome) = mail.answered() {
            break outcome.map(Some);
        }
        if worker.has_ended() {
            break mail
                .answered()
                .map_or(Ok(None), |outcome| outcome.map(Some));
        }
        latch::nap(pause.max(Duration::from_millis(1)));
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    // SAFETY: the mapping is not used any more.
    unsafe { pg_sys::dsm_detach(mail.segment) };
    outcome
}

/// What a session waits for.
pub enum Wanted {
    Goal(Goal),
    /// The shadow has these entities.
    Has(Vec<String>),
    /// It has none of these any more.
    HasNot(Vec<String>),
}

/// Where a shadow is, as the waiting session sees it.
struct Seen {
    state: State,
    entities: Vec<String>,
    goal: Goal,
    phase: Option<String>,
    error: Option<Error>,
    waiting: Option<String>,
}

fn look(id: i64) -> Result<Seen> {
    let rows = crate::api::as_superuser(|| {
        crate::pg::xact::fresh_snapshot(|| {
            sql::query(
                "SELECT state, goal, phase, last_error, waiting ->> 'pid', entities FROM shadowpart.shadow WHERE id = $1",
                &[id.into()],
                |row| {
                    Ok(Seen {
                        state: row
                            .get::<String>(1)?
                            .and_then(|t| t.parse().ok())
                            .unwrap_or(State::Failed),
                        goal: row
                            .get::<String>(2)?
                            .and_then(|t| t.parse().ok())
                            .unwrap_or(Goal::Failed),
                        phase: row.get::<String>(3)?,
                        error: row
                            .get::<pgrx::datum::JsonB>(4)?
                            .and_then(|json| serde_json::from_value::<Error>(json.0).ok()),
                        waiting: row.get::<String>(5)?,
                        entities: row.get::<Vec<String>>(6)?.unwrap_or_default(),
                    })
                },
            )
        })
    })?;
    rows.into_iter()
        .next()
        .ok_or_else(|| crate::pair::no_such_shadow(id))
}

/// Waits until a shadow is where it was wanted, with a NOTICE for each phase. Whoever cancels the waiting
/// cancels the job.
pub fn wait_for(id: i64, wanted: &Wanted) -> Result<()> {
    let waiting = Waiting::new(id);
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| wait_loop(id, wanted)))
        .catch_others(|error| {
            shared::cancel(id);
            error.rethrow()
        })
        .execute();
    waiting.end();
    outcome
}

fn wait_loop(id: i64, wanted: &Wanted) -> Result<()> {
    let mut shown = None;
    let mut waiting_shown = None;
    let mut pause = Duration::from_millis(2);
    loop {
        let seen = look(id)?;
        if seen.phase.is_some() && seen.phase != shown {
            if let Some(phase) = &seen.phase {
                notice!("shadow {id}: {phase}");
            }
            shown = seen.phase.clone();
            pause = Duration::from_millis(2);
        }
        if seen.waiting.is_some() && seen.waiting != waiting_shown {
            notice!(
                "shadow {id}: waits for process {}",
                seen.waiting.as_deref().unwrap_or("?")
            );
            waiting_shown = seen.waiting.clone();
        }
        if let Some(outcome) = arrived(id, wanted, &seen) {
            return outcome;
        }
        latch::nap(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// `None`: still on its way.
fn arrived(id: i64, wanted: &Wanted, seen: &Seen) -> Option<Result<()>> {
    let beyond_swap = matches!(
        seen.state,
        State::Migrated | State::Finalizing | State::Finalized
    );
    let there = match wanted {
        Wanted::Goal(Goal::Ready) => seen.state == State::Ready,
        // Beyond is as good: with no revert window it goes on by itself.
        Wanted::Goal(Goal::Migrated) => beyond_swap,
        Wanted::Goal(Goal::Finalized) => seen.state == State::Finalized,
        Wanted::Has(entities) => {
            (seen.state == State::Ready || beyond_swap)
                && entities.iter().all(|e| seen.entities.contains(e))
        }
        Wanted::HasNot(entities) => {
            (seen.state == State::Ready || beyond_swap)
                && !entities.iter().any(|e| seen.entities.contains(e))
        }
        Wanted::Goal(Goal::Dropped | Goal::Cancelled | Goal::Failed) => {
            matches!(
                seen.state,
                State::Dropped | State::Failed | State::Cancelled
            ) || seen.state == State::Ready && seen.goal == Goal::Ready
        }
    };
    if there {
        return Some(Ok(()));
    }
    let resting = lifecycle::next(seen.state, seen.goal).is_none();
    if !resting {
        return None;
    }
    let error = seen.error.clone().unwrap_or_else(|| {
        if matches!(wanted, Wanted::Has(_)) && seen.state == State::Ready {
            return Error::new(
                PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                format!("the addition to shadow {id} was cancelled"),
            )
            .detail("Somebody has called shadow_cancel(). The shadow has the entities that it had before.");
        }
        if seen.goal == Goal::Cancelled {
            return Error::new(
                PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                format!("shadow {id} was cancelled"),
            )
            .detail("Somebody has called shadow_cancel(). What had been built is taken away.");
        }
        Error::new(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("shadow {id} is {}", seen.state),
        )
        .hint("Somebody else has given it another goal.")
    });
    Some(Err(error))
}
