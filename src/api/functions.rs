//! The functions that change something.

use super::{as_superuser, checks, require_preload};
use crate::guc;
use crate::job::accept::New;
use crate::job::change::Change;
use crate::job::request::{self, Request, Wanted};
use crate::job::shared;
use crate::pair::Shadow;
use crate::pg::error::{Error, Result, or_raise};
use crate::pg::sql;
use lifecycle::{Goal, State};
use pgrx::AnyElement;
use pgrx::datum::Interval;
use pgrx::prelude::*;

/// One value as a list of one, an array as the list of its elements, in text form.
#[pg_extern(sql = false)]
fn entities_of(entity: Option<AnyElement>) -> Vec<Option<String>> {
    let Some(entity) = entity else {
        return vec![None];
    };
    // SAFETY: the type's own output function; arrays are taken apart by their element type.
    unsafe {
        let typid = pg_sys::getBaseType(entity.oid());
        let element = pg_sys::get_element_type(typid);
        let output = |typid: pg_sys::Oid, datum: pg_sys::Datum| {
            let mut function = pg_sys::InvalidOid;
            let mut is_varlena = false;
            pg_sys::getTypeOutputInfo(typid, &mut function, &mut is_varlena);
            let text = pg_sys::OidOutputFunctionCall(function, datum);
            Some(
                std::ffi::CStr::from_ptr(text)
                    .to_string_lossy()
                    .into_owned(),
            )
        };
        if element == pg_sys::InvalidOid {
            return vec![output(typid, entity.datum())];
        }
        let (mut len, mut byval, mut align) = (0, false, 0);
        pg_sys::get_typlenbyvalalign(element, &mut len, &mut byval, &mut align);
        let mut values = std::ptr::null_mut();
        let mut nulls = std::ptr::null_mut();
        let mut count = 0;
        let array = pg_sys::pg_detoast_datum(entity.datum().cast_mut_ptr());
        pg_sys::deconstruct_array(
            array.cast(),
            element,
            i32::from(len),
            byval,
            align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        (0..count as usize)
            .map(|i| {
                if *nulls.add(i) {
                    None
                } else {
                    output(element, *values.add(i))
                }
            })
            .collect()
    }
}

/// Seconds of an interval, or an error.
fn seconds(interval: &Interval, what: &str) -> Result<f64> {
    let text = sql::value::<f64>(
        "SELECT CASE WHEN $1 > interval '100 years' THEN -1 ELSE extract(epoch FROM $1)::float8 END",
        &[(*interval).into()],
    )?
    .unwrap_or(0.0);
    if text < 0.0 && text != -1.0 {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("{what} must not be negative"),
        )
        .detail(format!("It is {text} s."))
        .hint("Give an interval such as '50 ms' or '10 min'."));
    }
    Ok(text)
}

fn stall_ms(max_stall: Option<&Interval>) -> Result<Option<i32>> {
    max_stall
        .map(|interval| {
            let ms = seconds(interval, "max_stall")? * 1000.0;
            if !(1.0..=60_000.0).contains(&ms) {
                return Err(Error::new(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    "max_stall must be between 1 ms and 1 minute",
                )
                .detail(format!("It is {ms} ms."))
                .hint(
                    "It bounds how long writers may be held up; some ten milliseconds are usual.",
                ));
            }
            Ok(ms as i32)
        })
        .transpose()
}

#[allow(clippy::too_many_arguments)]
#[pg_extern(sql = false)]
fn request(
    command: &str,
    relation: Option<pg_sys::Oid>,
    entities: Option<Vec<Option<String>>>,
    whole_partition: Option<bool>,
    tablespace: Option<String>,
    server: Option<String>,
    max_stall: Option<Interval>,
    verify: Option<bool>,
    revert_window: Option<Interval>,
    wait: Option<bool>,
) -> i64 {
    let migrate = command == "migrate";
    let wait = wait.unwrap_or(true);
    let new = or_raise((|| {
        require_preload()?;
        checks::transaction(None)?;
        checks::no_server(server.as_deref())?;
        let relid = relation.ok_or_else(|| {
            Error::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "relation must not be NULL",
            )
            .detail("There is no table to work on.")
            .hint("Give the name of a managed table.")
        })?;
        let table = checks::table(relid)?;
        checks::owner(&table)?;
        let (root, column) = as_superuser(|| checks::managed(&table))?;
        let root_table = checks::table(root)?;
        checks::owner(&root_table)?;
        checks::transaction(Some(root))?;
        let (leaf, entities) = scope(&table, root, &column, entities, whole_partition)?;
        let target = checks::tablespace(tablespace.as_deref())?;
        checks::partitioned(&root_table)?;
        checks::entity_column(&root_table, &column)?;
        checks::keys(&root_table, &column)?;
        checks::local_leaves(&root_table)?;
        checks::unpublished(&root_table)?;
        let revert_window_s = match &revert_window {
            None => guc::REVERT_WINDOW_S.get(),
            Some(interval) => seconds(interval, "revert_window")?.min(f64::from(i32::MAX)) as i32,
        };
        // SAFETY: constant for the process.
        let pid = unsafe { pg_sys::MyProcPid };
        let user = sql::value::<String>("SELECT current_user::text", &[])?.unwrap_or_default();
        Ok(New {
            relation: root.to_u32(),
            leaf: leaf.map(|l| l.to_u32()),
            entity_column: column,
            entities,
            target,
            user,
            migrate,
            verify: verify.unwrap_or(true),
            max_stall_ms: stall_ms(max_stall.as_ref())?.unwrap_or(guc::MAX_STALL_MS.get()),
            revert_window_s,
            waiter_pid: wait.then_some(pid),
        })
    })());
    let answer = or_raise(request::submit(&Request::New(new)));
    if let Some(text) = answer.notice {
        notice!("{text}");
    }
    if wait {
        let wanted = if migrate { Goal::Migrated } else { Goal::Ready };
        or_raise(request::wait_for(answer.id, &Wanted::Goal(wanted)));
    }
    answer.id
}

/// Entities, or one whole leaf.
fn scope(
    table: &checks::Table,
    root: pg_sys::Oid,
    column: &str,
    entities: Option<Vec<Option<String>>>,
    whole: Option<bool>,
) -> Result<(Option<pg_sys::Oid>, Option<Vec<String>>)> {
    if whole == Some(true) {
        if table.kind != "r" || !table.is_partition {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{} is no leaf partition", table.name),
            )
            .detail("\"all\" => true moves all of one leaf partition.")
            .hint("Name the partition; pg_partition_tree() lists them."));
        }
        return Ok((Some(table.relid), None));
    }
    if table.relid != root {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{} is a partition, not the managed table", table.name),
        )
        .detail("Entities are looked for in all partitions of the managed table.")
        .hint("Name the managed table, or move all of this partition with \"all\" => true."));
    }
    let given = entities.unwrap_or_else(|| vec![None]);
    Ok((None, Some(checks::entities(root, column, &given)?)))
}

#[pg_extern(sql = false)]
fn command(
    command: &str,
    id: Option<i64>,
    max_stall: Option<Interval>,
    wait: Option<bool>,
) -> Option<i64> {
    let wait = wait.unwrap_or(true);
    let wanted = match command {
        "swap" => Goal::Migrated,
        "revert" => Goal::Ready,
        "finalize" => Goal::Finalized,
        "drop" => Goal::Dropped,
        _ => Goal::Cancelled,
    };
    let id = id.unwrap_or(0);
    if wanted == Goal::Cancelled && or_raise(has_ended(id)) {
        return None;
    }
    let (request, adding) = or_raise((|| {
        let shadow = shadow_of_caller(id)?;
        // SAFETY: constant for the process.
        let pid = unsafe { pg_sys::MyProcPid };
        let cancelling = wanted == Goal::Cancelled;
        let request = Request::Command {
            id,
            goal: wanted.word().to_owned(),
            max_stall_ms: stall_ms(max_stall.as_ref())?,
            // Cleaning up goes on whoever waits for it.
            waiter_pid: (wait && !cancelling && wanted != Goal::Dropped).then_some(pid),
        };
        Ok((request, shadow.state == State::Adding))
    })());
    // A job that is building the shadow stops at its next step; one that is resting is told by the worker.
    // One that is adding must know first what for: it may be over, and the shadow stand, before the worker
    // has read the request.
    let stops = matches!(wanted, Goal::Cancelled | Goal::Dropped);
    if stops && !adding {
        shared::cancel(id);
    }
    let answer = or_raise(request::submit(&request));
    if stops && adding {
        shared::cancel(id);
    }
    if let Some(text) = answer.notice {
        notice!("{text}");
    }
    if wait {
        or_raise(request::wait_for(id, &Wanted::Goal(wanted)));
    }
    Some(id)
}

/// A shadow that the caller may command, in a transaction from which that can be done.
fn shadow_of_caller(id: i64) -> Result<Shadow> {
    require_preload()?;
    checks::transaction(None)?;
    let shadow = as_superuser(|| Shadow::load(id))?;
    checks::owner(&checks::table(shadow.relation)?)?;
    checks::transaction(Some(shadow.relation))?;
    Ok(shadow)
}

#[pg_extern(sql = false)]
fn resize(
    command: &str,
    id: Option<i64>,
    entities: Option<Vec<Option<String>>>,
    wait: Option<bool>,
) -> i64 {
    let wait = wait.unwrap_or(true);
    let id = id.unwrap_or(0);
    let add = command == "add";
    let change = or_raise((|| {
        let shadow = shadow_of_caller(id)?;
        let (root, column) = (shadow.relation, &shadow.entity_column);
        let given = entities.unwrap_or_else(|| vec![None]);
        let entities = checks::entities(root, column, &given)?;
        if add {
            // What comes must satisfy what is asked of a new shadow.
            let table = checks::table(root)?;
            checks::tablespace(Some(&shadow.target))?;
            checks::keys(&table, column)?;
            checks::local_leaves(&table)?;
            checks::unpublished(&table)?;
        }
        // SAFETY: constant for the process.
        let pid = unsafe { pg_sys::MyProcPid };
        Ok(Change {
            id,
            add,
            entities,
            waiter_pid: wait.then_some(pid),
        })
    })());
    let answer = or_raise(request::submit(&Request::Resize(change)));
    if let Some(text) = answer.notice {
        notice!("{text}");
    }
    if wait {
        let wanted = if add {
            Wanted::Has(answer.entities)
        } else {
            Wanted::HasNot(answer.entities)
        };
        or_raise(request::wait_for(id, &wanted));
    }
    id
}

/// Whether a shadow has come to its end, so that there is nothing to cancel.
fn has_ended(id: i64) -> Result<bool> {
    require_preload()?;
    let ended = as_superuser(|| {
        sql::value::<bool>(
            "SELECT state IN ('finalized', 'dropped', 'failed', 'cancelled') FROM shadowpart.shadow WHERE id = $1",
            &[id.into()],
        )
    })?;
    Ok(ended == Some(true))
}

#[pg_extern(sql = false)]
fn manage(
    relation: Option<pg_sys::Oid>,
    entity_column: Option<String>,
    colocate_with: Option<pg_sys::Oid>,
) {
    or_raise((|| {
        require_preload()?;
        checks::not_in_recovery()?;
        let missing = |what: &str| {
            Error::new(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                format!("{what} must not be NULL"),
            )
            .detail(
                "A managed table needs a table and the column that names the entity of each row.",
            )
            .hint("SELECT shadow_manage('orders', 'tenant_id')")
        };
        let table = checks::table(relation.ok_or_else(|| missing("relation"))?)?;
        let column = entity_column.ok_or_else(|| missing("entity_column"))?;
        checks::owner(&table)?;
        checks::partitioned(&table)?;
        if table.is_partition {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{} is itself a partition", table.name),
            )
            .detail("A table is managed as a whole.")
            .hint("Manage the table at the top of the hierarchy."));
        }
        checks::entity_column(&table, &column)?;
        checks::keys(&table, &column)?;
        checks::local_leaves(&table)?;
        checks::unpublished(&table)?;
        if let Some(other) = colocate_with {
            let other = checks::table(other)?;
            as_superuser(|| checks::managed(&other))?;
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "groups of tables are not supported yet",
            )
            .detail("Each managed table migrates by itself.")
            .hint("Leave colocate_with out."));
        }
        as_superuser(|| {
            let live = sql::value::<bool>(
                "SELECT EXISTS (SELECT FROM shadowpart.shadow s JOIN shadowpart.managed m ON m.relation = s.relation
                  WHERE s.relation = $1 AND m.entity_column <> $2
                    AND s.state NOT IN ('finalized', 'dropped', 'failed', 'cancelled'))",
                &[table.relid.into(), column.as_str().into()],
            )?;
            if live == Some(true) {
                return Err(has_shadows(&table));
            }
            sql::execute(
                "INSERT INTO shadowpart.managed (relation, entity_column) VALUES ($1, $2::name)
                 ON CONFLICT (relation) DO UPDATE SET entity_column = excluded.entity_column",
                &[table.relid.into(), column.as_str().into()],
            )?;
            crate::load::managed_changed(table.relid)
        })?;
        // The scheduler records the load of managed tables. Before the commit it would find none.
        pgrx::register_xact_callback(pgrx::PgXactCallbackEvent::Commit, shared::wake_scheduler);
        Ok(())
    })());
}

fn has_shadows(table: &checks::Table) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
        format!("table {} has live shadows", table.name),
    )
    .detail("They depend on what the table is managed as.")
    .hint("SELECT id, state FROM shadow_status lists them; finalize, revert or drop them first.")
}

#[pg_extern(sql = false)]
fn unmanage(relation: Option<pg_sys::Oid>) {
    or_raise((|| {
        require_preload()?;
        checks::not_in_recovery()?;
        let table = checks::table(relation.unwrap_or(pg_sys::InvalidOid))?;
        checks::owner(&table)?;
        as_superuser(|| {
            let (root, _) = checks::managed(&table)?;
            let live = sql::value::<bool>(
                "SELECT EXISTS (SELECT FROM shadowpart.shadow
                  WHERE relation = $1 AND state NOT IN ('finalized', 'dropped', 'failed', 'cancelled'))",
                &[root.into()],
            )?;
            if live == Some(true) {
                return Err(has_shadows(&table));
            }
            sql::execute(
                "DELETE FROM shadowpart.managed WHERE relation = $1",
                &[root.into()],
            )?;
            crate::load::managed_changed(root)
        })
    })());
}

#[cfg(feature = "failpoints")]
#[pg_extern(sql = false)]
fn failpoints() -> SetOfIterator<'static, String> {
    SetOfIterator::new(crate::failpoint::NAMES.iter().map(|n| (*n).to_owned()))
}
