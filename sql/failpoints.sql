-- Only in builds with the feature "failpoints".
CREATE FUNCTION shadowpart.failpoints() RETURNS SETOF text
    LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'failpoints_wrapper';
COMMENT ON FUNCTION shadowpart.failpoints() IS 'Names of the points at which a test can interfere.';
