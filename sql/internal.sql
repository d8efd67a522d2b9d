-- Functions that other SQL of this extension calls. Not for users.
CREATE FUNCTION shadowpart.mirror() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'shadowpart_mirror';
COMMENT ON FUNCTION shadowpart.mirror() IS 'Row trigger: applies a change to the other side of a pair.';

CREATE FUNCTION shadowpart.capture() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'shadowpart_capture';
COMMENT ON FUNCTION shadowpart.capture() IS
    'Row trigger: notes the keys of a change while a shadow is copied.';

CREATE FUNCTION shadowpart.mark() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'shadowpart_mark';
COMMENT ON FUNCTION shadowpart.mark() IS
    'Trigger that marks a partition whose rows are checked against its bound; fires on TRUNCATE.';

CREATE FUNCTION shadowpart.refuse_reserved() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'shadowpart_refuse_reserved';
COMMENT ON FUNCTION shadowpart.refuse_reserved() IS
    'Row trigger: refuses the value with which a shadow holds its place.';

CREATE FUNCTION shadowpart.entities_of(entity anyelement) RETURNS text[]
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'entities_of_wrapper';
COMMENT ON FUNCTION shadowpart.entities_of(anyelement) IS
    'One value as a list of one, an array as the list of its elements, in text form.';

CREATE FUNCTION shadowpart.request(
    command text,
    relation regclass,
    entities text[],
    whole_partition boolean,
    tablespace text,
    server text,
    max_stall interval,
    verify boolean,
    revert_window interval,
    wait boolean
) RETURNS bigint
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'request_wrapper';
COMMENT ON FUNCTION
    shadowpart.request(text, regclass, text[], boolean, text, text, interval, boolean, interval, boolean) IS
    'Checks a request for a shadow, hands it to a background worker and, if wanted, waits for it.';

CREATE FUNCTION shadowpart.command(command text, id bigint, max_stall interval, wait boolean) RETURNS bigint
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'command_wrapper';
COMMENT ON FUNCTION shadowpart.command(text, bigint, interval, boolean) IS
    'Checks a command for an existing shadow, hands it to a background worker and, if wanted, waits for it.';

CREATE FUNCTION shadowpart.resize(command text, id bigint, entities text[], wait boolean) RETURNS bigint
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'resize_wrapper';
COMMENT ON FUNCTION shadowpart.resize(text, bigint, text[], boolean) IS
    'Checks a request to change the entities of a shadow, hands it to a background worker and, if wanted, '
    'waits for it.';

CREATE FUNCTION shadowpart.manage(relation regclass, entity_column text, colocate_with regclass) RETURNS void
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'manage_wrapper';
COMMENT ON FUNCTION shadowpart.manage(regclass, text, regclass) IS 'Checks and registers a managed table.';

CREATE FUNCTION shadowpart.unmanage(relation regclass) RETURNS void
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'unmanage_wrapper';
COMMENT ON FUNCTION shadowpart.unmanage(regclass) IS 'Forgets a managed table.';

CREATE FUNCTION shadowpart.differences(id bigint)
    RETURNS TABLE (partition regclass, key jsonb, difference text)
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'differences_wrapper';
COMMENT ON FUNCTION shadowpart.differences(bigint) IS
    'Rows that differ between the sides of the pairs of a shadow.';

CREATE FUNCTION shadowpart.route(relation regclass, entities text[])
    RETURNS TABLE (
        entity text,
        partition regclass,
        tablespace text,
        shadow_id bigint,
        shadow regclass,
        shadow_tablespace text,
        state text
    )
    LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'route_wrapper';
COMMENT ON FUNCTION shadowpart.route(regclass, text[]) IS 'Where reads and writes of entities go.';

CREATE FUNCTION shadowpart.delta_rows(delta oid) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$ SELECT pg_catalog.pg_stat_get_live_tuples($1) WHERE $1 IS NOT NULL $$;
COMMENT ON FUNCTION shadowpart.delta_rows(oid) IS 'Estimated number of changes captured but not yet applied.';

CREATE FUNCTION shadowpart.tree(root oid) RETURNS TABLE (relid oid, level integer, isleaf boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH RECURSIVE tree AS (
            SELECT root AS relid, 0 AS level
            UNION ALL
            SELECT i.inhrelid, t.level + 1
            FROM pg_catalog.pg_inherits i
            JOIN tree t ON i.inhparent = t.relid
        )
        SELECT t.relid, t.level, c.relkind <> 'p'
        FROM tree t
        JOIN pg_catalog.pg_class c ON c.oid = t.relid
    $$;
COMMENT ON FUNCTION shadowpart.tree(oid) IS
    'All partitions of a table. Unlike pg_partition_tree() it takes no lock that would outlast the call.';
