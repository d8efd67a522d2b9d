-- What the extension remembers. Written by the background worker and, for managed tables, by
-- SECURITY DEFINER functions; nobody else has any privilege here.
CREATE SCHEMA shadowpart;
COMMENT ON SCHEMA shadowpart IS 'Internals of shadowpart; use the functions and views named shadow_...';
GRANT USAGE ON SCHEMA shadowpart TO PUBLIC;

CREATE TABLE shadowpart.managed (
    relation regclass PRIMARY KEY,
    entity_column name NOT NULL,
    colocate_with regclass,
    managed_since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE shadowpart.managed IS
    'Managed tables: partitioned tables with the column that names the entity.';
SELECT pg_catalog.pg_extension_config_dump('shadowpart.managed', '');

CREATE TABLE shadowpart.shadow (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation oid NOT NULL,
    entity_column name NOT NULL,
    entities text[],
    adding text[],
    removing text[],
    whole_partition boolean NOT NULL,
    source name,
    target name NOT NULL,
    requested_by name NOT NULL,
    origin text NOT NULL DEFAULT 'person' CHECK (origin IN ('person', 'autopilot')),
    state text NOT NULL DEFAULT 'queued',
    goal text NOT NULL,
    phase text,
    verify boolean NOT NULL DEFAULT true,
    verified boolean NOT NULL DEFAULT false,
    waited boolean NOT NULL DEFAULT false,
    reverted boolean NOT NULL DEFAULT false,
    max_stall_ms integer NOT NULL,
    revert_window_s integer NOT NULL,
    revert_until timestamptz,
    waiter_pid integer,
    attempts integer NOT NULL DEFAULT 0,
    not_before timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error jsonb,
    waiting jsonb,
    figures jsonb NOT NULL DEFAULT '{}',
    CHECK (whole_partition = (entities IS NULL))
);
COMMENT ON TABLE shadowpart.shadow IS
    'Shadows and what is wanted of them; a background worker leads each from its state to its goal.';
CREATE INDEX shadow_live ON shadowpart.shadow (relation)
    WHERE state NOT IN ('finalized', 'dropped', 'failed', 'cancelled');

CREATE TABLE shadowpart.pair (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shadow_id bigint NOT NULL REFERENCES shadowpart.shadow ON DELETE CASCADE,
    primary_relid oid NOT NULL,
    shadow_relid oid,
    wrapper_relid oid,
    wrapped boolean NOT NULL DEFAULT false,
    delta_relid oid,
    key_columns name[] NOT NULL,
    reserved text,
    phase text NOT NULL DEFAULT 'new',
    swapped boolean NOT NULL DEFAULT false,
    tentative boolean NOT NULL DEFAULT false,
    blocks_total bigint,
    blocks_done bigint NOT NULL DEFAULT 0,
    rows_total bigint,
    rows_done bigint NOT NULL DEFAULT 0,
    bytes_done bigint NOT NULL DEFAULT 0,
    rows_before bigint NOT NULL DEFAULT 0,
    bytes_before bigint NOT NULL DEFAULT 0,
    phase_since timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE shadowpart.pair IS 'Pairs of a shadow: one for each leaf partition that holds its entities.';
CREATE INDEX pair_shadow ON shadowpart.pair (shadow_id);

-- Written by users' transactions: inserts only, no index, so that it can never make them fail.
CREATE TABLE shadowpart.stale (
    pair_id bigint NOT NULL,
    reason text NOT NULL
);
COMMENT ON TABLE shadowpart.stale IS 'Pairs whose sides may differ, and why; such a pair is never swapped.';

CREATE TABLE shadowpart.event (
    shadow_id bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    event text NOT NULL,
    took_ms double precision,
    details jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE shadowpart.event IS 'What happened to each shadow, with what was measured.';
CREATE INDEX event_shadow ON shadowpart.event (shadow_id, at);

REVOKE ALL ON ALL TABLES IN SCHEMA shadowpart FROM PUBLIC;
