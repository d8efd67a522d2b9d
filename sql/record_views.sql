-- What users see of the history, and of the moment. A row is shown to those who may read the table, and to
-- pg_monitor; the machine is shown to pg_monitor alone.
CREATE VIEW shadow_partitions AS
SELECT
    m.relation,
    t.relid::regclass AS partition,
    round(h.written / c.minutes_s, 1) AS writes_s,
    round(h.scans / c.minutes_s, 1) AS reads_s,
    pg_size_pretty(pg_total_relation_size(t.relid)) AS size,
    round(h.grown / c.hour_s * 3600 / 1048576, 1) AS growth_mb_h,
    round(100.0 * n.dead / nullif(n.live + n.dead, 0), 1) AS dead_pct,
    round(100.0 * h.hit / nullif(h.hit + h.missed, 0), 1) AS hit_pct,
    round(h.read_ms / c.minutes_s, 1) AS io_ms_s,
    CASE WHEN c.minutes_s > 0 THEN h.waits END AS waits,
    make_interval(secs => round(c.minutes_s)::float8) AS covered
FROM shadowpart.managed m
JOIN pg_class r ON r.oid = m.relation
CROSS JOIN LATERAL shadowpart.tree(m.relation) t
JOIN (
    -- Which minutes are covered, by the rows of the tables as a whole.
    SELECT
        w.relation,
        nullif(sum(p.covered_ms) FILTER (WHERE p.at > now() - interval '5 min 30 s'), 0) / 1000.0
            AS minutes_s,
        nullif(sum(p.covered_ms), 0) / 1000.0 AS hour_s,
        bool_or(p.read_ms IS NOT NULL) FILTER (WHERE p.at > now() - interval '5 min 30 s') AS timed
    FROM shadowpart.managed w
    LEFT JOIN shadowpart.partition_history p
        ON p.relation = w.relation AND p.partition IS NULL AND p.level = 1
            AND p.at > now() - interval '60 min 30 s' AND p.at <= now()
    GROUP BY w.relation
) c ON c.relation = m.relation
LEFT JOIN (
    SELECT
        p.relation,
        p.partition,
        sum(p.grown_bytes) AS grown,
        sum(p.inserts + p.updates + p.deletes) FILTER (WHERE p.at > now() - interval '5 min 30 s')
            AS written,
        sum(p.seq_scans + p.idx_scans) FILTER (WHERE p.at > now() - interval '5 min 30 s') AS scans,
        sum(p.blks_hit) FILTER (WHERE p.at > now() - interval '5 min 30 s') AS hit,
        sum(p.blks_read) FILTER (WHERE p.at > now() - interval '5 min 30 s') AS missed,
        sum(p.read_ms) FILTER (WHERE p.at > now() - interval '5 min 30 s')::numeric AS read_ms,
        sum(p.lock_waits) FILTER (WHERE p.at > now() - interval '5 min 30 s') AS waits,
        (array_agg(p.live_rows ORDER BY p.at DESC))[1] AS live,
        (array_agg(p.dead_rows ORDER BY p.at DESC))[1] AS dead
    FROM shadowpart.partition_history p
    WHERE p.level = 1 AND p.partition IS NOT NULL
        AND p.at > now() - interval '60 min 30 s' AND p.at <= now()
    GROUP BY p.relation, p.partition
) s ON s.relation = m.relation AND s.partition = t.relid
CROSS JOIN LATERAL (
    -- In a covered minute, no row is a zero.
    SELECT
        coalesce(s.grown, 0) AS grown,
        coalesce(s.written, 0) AS written,
        coalesce(s.scans, 0) AS scans,
        coalesce(s.hit, 0) AS hit,
        coalesce(s.missed, 0) AS missed,
        coalesce(s.waits, 0) AS waits,
        CASE
            WHEN s.read_ms IS NOT NULL THEN s.read_ms
            WHEN c.timed THEN 0
        END AS read_ms
) h
CROSS JOIN LATERAL (
    -- A standby has no statistics of its own about rows.
    SELECT
        CASE WHEN pg_is_in_recovery() THEN s.live ELSE pg_stat_get_live_tuples(t.relid) END AS live,
        CASE WHEN pg_is_in_recovery() THEN s.dead ELSE pg_stat_get_dead_tuples(t.relid) END AS dead
) n
WHERE
    t.isleaf
    AND (
        pg_has_role('pg_monitor', 'MEMBER')
        OR coalesce(has_table_privilege(m.relation, 'SELECT'), false)
    );
COMMENT ON VIEW shadow_partitions IS
    'Each leaf partition of the managed tables: rows written and scans per second, size, growth in MB per '
    'hour, dead rows, hits of shared buffers, milliseconds of reading per second (with track_io_timing), '
    'and at how many looks somebody waited for a lock on it. Size and dead rows are as of now, growth is '
    'that of the last hour, the others are of the last five minutes, of which "covered" were measured. NULL '
    'is what was not.';

CREATE VIEW shadow_host AS
SELECT
    h.resource,
    h.name,
    array_to_string(h.tablespaces, ', ') AS tablespaces,
    round(100 * h.used::numeric, 1) AS used_pct,
    CASE h.resource
        WHEN 'cpu' THEN
            trim_scale(round(h.capacity::numeric, 2))
            || CASE WHEN h.capacity = 1 THEN ' cpu' ELSE ' cpus' END
        WHEN 'memory' THEN pg_size_pretty(h.capacity::bigint)
    END AS capacity,
    round(h.read_bytes_s::numeric / 1048576, 1) AS read_mb_s,
    round(h.written_bytes_s::numeric / 1048576, 1) AS write_mb_s,
    round(h.queue::numeric, 1) AS queue,
    round(h.wait_ms::numeric, 1) AS wait_ms,
    round(100 * h.stalled::numeric, 1) AS stall_pct
FROM shadowpart.host_now() h;
COMMENT ON VIEW shadow_host IS
    'How busy the machine is now: its CPUs, its memory, and the disk of each tablespace. wait_ms is '
    'how long one read or write takes; stall_pct is time in which some task of the machine stood still for '
    'want of it (for disks: waiting for any I/O). '
    'NULL is what the system does not tell. A session that asks again compares with its question before.';

CREATE VIEW shadow_load_history WITH (security_barrier) AS
SELECT
    h.at,
    h.level AS minutes,
    h.relation::regclass AS relation,
    h.entity,
    nullif(h.partition, 0)::regclass AS partition,
    round(h.inserts / s.s, 2) AS inserts_s,
    round(h.updates / s.s, 2) AS updates_s,
    round(h.deletes / s.s, 2) AS deletes_s,
    round(h.reads / s.s, 2) AS reads_s,
    round(h.rows_read / s.s, 1) AS rows_read_s,
    round((h.bytes_written - h.bytes_removed) / s.s / 1024, 1) AS growth_kb_s,
    round(h.bytes_written / s.s / 1024, 1) AS written_kb_s,
    round(h.exec_us / s.s / 1000, 2) AS exec_ms_s,
    round(h.cpu_us / s.s / 1000, 2) AS cpu_ms_s,
    round(h.blocks_read / s.s, 1) AS blks_read_s,
    make_interval(secs => h.covered_ms / 1000.0) AS covered,
    h.reset
FROM shadowpart.entity_history h
CROSS JOIN LATERAL (SELECT nullif(h.covered_ms, 0) / 1000.0 AS s) s
WHERE
    pg_has_role('pg_monitor', 'MEMBER')
    OR coalesce(has_table_privilege(h.relation, 'SELECT'), false);
COMMENT ON VIEW shadow_load_history IS
    'What each entity has cost, per second, in stretches of 1, 5 and 60 minutes. For each covered stretch a '
    'table has a row with entity NULL: all that is not in rows of entities. An entity without a row of such '
    'a stretch has done next to nothing. Where reset is true figures are lower bounds.';

CREATE VIEW shadow_partition_history WITH (security_barrier) AS
SELECT
    h.at,
    h.level AS minutes,
    h.relation::regclass AS relation,
    h.partition::regclass AS partition,
    round((h.inserts + h.updates + h.deletes) / s.s, 2) AS writes_s,
    round((h.seq_scans + h.idx_scans) / s.s, 2) AS reads_s,
    round(h.rows_read / s.s, 1) AS rows_read_s,
    round(100.0 * h.blks_hit / nullif(h.blks_hit + h.blks_read, 0), 1) AS hit_pct,
    round(h.blks_read / s.s, 1) AS blks_read_s,
    round(h.read_ms::numeric / s.s, 2) AS io_ms_s,
    h.lock_waits AS waits,
    h.size_bytes,
    round(h.grown_bytes / s.s * 3600 / 1048576, 1) AS growth_mb_h,
    h.live_rows,
    h.dead_rows,
    make_interval(secs => h.covered_ms / 1000.0) AS covered,
    h.reset
FROM shadowpart.partition_history h
CROSS JOIN LATERAL (SELECT nullif(h.covered_ms, 0) / 1000.0 AS s) s
WHERE
    pg_has_role('pg_monitor', 'MEMBER')
    OR coalesce(has_table_privilege(h.relation, 'SELECT'), false);
COMMENT ON VIEW shadow_partition_history IS
    'What was done to each partition, per second, in stretches of 1, 5 and 60 minutes. The row with '
    'partition NULL is the table as a whole; a partition without a row of a stretch that its table has one '
    'of was idle. Where reset is true figures are lower bounds.';

CREATE VIEW shadow_host_history AS
SELECT
    h.at,
    h.level AS minutes,
    'cpu' AS resource,
    NULL::text AS name,
    round(100 * h.cpu_busy::numeric, 1) AS used_pct,
    NULL::numeric AS read_mb_s,
    NULL::numeric AS write_mb_s,
    NULL::numeric AS queue,
    NULL::numeric AS read_ms,
    NULL::numeric AS write_ms,
    round(100 * h.cpu_steal::numeric, 1) AS steal_pct,
    round(100 * h.pressure_cpu::numeric, 1) AS stall_pct,
    make_interval(secs => h.covered_ms / 1000.0) AS covered
FROM shadowpart.host_history h
UNION ALL
SELECT
    h.at, h.level, 'memory', NULL,
    round(100 * h.memory_used::numeric, 1),
    NULL, NULL, NULL, NULL, NULL, NULL,
    round(100 * h.pressure_memory::numeric, 1),
    make_interval(secs => h.covered_ms / 1000.0)
FROM shadowpart.host_history h
UNION ALL
SELECT
    d.at, d.level, 'disk', d.device,
    round(100 * d.utilisation::numeric, 1),
    round(d.read_bytes_s::numeric / 1048576, 1),
    round(d.written_bytes_s::numeric / 1048576, 1),
    round(d.queue::numeric, 1),
    round(d.read_ms::numeric, 1),
    round(d.write_ms::numeric, 1),
    NULL, NULL,
    make_interval(secs => d.covered_ms / 1000.0)
FROM shadowpart.disk_history d;
COMMENT ON VIEW shadow_host_history IS
    'How busy the machine was, in stretches of 1, 5 and 60 minutes; columns as in shadow_host; '
    'steal_pct is time that a hypervisor gave to others.';

GRANT SELECT ON shadow_partitions, shadow_load_history, shadow_partition_history TO PUBLIC;
REVOKE ALL ON shadow_host, shadow_host_history FROM PUBLIC;
GRANT SELECT ON shadow_host, shadow_host_history TO pg_monitor;
GRANT EXECUTE ON FUNCTION shadowpart.host_now() TO pg_monitor;
