-- Only in builds with the feature "failpoints".
CREATE FUNCTION shadowpart.failpoints() RETURNS SETOF text
    LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'failpoints_wrapper';
COMMENT ON FUNCTION shadowpart.failpoints() IS 'Names of the points at which a test can interfere.';

CREATE FUNCTION shadowpart.tick() RETURNS void
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'tick_now_wrapper';
COMMENT ON FUNCTION shadowpart.tick() IS
    'What the scheduler does each minute for the history, at once, in this session and its transaction.';
