-- What is predicted, what is decided, and what became of both. Written by the autopilot worker of the
-- database alone; policies and targets are written by the functions that set them.
CREATE TABLE shadowpart.policy (
    subject regclass PRIMARY KEY,
    -- What is managed no more has no settings: an OID may come again.
    relation regclass NOT NULL REFERENCES shadowpart.managed ON DELETE CASCADE,
    settings jsonb NOT NULL
);
COMMENT ON TABLE shadowpart.policy IS
    'What a managed table, or one partition of it, has been given instead of the general settings.';
SELECT pg_catalog.pg_extension_config_dump('shadowpart.policy', '');

CREATE TABLE shadowpart.target (
    tablespace name PRIMARY KEY,
    settings jsonb NOT NULL
);
COMMENT ON TABLE shadowpart.target IS
    'Tablespaces that the autopilot may move entities to, with what they can take.';
SELECT pg_catalog.pg_extension_config_dump('shadowpart.target', '');

CREATE TABLE shadowpart.model (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    state bytea NOT NULL,
    saved_at timestamptz NOT NULL,
    details jsonb NOT NULL
);
COMMENT ON TABLE shadowpart.model IS
    'The model of this database, with its calibration and the forecasts that it is to be judged by.';

CREATE TABLE shadowpart.autopilot_state (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    at timestamptz NOT NULL,
    machine jsonb NOT NULL,
    seen jsonb NOT NULL
);
COMMENT ON TABLE shadowpart.autopilot_state IS
    'What the autopilot remembers from tick to tick (machine), and what it saw at the last one (seen).';

CREATE TABLE shadowpart.prediction (
    at timestamptz NOT NULL,
    relation oid NOT NULL,
    partition oid,
    entity text,
    resource text NOT NULL,
    horizon_ms bigint NOT NULL,
    load double precision,
    capacity double precision,
    forecast double precision,
    low double precision,
    high double precision,
    probability double precision,
    stage text NOT NULL,
    drivers jsonb,
    due_at timestamptz NOT NULL,
    excluded boolean NOT NULL DEFAULT false,
    actual double precision,
    crossed boolean,
    crossed_at timestamptz,
    resolved_at timestamptz
);
COMMENT ON TABLE shadowpart.prediction IS
    'Forecasts, and once their horizon has passed, what happened. Kept for two weeks, or as long as the '
    'history if that is shorter.';
CREATE INDEX prediction_at ON shadowpart.prediction (at);
CREATE INDEX prediction_open ON shadowpart.prediction (due_at) WHERE resolved_at IS NULL;

CREATE TABLE shadowpart.decision (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    relation oid NOT NULL,
    partition oid,
    action text NOT NULL,
    trigger text,
    reason text NOT NULL,
    message text NOT NULL,
    entities text[],
    target name,
    confidence double precision,
    bytes bigint,
    duration_ms bigint,
    stall_ms double precision,
    executed boolean NOT NULL,
    shadow_id bigint,
    outcome text,
    outcome_at timestamptz,
    last_seen timestamptz NOT NULL,
    times bigint NOT NULL DEFAULT 1,
    details jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE shadowpart.decision IS
    'What the autopilot decided to do, or not to do, and why. A decision that is the same as the one before '
    'is the same row: times and last_seen say how often and until when it was made.';
CREATE INDEX decision_at ON shadowpart.decision (at);
CREATE INDEX decision_shadow ON shadowpart.decision (shadow_id) WHERE shadow_id IS NOT NULL;

REVOKE ALL ON shadowpart.policy, shadowpart.target, shadowpart.model, shadowpart.autopilot_state,
    shadowpart.prediction, shadowpart.decision FROM PUBLIC;

CREATE FUNCTION shadowpart.set_policy(relation regclass, settings jsonb) RETURNS void
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'set_policy_wrapper';
COMMENT ON FUNCTION shadowpart.set_policy(regclass, jsonb) IS
    'Checks and stores settings of a managed table or partition; a JSON null takes one away.';

CREATE FUNCTION shadow_set_policy(
    relation regclass,
    autopilot text DEFAULT NULL,
    write_rows_s double precision DEFAULT NULL,
    write_bytes_s double precision DEFAULT NULL,
    cpu_ms_s double precision DEFAULT NULL,
    read_blocks_s double precision DEFAULT NULL,
    size_bytes bigint DEFAULT NULL,
    threshold double precision DEFAULT NULL,
    shadow_threshold double precision DEFAULT NULL,
    ticks text DEFAULT NULL,
    reactive double precision DEFAULT NULL,
    relief double precision DEFAULT NULL,
    release double precision DEFAULT NULL,
    cooldown interval DEFAULT NULL,
    entity_cooldown interval DEFAULT NULL,
    decommission_after interval DEFAULT NULL,
    quiet_hours text DEFAULT NULL,
    quiet_reactive boolean DEFAULT NULL,
    targets name [] DEFAULT NULL
) RETURNS void LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.set_policy(relation, jsonb_strip_nulls(jsonb_build_object(
            'autopilot', autopilot,
            'write_rows_s', write_rows_s,
            'write_bytes_s', write_bytes_s,
            'cpu_ms_s', cpu_ms_s,
            'read_blocks_s', read_blocks_s,
            'size_bytes', size_bytes,
            'threshold', threshold,
            'shadow_threshold', shadow_threshold,
            'ticks', ticks,
            'reactive', reactive,
            'relief', relief,
            'release', release,
            'cooldown_ms', (extract(epoch FROM cooldown) * 1000)::bigint,
            'entity_cooldown_ms', (extract(epoch FROM entity_cooldown) * 1000)::bigint,
            'decommission_after_ms', (extract(epoch FROM decommission_after) * 1000)::bigint,
            'quiet_hours', quiet_hours,
            'quiet_reactive', quiet_reactive,
            'targets', targets
        )))
    $$;
COMMENT ON FUNCTION shadow_set_policy IS
    'What a managed table, or one of its partitions (capacities only), is given instead of the defaults; '
    'arguments left out stay as they are. Capacities: rows and bytes written, milliseconds of CPU and '
    'blocks read per second, and size. threshold: confidence from which on entities are swapped; '
    'shadow_threshold: from which on their shadow is made; ticks: on how many of the last predictions, '
    'such as ''2 of 3''; reactive: fraction of the capacity that is acted upon whatever is predicted; '
    'relief: fraction that a move brings the predicted peak down to; release: fraction below which a '
    'partition is calm. decommission_after: for how long it has to be before its shadow goes. quiet_hours: '
    '''22:00-06:00'' in the time zone of the database, in which nothing is moved.';

CREATE FUNCTION shadow_reset_policy(relation regclass, settings text [] DEFAULT NULL) RETURNS void
    LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.set_policy(relation, (
            SELECT coalesce(
                jsonb_object_agg(
                    s.name || CASE
                        WHEN s.name IN ('cooldown', 'entity_cooldown', 'decommission_after') THEN '_ms'
                        ELSE ''
                    END, NULL::text),
                '{"*": null}')
            FROM unnest(settings) s (name)))
    $$;
COMMENT ON FUNCTION shadow_reset_policy(regclass, text[]) IS
    'Takes settings of shadow_set_policy() away again; all of them if none is named.';

CREATE FUNCTION shadowpart.set_target(tablespace text, settings jsonb) RETURNS void
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'set_target_wrapper';
COMMENT ON FUNCTION shadowpart.set_target(text, jsonb) IS 'Checks and stores a target; NULL takes it away.';

CREATE FUNCTION shadow_add_target(
    tablespace name,
    write_rows_s double precision DEFAULT NULL,
    write_bytes_s double precision DEFAULT NULL,
    cpu_ms_s double precision DEFAULT NULL,
    read_blocks_s double precision DEFAULT NULL,
    size_bytes bigint DEFAULT NULL
) RETURNS void LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.set_target(tablespace, jsonb_strip_nulls(jsonb_build_object(
            'write_rows_s', write_rows_s, 'write_bytes_s', write_bytes_s, 'cpu_ms_s', cpu_ms_s,
            'read_blocks_s', read_blocks_s, 'size_bytes', size_bytes)))
    $$;
COMMENT ON FUNCTION shadow_add_target IS
    'Lets the autopilot move entities to a tablespace, up to a load in total of all managed tables there. '
    'Once there is a target, others are not used. For superusers.';

CREATE FUNCTION shadow_drop_target(tablespace name) RETURNS void LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.set_target(tablespace, NULL) $$;
COMMENT ON FUNCTION shadow_drop_target(name) IS
    'The autopilot moves nothing more to a tablespace. What lies there stays. For superusers.';

CREATE FUNCTION shadowpart.effective_policy(subject oid, relation oid) RETURNS jsonb
    LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'effective_policy_wrapper';
COMMENT ON FUNCTION shadowpart.effective_policy(oid, oid) IS
    'Settings that hold for a managed table or one of its partitions.';

CREATE VIEW shadow_policies WITH (security_barrier) AS
SELECT
    m.relation,
    nullif(s.subject, m.relation::oid)::regclass AS partition,
    CASE WHEN k.duration THEN left(e.key, -3) ELSE e.key END AS setting,
    CASE
        WHEN k.duration THEN make_interval(secs => (e.value #>> '{}')::double precision / 1000)::text
        ELSE e.value #>> '{}'
    END AS value,
    CASE
        WHEN p.settings ? e.key AND s.subject <> m.relation THEN 'partition'
        WHEN r.settings ? e.key THEN 'table'
        ELSE 'default'
    END AS source
FROM shadowpart.managed m
JOIN pg_class c ON c.oid = m.relation
CROSS JOIN LATERAL (
    SELECT m.relation::oid AS subject
    UNION ALL
    SELECT q.subject FROM shadowpart.policy q
    WHERE q.relation = m.relation AND q.subject <> m.relation
) s
LEFT JOIN shadowpart.policy p ON p.subject = s.subject
LEFT JOIN shadowpart.policy r ON r.subject = m.relation
CROSS JOIN LATERAL jsonb_each(shadowpart.effective_policy(s.subject, m.relation)) e
CROSS JOIN LATERAL (
    SELECT e.key IN ('cooldown_ms', 'entity_cooldown_ms', 'decommission_after_ms') AS duration
) k
WHERE
    pg_has_role('pg_monitor', 'MEMBER')
    OR coalesce(has_table_privilege(m.relation, 'SELECT'), false)
ORDER BY 1, 2 NULLS FIRST, 3;
COMMENT ON VIEW shadow_policies IS
    'The settings that hold for each managed table, and for partitions that have some of their own.';

-- max(at) of a view with a security barrier would look at every row, of two weeks.
CREATE FUNCTION shadowpart.newest_prediction() RETURNS timestamptz
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT max(p.at) FROM shadowpart.prediction p $$;
COMMENT ON FUNCTION shadowpart.newest_prediction() IS 'When the newest forecasts of the database were made.';

CREATE FUNCTION shadow_predict(relation regclass DEFAULT NULL)
    RETURNS TABLE (
        relation regclass,
        partition regclass,
        entity text,
        resource text,
        load numeric,
        forecast numeric,
        low numeric,
        high numeric,
        capacity numeric,
        probability numeric,
        horizon interval,
        stage text,
        at timestamptz,
        drivers jsonb
    )
    LANGUAGE sql STABLE
    AS $$
        SELECT
            p.relation::regclass, p.partition::regclass, p.entity, p.resource, p.load,
            p.forecast, p.low, p.high, p.capacity, p.probability, p.horizon, p.stage, p.at, p.drivers
        FROM @extschema@.shadow_predictions p
        WHERE p.at = shadowpart.newest_prediction()
            AND (shadow_predict.relation IS NULL OR shadow_predict.relation IN (p.relation, p.partition))
        ORDER BY p.relation::text, p.probability DESC NULLS LAST, p.partition::text, p.entity IS NOT NULL,
            p.resource, p.forecast DESC NULLS LAST, p.entity, p.horizon
    $$;
COMMENT ON FUNCTION shadow_predict(regclass) IS
    'The newest forecasts, of all managed tables, of one or of a partition: for each partition and '
    'resource the load now, its highest mean over 15 minutes within the horizon with an interval that '
    'holds it in 8 of 10 cases, the probability that it reaches capacity, and what speaks for it '
    '(drivers); for the most active entities their load after 5, 15 and 60 minutes. Read from what the '
    'worker stored last (at).';

CREATE VIEW shadow_predictions WITH (security_barrier) AS
SELECT
    p.at,
    p.relation::regclass AS relation,
    p.partition::regclass AS partition,
    p.entity,
    p.resource,
    make_interval(secs => p.horizon_ms / 1000.0) AS horizon,
    round(p.load::numeric, 2) AS load,
    round(p.forecast::numeric, 2) AS forecast,
    round(p.low::numeric, 2) AS low,
    round(p.high::numeric, 2) AS high,
    round(p.capacity::numeric, 2) AS capacity,
    round(p.probability::numeric, 3) AS probability,
    p.stage,
    round(p.actual::numeric, 2) AS actual,
    round((p.forecast - p.actual)::numeric, 2) AS error,
    p.crossed,
    p.crossed_at - p.at AS lead,
    p.excluded,
    p.resolved_at,
    p.drivers
FROM shadowpart.prediction p
WHERE
    pg_has_role('pg_monitor', 'MEMBER')
    OR coalesce(has_table_privilege(p.relation, 'SELECT'), false)
        AND NOT coalesce(row_security_active(p.relation), false);
COMMENT ON VIEW shadow_predictions IS
    'Forecasts as they were made and, once their horizon has passed (resolved_at), what happened: the '
    'actual load, the error, whether capacity was reached and how long after the forecast. A row with an '
    'entity is about its load, the others are about partitions. excluded: shadows of ours changed the load '
    'meanwhile, so that it says nothing about the forecast.';

CREATE VIEW shadow_prediction_quality AS
WITH judged AS (
    SELECT p.*
    FROM shadow_predictions p
    WHERE p.actual IS NOT NULL AND NOT p.excluded
),
alarms AS (
    SELECT
        j.*,
        -- One that is above its capacity already is no forecast.
        j.entity IS NULL AND j.crossed IS NOT NULL AND j.probability IS NOT NULL
        AND j.load < j.capacity AS counts
    FROM judged j
)
SELECT
    a.relation,
    a.partition,
    a.entity,
    a.resource,
    a.horizon,
    count(*) AS forecasts,
    round(sum(abs(a.error)) / nullif(count(*), 0), 2) AS mean_error,
    round(sum(abs(a.error)) / nullif(sum(abs(a.load - a.actual)), 0), 3) AS rmae,
    round(avg((a.low <= a.actual AND a.actual <= a.high)::integer), 3) AS in_interval,
    round(avg(power(a.probability - a.crossed::integer, 2)) FILTER (WHERE a.counts), 4) AS brier,
    round(avg(a.crossed::integer) FILTER (WHERE a.counts), 4) AS crossed,
    count(*) FILTER (WHERE a.counts AND a.probability >= 0.6) AS alarms,
    round(
        count(*) FILTER (WHERE a.counts AND a.probability >= 0.6 AND a.crossed)
        / nullif(count(*) FILTER (WHERE a.counts AND a.probability >= 0.6), 0)::numeric, 3
    ) AS "precision",
    round(
        count(*) FILTER (WHERE a.counts AND a.probability >= 0.6 AND a.crossed)
        / nullif(count(*) FILTER (WHERE a.counts AND a.crossed), 0)::numeric, 3
    ) AS recall,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY a.lead)
        FILTER (WHERE a.counts AND a.probability >= 0.6 AND a.crossed) AS lead
FROM alarms a
GROUP BY a.relation, a.partition, a.entity, a.resource, a.horizon
ORDER BY a.relation::text, a.entity IS NOT NULL, a.partition::text, a.entity, a.resource, a.horizon;
COMMENT ON VIEW shadow_prediction_quality IS
    'How good the stored forecasts were, by partition and by entity. rmae: sum of absolute errors, over '
    'that of a forecast that says that nothing changes. in_interval: share of cases in which the actual '
    'load was between low and high (0.8 is meant). For partitions: Brier score of the probability, share '
    'of cases in which capacity was reached (crossed), alarms (probability of 0.6 or more) with their '
    'precision and recall, and how long before the crossing they came, in the median.';

CREATE VIEW shadow_calibration AS
SELECT
    b.relation,
    round(b.bin / 10.0, 1) AS from_p,
    round((b.bin + 1) / 10.0, 1) AS to_p,
    count(*) AS forecasts,
    round(avg(b.probability), 3) AS predicted,
    round(avg(b.crossed::integer), 3) AS happened
FROM (
    SELECT p.*, least(floor(p.probability * 10), 9)::integer AS bin
    FROM shadow_predictions p
    WHERE p.entity IS NULL AND p.crossed IS NOT NULL AND NOT p.excluded AND p.load < p.capacity
        AND p.probability IS NOT NULL
) b
GROUP BY b.relation, b.bin
ORDER BY b.relation::text, b.bin;
COMMENT ON VIEW shadow_calibration IS
    'Whether the probabilities are true: of the forecasts with a probability between two bounds, the mean '
    'of it, and the share of cases in which capacity was reached.';

CREATE VIEW shadow_decisions WITH (security_barrier) AS
SELECT
    d.id,
    d.at,
    d.relation::regclass AS relation,
    d.partition::regclass AS partition,
    d.action,
    d.entities,
    d.target,
    round(d.confidence::numeric, 3) AS confidence,
    d.trigger,
    d.reason,
    d.message,
    d.executed,
    d.shadow_id,
    d.outcome,
    d.outcome_at,
    d.last_seen,
    d.times,
    d.details || jsonb_strip_nulls(jsonb_build_object(
        'bytes', nullif(d.bytes, 0), 'duration_ms', nullif(d.duration_ms, 0),
        'stall_ms', nullif(d.stall_ms, 0))) AS details
FROM shadowpart.decision d
WHERE
    pg_has_role('pg_monitor', 'MEMBER')
    OR coalesce(has_table_privilege(d.relation, 'SELECT'), false)
        AND NOT coalesce(row_security_active(d.relation), false);
COMMENT ON VIEW shadow_decisions IS
    'What the autopilot decided, and why: also what it did not do. executed: it was done, not only '
    'proposed; outcome: what became of it. The same decision again and again is one row: at is the first '
    'time, last_seen the last.';

CREATE FUNCTION shadowpart.plan(relation oid)
    RETURNS TABLE (
        relation oid,
        partition oid,
        action text,
        entities text [],
        target text,
        confidence double precision,
        trigger text,
        reason text,
        message text,
        would_execute boolean,
        bytes bigint,
        duration_ms bigint,
        stall_ms double precision,
        details jsonb
    )
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'plan_wrapper';
COMMENT ON FUNCTION shadowpart.plan(oid) IS 'What the autopilot would decide now; changes nothing.';

CREATE FUNCTION shadow_plan(relation regclass DEFAULT NULL)
    RETURNS TABLE (
        relation regclass,
        partition regclass,
        action text,
        entities text [],
        target name,
        confidence numeric,
        reason text,
        message text,
        would_execute boolean,
        size text,
        duration interval,
        stall_ms numeric,
        locks text,
        blockers jsonb,
        details jsonb
    )
    LANGUAGE sql VOLATILE
    AS $$
        SELECT
            p.relation::regclass, p.partition::regclass, p.action, p.entities, p.target::name,
            round(p.confidence::numeric, 3), p.reason, p.message, p.would_execute,
            pg_size_pretty(nullif(p.bytes, 0)), make_interval(secs => nullif(p.duration_ms, 0) / 1000.0),
            round(nullif(p.stall_ms, 0)::numeric, 1),
            CASE p.action
                WHEN 'create_shadow' THEN 'SHARE ROW EXCLUSIVE on the partition; once, for a first shadow, '
                    'ACCESS EXCLUSIVE on its parent'
                WHEN 'swap' THEN 'EXCLUSIVE on wrapper, partition and shadow'
                WHEN 'add_entities' THEN 'SHARE ROW EXCLUSIVE on the partition'
                WHEN 'remove_entities' THEN 'SHARE ROW EXCLUSIVE on the partition'
                WHEN 'drop_shadow' THEN 'ACCESS EXCLUSIVE on wrapper and shadow'
            END,
            CASE WHEN p.action <> 'hold' THEN shadowpart.blockers(p.partition) END, p.details
        FROM shadowpart.plan(relation) p
    $$;
COMMENT ON FUNCTION shadow_plan(regclass) IS
    'What the autopilot would do now with all managed tables, with one or with a partition, and what it '
    'would not do, with the reasons; nothing is done. locks: '
    'what would be taken, each for no longer than max_stall; blockers: sessions that would be in the way '
    'now. For the owner of the table, superusers and pg_monitor.';

CREATE FUNCTION shadowpart.blockers(partition oid) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT coalesce(jsonb_agg(b.one), '[]')
        FROM (
            SELECT jsonb_build_object(
                'pid', l.pid, 'mode', max(l.mode),
                'age_s', round(extract(epoch FROM clock_timestamp() - max(a.xact_start))::numeric, 1)) AS one
            FROM pg_locks l
            LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted
                AND l.mode <> 'AccessShareLock' AND l.pid IS DISTINCT FROM pg_backend_pid()
                AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
            GROUP BY l.pid
            ORDER BY max(a.xact_start)
            LIMIT 20) b
    $$;
COMMENT ON FUNCTION shadowpart.blockers(oid) IS
    'Transactions that write to a partition now: a step that needs its lock would wait for them.';

CREATE FUNCTION shadowpart.backtest(
    relation oid, resource text, partitions integer, horizon_ms bigint, seed bigint)
    RETURNS jsonb
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'backtest_wrapper';
COMMENT ON FUNCTION shadowpart.backtest(oid, text, integer, bigint, bigint) IS
    'Replays the recorded history of a table; see shadow_backtest().';

CREATE FUNCTION shadow_backtest(
    relation regclass,
    resource text DEFAULT 'write_rows_s',
    horizon interval DEFAULT '60 min',
    partitions integer DEFAULT NULL,
    seed bigint DEFAULT 1
) RETURNS TABLE (metric text, model numeric, reactive numeric)
    LANGUAGE sql VOLATILE
    AS $$
        SELECT m.metric, round(m.model::numeric, 4), round(m.reactive::numeric, 4)
        FROM jsonb_to_recordset(shadowpart.backtest(
            relation, resource, partitions, (extract(epoch FROM horizon) * 1000)::bigint, seed))
            m (metric text, model double precision, reactive double precision)
    $$;
COMMENT ON FUNCTION shadow_backtest(regclass, text, interval, integer, bigint) IS
    'What would have been predicted and done on the recorded history of a table, walking forward with what '
    'was known at each moment, and how good that would have been; beside it the rule that acts at 0.8 of '
    'the capacity. For the owner of the table, superusers and pg_monitor.';

GRANT SELECT ON shadow_policies, shadow_predictions, shadow_prediction_quality, shadow_calibration,
    shadow_decisions TO PUBLIC;
