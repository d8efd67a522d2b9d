-- Who loads the managed tables, and how much. The functions show a table's entities to members of
-- pg_monitor, and to those who may read all of the table.
CREATE FUNCTION shadowpart.sampled() RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'shadowpart_sampled';
COMMENT ON FUNCTION shadowpart.sampled() IS
    'Condition of the triggers that count: whether the row at hand is looked at.';

CREATE FUNCTION shadowpart.load() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'shadowpart_load';
COMMENT ON FUNCTION shadowpart.load() IS 'Row trigger: counts a row for its entity.';

CREATE FUNCTION shadowpart.entity_load()
    RETURNS TABLE (
        relation oid,
        kind text,
        entity text,
        partition oid,
        since timestamptz,
        totals bigint[],
        minute float8[],
        five_minutes float8[],
        hour float8[]
    )
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'entity_load_wrapper';
COMMENT ON FUNCTION shadowpart.entity_load() IS
    'What is counted of each entity, of statements on many of them, and of each partition in total. The '
    'arrays hold, in this order: rows inserted, updated, deleted; bytes written, removed; statements that '
    'read, rows they returned; microseconds of execution and of CPU; blocks read. Rates are per second.';

CREATE FUNCTION shadowpart.stats_info()
    RETURNS TABLE (
        max_entities integer,
        entities bigint,
        evictions bigint,
        last_eviction timestamptz,
        error_bound float8,
        tail_writes bigint,
        tail_reads bigint,
        rows_counted bigint,
        rows_estimated bigint,
        statements_counted bigint,
        statements_estimated bigint,
        long_values bigint,
        long_values_lost bigint,
        memory_bytes bigint,
        reset_at timestamptz
    )
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'stats_info_wrapper';
COMMENT ON FUNCTION shadowpart.stats_info() IS
    'How the statistics of entities are kept; see shadow_stats_info.';

CREATE FUNCTION shadow_stats_reset() RETURNS void
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'stats_reset_wrapper';
COMMENT ON FUNCTION shadow_stats_reset() IS
    'Forgets what is counted of entities, in all databases; the history stays. For superusers, and whom '
    'they grant it.';

CREATE VIEW shadow_entity_counters AS
SELECT
    e.relation::regclass AS relation,
    e.entity,
    nullif(e.partition, 0)::regclass AS partition,
    e.since,
    e.totals[1] AS inserts,
    e.totals[2] AS updates,
    e.totals[3] AS deletes,
    e.totals[4] AS bytes_written,
    e.totals[5] AS bytes_removed,
    e.totals[6] AS reads,
    e.totals[7] AS rows_read,
    e.totals[8] / 1000::float8 AS exec_ms,
    e.totals[9] / 1000::float8 AS cpu_ms,
    e.totals[10] AS blocks_read,
    e.minute[1] + e.minute[2] + e.minute[3] AS writes_s_1m,
    e.five_minutes[1] + e.five_minutes[2] + e.five_minutes[3] AS writes_s_5m,
    e.hour[1] + e.hour[2] + e.hour[3] AS writes_s_1h,
    e.minute[6] AS reads_s_1m,
    e.five_minutes[6] AS reads_s_5m,
    e.hour[6] AS reads_s_1h
FROM shadowpart.entity_load() e
WHERE e.kind <> 'total';
COMMENT ON VIEW shadow_entity_counters IS
    'Counters of the entities of managed tables since they were noticed, and decayed rates per second '
    'over 1 minute, '
    '5 minutes and 1 hour. Where entity is NULL: statements that named none, and rows that belong to none.';

CREATE VIEW shadow_entities AS
WITH load AS MATERIALIZED (
    SELECT
        l.*,
        l.five_minutes[1] + l.five_minutes[2] + l.five_minutes[3] AS writes,
        l.five_minutes[6] AS reads
    FROM shadowpart.entity_load() l
)
SELECT
    e.relation::regclass AS relation,
    e.entity,
    nullif(e.partition, 0)::regclass AS partition,
    round(e.writes::numeric, 1) AS writes_s,
    round(e.reads::numeric, 1) AS reads_s,
    round(e.five_minutes[7]::numeric, 1) AS rows_s,
    round((e.five_minutes[4] / 1024)::numeric, 1) AS kb_s,
    round(((e.hour[4] - e.hour[5]) * 3600 / 1048576)::numeric, 1) AS mb_h,
    round((100 * (e.writes + e.reads) / nullif(t.writes + t.reads, 0))::numeric, 1) AS share,
    round((e.five_minutes[9] / 1000)::numeric, 2) AS cpu_ms_s,
    e.since::timestamptz(0) AS since
FROM load e
LEFT JOIN load t ON t.kind = 'total' AND t.relation = e.relation AND t.partition = e.partition
WHERE e.kind <> 'total'
ORDER BY e.writes + e.reads DESC;
COMMENT ON VIEW shadow_entities IS
    'The entities of managed tables that read and write most, over the last five minutes: rows written, '
    'statements that read, rows they returned, kB written and milliseconds of CPU, each per second; growth '
    'in MB per hour, over the last hour; share of the load of the partition, in per cent. A row without '
    'entity stands for statements that named none.';

CREATE VIEW shadow_stats_info AS
SELECT
    i.*,
    round((i.rows_counted::numeric / nullif(i.rows_estimated, 0)), 4) AS row_sampling,
    round((i.statements_counted::numeric / nullif(i.statements_estimated, 0)), 4) AS statement_sampling
FROM shadowpart.stats_info() i;
COMMENT ON VIEW shadow_stats_info IS
    'How the statistics of entities are kept: slots and those in use; entities that lost theirs '
    '(evictions); the decayed weight that an entity without one has at most (error_bound, in rows written '
    'and statements); what was counted of entities without a slot (tail); how much of what happened was '
    'looked at (sampling); values of more than 48 bytes that are held, and that had to go or were too long; '
    'bytes of shared memory; when all began.';
GRANT SELECT ON shadow_entities, shadow_entity_counters, shadow_stats_info TO PUBLIC;
