//! The triggers of a pair. They are internal ones: invisible in `\d` and pg_dump, out of reach of
//! ALTER TABLE DISABLE TRIGGER USER, and enabled ALWAYS, so that replication's apply workers fire them.
//!
//! Each is created once, under SHARE ROW EXCLUSIVE, when no writer is at work on the table, and then only
//! switched on and off. Removing one elsewhere takes ACCESS EXCLUSIVE, for which readers would have to
//! wait; under the weaker lock it is as safe, since only writers queue trigger events.

use super::members::{self, Column};
use super::{Pair, Shadow};
use crate::pg;
use crate::pg::error::Result;
use crate::pg::sql;
pub use crate::pg::trigger::invalidate;
use pgrx::prelude::*;

/// What a trigger of a pair does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Mark,
    Capture,
    Mirror,
    /// The mirror that is to come: of another set of entities.
    Next,
    Reserved,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Mark => "mark",
            Kind::Capture => "capture",
            Kind::Mirror => "mirror",
            Kind::Next => "next",
            Kind::Reserved => "reserved",
        }
    }

    /// How the names of the pair's triggers of this kind begin. '!' sorts first, so they fire first.
    fn prefix(self, pair: &Pair) -> String {
        format!("!shadowpart_{}_{}_", self.word(), pair.id)
    }
}

/// Marks a side of a pair, or its wrapper, for the planner, which learns which it is; fires on TRUNCATE.
pub fn mark(pair: &Pair, relid: pg_sys::Oid, other: pg_sys::Oid) -> Result<()> {
    let name = format!("{}t", Kind::Mark.prefix(pair));
    let side = if relid == pair.primary {
        "primary"
    } else if Some(relid) == pair.wrapper {
        "wrapper"
    } else {
        "shadow"
    };
    sql::execute(
        &format!(
            "CREATE TRIGGER {} AFTER TRUNCATE ON {} FOR EACH STATEMENT EXECUTE FUNCTION shadowpart.mark('{}', '{}', '{side}')",
            sql::ident(&name),
            sql::relation(relid)?,
            pair.id,
            other.to_u32()
        ),
        &[],
    )?;
    own(pair, relid, Kind::Mark, true)
}

/// Writes the id of this transaction into the shadow's mark: a snapshot that sees it sees all rows that were
/// copied, and every write since the mirror began.
pub fn certify(pair: &Pair) -> Result<()> {
    let relid = pair.shadow()?;
    // The arguments given to `mark`, and the id, in the place of an earlier one if there is one.
    sql::execute(
        "UPDATE pg_catalog.pg_trigger
            SET tgnargs = 4,
                tgargs = (SELECT string_agg(convert_to(a, 'UTF8') || '\\x00'::bytea, ''::bytea ORDER BY n)
                            FROM unnest(ARRAY[$3::text, $4::text, 'shadow', pg_catalog.pg_current_xact_id()::text])
                                 WITH ORDINALITY u (a, n))
          WHERE tgrelid = $1 AND starts_with(tgname, $2) AND tgisinternal AND tgnargs IN (3, 4)",
        &[
            relid.into(),
            Kind::Mark.prefix(pair).into(),
            pair.id.to_string().into(),
            pair.primary.to_u32().to_string().into(),
        ],
    )?;
    invalidate(relid);
    Ok(())
}

/// Notes the keys of changes to the members, in the pair's delta table.
pub fn capture(shadow: &Shadow, pair: &Pair) -> Result<()> {
    let column = members::column(pair.primary, &shadow.entity_column)?;
    let keys = key_arguments(pair);
    let call = format!(
        "shadowpart.capture('{}', '{}', {}{keys})",
        pair.id,
        pair.delta()?.to_u32(),
        sql::literal(&shadow.entity_column)
    );
    create(
        shadow,
        pair,
        &column,
        pair.primary,
        Kind::Capture,
        &call,
        shadow.entities.as_deref(),
    )?;
    own(pair, pair.primary, Kind::Capture, true)
}

/// Applies changes of one side to the other. From the primary: those of the members; from the shadow: all.
/// Switched off, at first.
pub fn mirror(shadow: &Shadow, pair: &Pair, from: pg_sys::Oid, to: pg_sys::Oid) -> Result<()> {
    mirror_as(Kind::Mirror, shadow, pair, from, to)
}

/// A mirror of the primary for another set of entities, beside the one that is at work. Switched off.
pub fn next_mirror(shadow: &Shadow, pair: &Pair) -> Result<()> {
    mirror_as(Kind::Next, shadow, pair, pair.primary, pair.shadow()?)
}

/// The next mirror takes the place and the name of the present one, and begins to work. The caller holds a
/// lock that keeps writers out.
pub fn succeed(pair: &Pair) -> Result<()> {
    remove(pair, pair.primary, Kind::Mirror)?;
    sql::execute(
        "UPDATE pg_catalog.pg_trigger SET tgname = ($3 || substr(tgname::text, length($2) + 1))::name
          WHERE tgrelid = $1 AND starts_with(tgname, $2) AND tgisinternal",
        &[
            pair.primary.into(),
            Kind::Next.prefix(pair).into(),
            Kind::Mirror.prefix(pair).into(),
        ],
    )?;
    switch(pair, pair.primary, Kind::Mirror, true)
}

fn mirror_as(
    kind: Kind,
    shadow: &Shadow,
    pair: &Pair,
    from: pg_sys::Oid,
    to: pg_sys::Oid,
) -> Result<()> {
    let column = members::column(from, &shadow.entity_column)?;
    let entities = if from == pair.primary {
        shadow.entities.as_deref()
    } else {
        None
    };
    let literal = match entities {
        Some(entities) => members::array_literal(entities)?,
        None => String::new(),
    };
    let call = format!(
        "shadowpart.mirror('{}', '{}', {}, {}{})",
        pair.id,
        to.to_u32(),
        sql::literal(&shadow.entity_column),
        sql::literal(&literal),
        key_arguments(pair)
    );
    create(shadow, pair, &column, from, kind, &call, entities)?;
    own(pair, from, kind, false)
}

/// Refuses rows with the value that holds the place of the side that owns nothing, on both sides: either may
/// be the one. The argument tells the planner that no row has it.
pub fn refuse_reserved(shadow: &Shadow, pair: &Pair) -> Result<()> {
    let Some(reserved) = &pair.reserved else {
        return Ok(());
    };
    for relid in [pair.primary, pair.shadow()?] {
        let column = members::column(relid, &shadow.entity_column)?;
        let when = column.is_member("NEW", Some(std::slice::from_ref(reserved)))?;
        sql::execute(
            &format!(
                "CREATE TRIGGER {} BEFORE INSERT OR UPDATE ON {} FOR EACH ROW WHEN ({when})
                 EXECUTE FUNCTION shadowpart.refuse_reserved({})",
                sql::ident(&format!("{}r", Kind::Reserved.prefix(pair))),
                sql::relation(relid)?,
                sql::literal(reserved),
            ),
            &[],
        )?;
        own(pair, relid, Kind::Reserved, true)?;
    }
    Ok(())
}

fn key_arguments(pair: &Pair) -> String {
    pair.key_columns
        .iter()
        .map(|k| format!(", {}", sql::literal(k)))
        .collect()
}

fn create(
    _shadow: &Shadow,
    pair: &Pair,
    column: &Column,
    relid: pg_sys::Oid,
    kind: Kind,
    call: &str,
    entities: Option<&[String]>,
) -> Result<()> {
    let table = sql::relation(relid)?;
    let old = column.is_member("OLD", entities)?;
    let new = column.is_member("NEW", entities)?;
    for (event, suffix, when) in [
        ("INSERT", "i", new.clone()),
        ("UPDATE", "u", format!("{old} OR {new}")),
        ("DELETE", "d", old.clone()),
    ] {
        let when = if entities.is_some() {
            format!("WHEN ({when}) ")
        } else {
            String::new()
        };
        sql::execute(
            &format!(
                "CREATE TRIGGER {} AFTER {event} ON {table} FOR EACH ROW {when}EXECUTE FUNCTION {call}",
                sql::ident(&format!("{}{suffix}", kind.prefix(pair)))
            ),
            &[],
        )?;
    }
    Ok(())
}

/// Makes the triggers just created internal, and switches them on or off.
fn own(pair: &Pair, relid: pg_sys::Oid, kind: Kind, enabled: bool) -> Result<()> {
    sql::execute(
        "UPDATE pg_catalog.pg_trigger SET tgisinternal = true, tgenabled = $3::\"char\"
          WHERE tgrelid = $1 AND starts_with(tgname, $2)",
        &[
            relid.into(),
            kind.prefix(pair).into(),
            state(enabled).into(),
        ],
    )?;
    invalidate(relid);
    Ok(())
}

fn state(enabled: bool) -> &'static str {
    if enabled { "A" } else { "D" }
}

/// Switches the pair's triggers of a kind on a relation on or off. The caller holds a lock that keeps
/// writers out.
pub fn switch(pair: &Pair, relid: pg_sys::Oid, kind: Kind, enabled: bool) -> Result<()> {
    sql::execute(
        "UPDATE pg_catalog.pg_trigger SET tgenabled = $3::\"char\"
          WHERE tgrelid = $1 AND starts_with(tgname, $2) AND tgisinternal",
        &[
            relid.into(),
            kind.prefix(pair).into(),
            state(enabled).into(),
        ],
    )?;
    invalidate(relid);
    Ok(())
}

/// Removes the pair's triggers of a kind from a relation. The caller holds a lock that keeps writers out,
/// so that no event that names one is queued anywhere.
pub fn remove(pair: &Pair, relid: pg_sys::Oid, kind: Kind) -> Result<()> {
    pg::trigger::remove(relid, &kind.prefix(pair))
}
