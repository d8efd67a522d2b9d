//! Who loads a managed table, and how much: every way to write and to read is counted for its entity,
//! exactly as long as a session is quiet, without bias when it is busy, in memory that does not grow.

mod errors;
mod estimates;
mod memory;
mod others;
mod paths;
mod prepared;
mod reads;
mod replicas;
mod structure;
mod values;
mod writes;

use shadowpart_tests::*;

/// One entity a partition, two in one, and the rest.
const TABLE: &str = "
    CREATE TABLE t (tenant int NOT NULL, id int NOT NULL, note text, PRIMARY KEY (tenant, id))
        PARTITION BY LIST (tenant);
    CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1);
    CREATE TABLE t_23 PARTITION OF t FOR VALUES IN (2, 3);
    CREATE TABLE t_rest PARTITION OF t DEFAULT;
    SELECT shadow_manage('t', 'tenant')";

/// Runs statements, of which nothing is counted so far, and gives what their session counted.
fn counted(
    session: &mut Session,
    sql: &str,
    look: fn(&mut Session, &str) -> Result<String>,
) -> Result<String> {
    session.run("SELECT shadow_stats_reset()")?;
    session.run(sql)?;
    look(session, "t")
}

/// "entity +rows inserted ~updated -deleted" of each entity that wrote, in their order; "-" stands for
/// the rows that belong to none.
fn writes(session: &mut Session, table: &str) -> Result<String> {
    session.value(&format!(
        "SELECT coalesce(string_agg(concat_ws(' ', coalesce(entity, '-'), '+' || nullif(i, 0),
                                              '~' || nullif(u, 0), '-' || nullif(d, 0)),
                                    ', ' ORDER BY length(entity), entity), 'nothing')
         FROM (SELECT entity, sum(inserts) AS i, sum(updates) AS u, sum(deletes) AS d
               FROM shadow_entity_counters WHERE relation = '{table}'::regclass GROUP BY entity) c
         WHERE i + u + d > 0"
    ))
}

/// "entity statements/rows" of each entity that was read, in their order. Statements that name none are
/// counted for each partition: "-" and the partition.
fn reads(session: &mut Session, table: &str) -> Result<String> {
    session.value(&format!(
        "SELECT coalesce(string_agg(coalesce(entity, '-' || partition) || ' ' || reads || '/' || rows_read,
                                    ', ' ORDER BY entity IS NULL, length(entity), entity, partition::text),
                         'nothing')
         FROM shadow_entity_counters WHERE relation = '{table}'::regclass AND reads + rows_read > 0"
    ))
}

fn assert_writes(session: &mut Session, sql: &str, expected: &str) -> Result<()> {
    let found = counted(session, sql, writes)?;
    ensure!(found == expected, "{found}, not {expected}: {sql}");
    Ok(())
}

fn assert_reads(session: &mut Session, sql: &str, expected: &str) -> Result<()> {
    let found = counted(session, sql, reads)?;
    ensure!(found == expected, "{found}, not {expected}: {sql}");
    Ok(())
}

/// How many relations carry the trigger that counts.
fn counting_triggers(session: &mut Session) -> Result<Vec<String>> {
    session.column(
        "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE '%shadowpart_load%' ORDER BY 1",
    )
}

/// From here on the session counts a sample of what it writes and reads.
fn exhaust(session: &mut Session) -> Result<()> {
    session.run(
        "CREATE TABLE IF NOT EXISTS busy (tenant int, id serial, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
         CREATE TABLE IF NOT EXISTS busy_all PARTITION OF busy DEFAULT;
         SELECT shadow_manage('busy', 'tenant')",
    )?;
    let info =
        "SELECT rows_estimated > 4 * rows_counted AND statements_estimated > statements_counted
                FROM shadow_stats_info";
    // A slow machine has a low load, which is counted one by one, for longer.
    for _ in 0..10 {
        session.run(
            "INSERT INTO busy SELECT 1 FROM generate_series(1, 30000) g;
             DO $$ BEGIN FOR i IN 1..5000 LOOP INSERT INTO busy VALUES (1); END LOOP; END $$;
             DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM FROM busy WHERE tenant = 1 AND id = 1; END LOOP; END $$",
        )?;
        if session.value(info)? == "t" {
            return Ok(());
        }
    }
    bail!("everything is still counted")
}
