-- Shadows: create, migrate, swap, revert, finalize, drop, resize, cancel, verify, route.

CREATE FUNCTION shadow_create(
    relation regclass,
    entity text,
    tablespace name DEFAULT NULL,
    server name DEFAULT NULL,
    wait boolean DEFAULT true
) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.request(
            'create', relation, ARRAY[entity], false, tablespace, server, NULL, true, NULL, wait)
    $$;
COMMENT ON FUNCTION shadow_create(regclass, text, name, name, boolean) IS
    'Makes and keeps a standing shadow for one entity, given as text; returns its id.';

CREATE FUNCTION shadow_migrate(
    relation regclass,
    entity text,
    tablespace name DEFAULT NULL,
    server name DEFAULT NULL,
    max_stall interval DEFAULT NULL,
    verify boolean DEFAULT true,
    wait boolean DEFAULT true,
    revert_window interval DEFAULT NULL
) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.request(
            'migrate', relation, ARRAY[entity], false,
            tablespace, server, max_stall, verify, revert_window, wait)
    $$;
COMMENT ON FUNCTION
    shadow_migrate(regclass, text, name, name, interval, boolean, boolean, interval) IS
    'Moves one entity, given as text, live, to another tablespace; returns the id of its shadow.';

CREATE FUNCTION shadow_create(
    relation regclass,
    entity anyelement,
    tablespace name DEFAULT NULL,
    server name DEFAULT NULL,
    wait boolean DEFAULT true
) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.request(
            'create', relation, shadowpart.entities_of(entity), false,
            tablespace, server, NULL, true, NULL, wait)
    $$;
COMMENT ON FUNCTION shadow_create(regclass, anyelement, name, name, boolean) IS
    'Makes and keeps a standing shadow for an entity or an array of entities, of any type; returns its id.';

CREATE FUNCTION shadow_migrate(
    relation regclass,
    entity anyelement,
    tablespace name DEFAULT NULL,
    server name DEFAULT NULL,
    max_stall interval DEFAULT NULL,
    verify boolean DEFAULT true,
    wait boolean DEFAULT true,
    revert_window interval DEFAULT NULL
) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.request(
            'migrate', relation, shadowpart.entities_of(entity), false,
            tablespace, server, max_stall, verify, revert_window, wait)
    $$;
COMMENT ON FUNCTION
    shadow_migrate(regclass, anyelement, name, name, interval, boolean, boolean, interval) IS
    'Moves an entity or an array of entities, of any type, live, to another tablespace; returns the id '
    'of its shadow.';

CREATE FUNCTION shadow_create(
    relation regclass,
    tablespace name,
    entities anyarray,
    server name DEFAULT NULL,
    wait boolean DEFAULT true
) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.request(
            'create', relation, shadowpart.entities_of(entities), false,
            tablespace, server, NULL, true, NULL, wait)
    $$;
COMMENT ON FUNCTION shadow_create(regclass, name, anyarray, name, boolean) IS
    'Makes and keeps a standing shadow for several entities; returns its id.';

CREATE FUNCTION shadow_migrate(
    relation regclass,
    tablespace name,
    entities anyarray,
    server name DEFAULT NULL,
    max_stall interval DEFAULT NULL,
    verify boolean DEFAULT true,
    wait boolean DEFAULT true,
    revert_window interval DEFAULT NULL
) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.request(
            'migrate', relation, shadowpart.entities_of(entities), false,
            tablespace, server, max_stall, verify, revert_window, wait)
    $$;
COMMENT ON FUNCTION
    shadow_migrate(regclass, name, anyarray, name, interval, boolean, boolean, interval) IS
    'Moves several entities, live, to another tablespace; returns the id of its shadow.';

CREATE FUNCTION shadow_create(
    relation regclass,
    "all" boolean,
    tablespace name DEFAULT NULL,
    server name DEFAULT NULL,
    wait boolean DEFAULT true
) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.request(
            'create', relation, NULL, "all", tablespace, server, NULL, true, NULL, wait)
    $$;
COMMENT ON FUNCTION shadow_create(regclass, boolean, name, name, boolean) IS
    'Makes and keeps a standing shadow for all of one leaf partition; returns its id.';

CREATE FUNCTION shadow_migrate(
    relation regclass,
    "all" boolean,
    tablespace name DEFAULT NULL,
    server name DEFAULT NULL,
    max_stall interval DEFAULT NULL,
    verify boolean DEFAULT true,
    wait boolean DEFAULT true,
    revert_window interval DEFAULT NULL
) RETURNS bigint LANGUAGE sql VOLATILE
    AS $$
        SELECT shadowpart.request(
            'migrate', relation, NULL, "all", tablespace, server, max_stall, verify, revert_window, wait)
    $$;
COMMENT ON FUNCTION
    shadow_migrate(regclass, boolean, name, name, interval, boolean, boolean, interval) IS
    'Moves all of one leaf partition, live, to another tablespace; returns the id of its shadow.';

CREATE FUNCTION shadow_swap(id bigint, max_stall interval DEFAULT NULL, wait boolean DEFAULT true)
    RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.command('swap', id, max_stall, wait) $$;
COMMENT ON FUNCTION shadow_swap(bigint, interval, boolean) IS
    'Exchanges the roles of a standing shadow and its primary.';

CREATE FUNCTION shadow_revert(id bigint, max_stall interval DEFAULT NULL, wait boolean DEFAULT true)
    RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.command('revert', id, max_stall, wait) $$;
COMMENT ON FUNCTION shadow_revert(bigint, interval, boolean) IS
    'Swaps a migrated shadow back, as fast as it came.';

CREATE FUNCTION shadow_finalize(id bigint, wait boolean DEFAULT true)
    RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.command('finalize', id, NULL, wait) $$;
COMMENT ON FUNCTION shadow_finalize(bigint, boolean) IS
    'Gives up the way back: stops the reverse mirror and removes the hidden rows.';

CREATE FUNCTION shadow_drop(id bigint, wait boolean DEFAULT true)
    RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.command('drop', id, NULL, wait) $$;
COMMENT ON FUNCTION shadow_drop(bigint, boolean) IS
    'Takes a standing shadow away; one that is still being built is cancelled first.';

CREATE FUNCTION shadow_add_entities(id bigint, entity text, wait boolean DEFAULT true)
    RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.resize('add', id, ARRAY[entity], wait) $$;
COMMENT ON FUNCTION shadow_add_entities(bigint, text, boolean) IS
    'Adds an entity, given as text, to a standing shadow, which goes on mirroring those that it has.';

CREATE FUNCTION shadow_add_entities(id bigint, entity anyelement, wait boolean DEFAULT true)
    RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.resize('add', id, shadowpart.entities_of(entity), wait) $$;
COMMENT ON FUNCTION shadow_add_entities(bigint, anyelement, boolean) IS
    'Adds an entity or an array of entities, of any type, to a standing shadow, which goes on mirroring '
    'those that it has.';

CREATE FUNCTION shadow_remove_entities(id bigint, entity text, wait boolean DEFAULT true)
    RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.resize('remove', id, ARRAY[entity], wait) $$;
COMMENT ON FUNCTION shadow_remove_entities(bigint, text, boolean) IS
    'Takes an entity, given as text, out of a standing shadow, which goes on mirroring the others.';

CREATE FUNCTION shadow_remove_entities(id bigint, entity anyelement, wait boolean DEFAULT true)
    RETURNS bigint LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.resize('remove', id, shadowpart.entities_of(entity), wait) $$;
COMMENT ON FUNCTION shadow_remove_entities(bigint, anyelement, boolean) IS
    'Takes an entity or an array of entities, of any type, out of a standing shadow, which goes on '
    'mirroring the others.';

CREATE FUNCTION shadow_cancel(id bigint) RETURNS boolean LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.command('cancel', id, NULL, true) IS NOT NULL $$;
COMMENT ON FUNCTION shadow_cancel(bigint) IS
    'Cancels the job that builds a shadow, or adds entities to it, and takes away what it has built; waits '
    'until that is done.';

CREATE FUNCTION shadow_verify(id bigint) RETURNS TABLE (partition regclass, key jsonb, difference text)
    LANGUAGE sql VOLATILE
    AS $$ SELECT * FROM shadowpart.differences(id) $$;
COMMENT ON FUNCTION shadow_verify(bigint) IS
    'Compares the sides of a shadow row by row on one snapshot; returns keys that are missing in the mirrored
     side, extra there, or different. No rows: the sides are equal.';

CREATE FUNCTION shadow_route(relation regclass, entity text)
    RETURNS TABLE (
        entity text, partition regclass, tablespace name,
        shadow_id bigint, shadow regclass, shadow_tablespace name, state text
    )
    LANGUAGE sql VOLATILE
    AS $$
        SELECT r.entity, r.partition, r.tablespace::name, r.shadow_id,
            r.shadow, r.shadow_tablespace::name, r.state
        FROM shadowpart.route(relation, ARRAY[entity]) r
    $$;
COMMENT ON FUNCTION shadow_route(regclass, text) IS
    'Partitions in which an entity lives or would live, and its shadows.';

CREATE FUNCTION shadow_route(relation regclass, entity anyelement)
    RETURNS TABLE (
        entity text, partition regclass, tablespace name,
        shadow_id bigint, shadow regclass, shadow_tablespace name, state text
    )
    LANGUAGE sql VOLATILE
    AS $$
        SELECT r.entity, r.partition, r.tablespace::name, r.shadow_id,
            r.shadow, r.shadow_tablespace::name, r.state
        FROM shadowpart.route(relation, shadowpart.entities_of(entity)) r
    $$;
COMMENT ON FUNCTION shadow_route(regclass, anyelement) IS
    'Partitions in which entities live or would live, and their shadows.';
