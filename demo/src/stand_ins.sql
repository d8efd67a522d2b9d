-- The functions and views of shadowpart that the demo uses, as stand-ins that move nothing: a dry run tries the
-- clients, the comparison and the picture without the extension.

-- A sequence shows its value to other sessions at once, as shadow_progress needs it.
CREATE SEQUENCE stand_in_phase MINVALUE 0 START 0;
SELECT setval('stand_in_phase', 0);

CREATE TABLE shadow_history (
    id bigint, at timestamptz, event text, took_ms float8, details jsonb
);

CREATE VIEW shadow_progress AS
SELECT 1::bigint AS id,
       (ARRAY['capture', 'copy', 'index', 'catch-up', 'mirror', 'verify', 'wrap', 'join', 'wait', 'swap'])[last_value]
           AS phase,
       58665::bigint AS rows_total, NULL::bigint AS rows_done, NULL::bigint AS bytes_done, NULL::float8 AS rows_per_s,
       NULL::interval AS time_left, NULL::int AS waiting_pid, NULL::text AS waiting_query,
       NULL::interval AS waiting_age, NULL::timestamptz AS blocked_since
  FROM stand_in_phase WHERE last_value > 0;

CREATE VIEW shadow_status AS
SELECT 1::bigint AS id, 'migrated'::text AS state, 58665::bigint AS rows, 12345678::bigint AS bytes;

CREATE FUNCTION shadow_manage(relation regclass, entity_column name) RETURNS void LANGUAGE sql AS 'SELECT';

CREATE FUNCTION stand_in_swap(what text) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO shadow_history VALUES (1, clock_timestamp(), what, 1.5 + random(), '{"lock_wait_ms": 0.4, "attempts": 1}')
    RETURNING id
$$;

CREATE FUNCTION shadow_migrate(relation regclass, entity text, tablespace name) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    seconds float8[] := ARRAY[0.1, 2.2, 0.6, 0.2, 0.05, 0.4, 0.05, 0.05, 0.3, 0.02];
BEGIN
    IF EXISTS (SELECT FROM shadow_history) THEN
        RETURN stand_in_swap('swap');
    END IF;
    FOR phase IN 1..10 LOOP
        PERFORM setval('stand_in_phase', phase);
        RAISE NOTICE 'stand-in: phase %', phase;
        PERFORM pg_sleep(seconds[phase]);
    END LOOP;
    PERFORM setval('stand_in_phase', 0);
    RETURN stand_in_swap('swap');
END $$;

CREATE FUNCTION shadow_revert(id bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT stand_in_swap('revert') $$;

CREATE FUNCTION shadow_finalize(id bigint) RETURNS bigint LANGUAGE sql AS 'SELECT $1';

CREATE FUNCTION shadow_verify(id bigint) RETURNS TABLE (partition regclass, key jsonb, difference text)
LANGUAGE sql AS $$ SELECT NULL::regclass, NULL::jsonb, NULL::text WHERE false $$;
