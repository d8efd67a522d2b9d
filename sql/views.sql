-- What users look at. A row is shown to those who may read the table, and to pg_monitor.
CREATE VIEW shadow_status AS
SELECT
    s.id,
    s.relation::regclass AS relation,
    s.entities,
    s.whole_partition,
    s.source,
    s.target,
    s.state,
    s.goal,
    s.since,
    p.rows_done AS rows,
    p.bytes_done AS bytes,
    p.lag,
    s.revert_until,
    s.last_error ->> 'message' AS last_error,
    s.figures
        || jsonb_build_object('phase', s.phase,
            'adding', to_jsonb(s.adding), 'removing', to_jsonb(s.removing),
            'stale', p.stale, 'pairs', p.pairs, 'error', s.last_error) AS details
FROM shadowpart.shadow s
LEFT JOIN LATERAL (
    SELECT
        sum(q.rows_before + q.rows_done)::bigint AS rows_done,
        sum(q.bytes_before + q.bytes_done)::bigint AS bytes_done,
        sum(shadowpart.delta_rows(q.delta_relid))::bigint AS lag,
        (
            SELECT jsonb_agg(DISTINCT t.reason)
            FROM shadowpart.stale t
            WHERE t.pair_id = ANY (array_agg(q.id))
        ) AS stale,
        jsonb_agg(
            jsonb_build_object(
                'primary', q.primary_relid::regclass::text,
                'shadow', q.shadow_relid::regclass::text,
                'phase', q.phase
            )
            ORDER BY q.id
        ) AS pairs
    FROM shadowpart.pair q
    WHERE q.shadow_id = s.id
) p ON true
WHERE
    pg_has_role('pg_monitor', 'MEMBER')
    OR coalesce(has_table_privilege(s.relation, 'SELECT'), false);
COMMENT ON VIEW shadow_status IS
    'Each shadow: table, entities, where from, where to, state, goal, rows and bytes copied, lag '
    '(changes captured '
    'but not yet applied), end of the revert window, last error, and in details everything that was '
    'measured.';

CREATE VIEW shadow_progress AS
SELECT
    s.id,
    coalesce(s.phase, s.state) AS phase,
    p.rows_total,
    p.rows_done,
    p.bytes_done,
    p.rows_done / nullif(extract(epoch FROM clock_timestamp() - p.since), 0)::float8 AS rows_per_s,
    CASE
        WHEN p.rows_done > 0 AND p.rows_total > p.rows_done
            THEN (clock_timestamp() - p.since) * ((p.rows_total - p.rows_done)::float8 / p.rows_done)
    END AS time_left,
    (s.waiting ->> 'pid')::integer AS waiting_pid,
    s.waiting ->> 'query' AS waiting_query,
    clock_timestamp() - (s.waiting ->> 'xact_start')::timestamptz AS waiting_age,
    (s.waiting ->> 'blocked_since')::timestamptz AS blocked_since
FROM shadowpart.shadow s
LEFT JOIN LATERAL (
    SELECT
        sum(q.rows_total)::bigint AS rows_total,
        sum(q.rows_done)::bigint AS rows_done,
        sum(q.bytes_done)::bigint AS bytes_done,
        min(q.phase_since) FILTER (WHERE q.phase IN ('capture', 'copy', 'add-copy')) AS since
    FROM shadowpart.pair q
    WHERE q.shadow_id = s.id
) p ON true
WHERE
    s.state NOT IN ('finalized', 'dropped', 'failed', 'cancelled')
    AND (
        pg_has_role('pg_monitor', 'MEMBER')
        OR coalesce(has_table_privilege(s.relation, 'SELECT'), false)
    );
COMMENT ON VIEW shadow_progress IS
    'Work in progress: phase, rows and bytes done, rate, estimated time left, and for whom a job waits.';

CREATE VIEW shadow_history AS
SELECT e.shadow_id AS id, e.at, e.event, e.took_ms, e.details
FROM shadowpart.event e
JOIN shadowpart.shadow s ON s.id = e.shadow_id
WHERE
    pg_has_role('pg_monitor', 'MEMBER')
    OR coalesce(has_table_privilege(s.relation, 'SELECT'), false);
COMMENT ON VIEW shadow_history IS
    'What happened to each shadow, in order. For swap and revert, took_ms is the stall: waiting for the '
    'lock and '
    'holding it, together; details tells them apart.';

GRANT SELECT ON shadow_status, shadow_progress, shadow_history TO PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA shadowpart FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    shadowpart.entities_of(anyelement),
    shadowpart.request(text, regclass, text[], boolean, text, text, interval, boolean, interval, boolean),
    shadowpart.command(text, bigint, interval, boolean),
    shadowpart.resize(text, bigint, text[], boolean),
    shadowpart.manage(regclass, text, regclass),
    shadowpart.unmanage(regclass),
    shadowpart.differences(bigint),
    shadowpart.route(regclass, text[]),
    shadowpart.delta_rows(oid),
    shadowpart.tree(oid),
    shadowpart.sampled(),
    shadowpart.entity_load(),
    shadowpart.stats_info(),
    shadowpart.set_policy(regclass, jsonb),
    shadowpart.set_target(text, jsonb),
    shadowpart.effective_policy(oid, oid),
    shadowpart.plan(oid),
    shadowpart.blockers(oid),
    shadowpart.newest_prediction(),
    shadowpart.backtest(oid, text, integer, bigint, bigint)
    TO PUBLIC;
REVOKE ALL ON FUNCTION shadow_stats_reset() FROM PUBLIC;
