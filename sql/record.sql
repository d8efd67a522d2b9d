-- The history of the load. Written by the scheduler of the database alone, once a minute; never by users'
-- transactions. Rows of minutes (level 1) are summed up to five minutes (5) and those to hours (60).
-- What was not measured has no row: nothing here is zero because nobody looked.
CREATE TABLE shadowpart.entity_history (
    level smallint NOT NULL,
    at timestamptz NOT NULL,
    covered_ms bigint NOT NULL,
    relation oid NOT NULL,
    entity text,
    partition oid,
    inserts bigint NOT NULL,
    updates bigint NOT NULL,
    deletes bigint NOT NULL,
    bytes_written bigint NOT NULL,
    bytes_removed bigint NOT NULL,
    reads bigint NOT NULL,
    rows_read bigint NOT NULL,
    exec_us bigint NOT NULL,
    cpu_us bigint NOT NULL,
    blocks_read bigint NOT NULL,
    reset boolean NOT NULL
);
COMMENT ON TABLE shadowpart.entity_history IS
    'What each entity has cost. For each covered stretch a managed table has one row without an entity: '
    'all that is not in a row of an entity, possibly nothing. An entity that has no row of a stretch that '
    'its table has one of has done nothing in it, or so little that it is in the row without an entity: '
    'the thousand most active of a table have rows of their own.';
COMMENT ON COLUMN shadowpart.entity_history.level IS 'Length of the stretch in minutes: 1, 5 or 60.';
COMMENT ON COLUMN shadowpart.entity_history.at IS 'Begin of the stretch.';
COMMENT ON COLUMN shadowpart.entity_history.covered_ms IS
    'How much of the stretch was measured, in milliseconds; rates are figures divided by this.';
COMMENT ON COLUMN shadowpart.entity_history.entity IS 'NULL: all beyond the entities that are listed.';
COMMENT ON COLUMN shadowpart.entity_history.reset IS
    'Counters were reset or went away meanwhile: the figures are lower bounds.';
CREATE INDEX entity_history_at ON shadowpart.entity_history (level, at);

CREATE TABLE shadowpart.partition_history (
    level smallint NOT NULL,
    at timestamptz NOT NULL,
    covered_ms bigint NOT NULL,
    relation oid NOT NULL,
    partition oid,
    inserts bigint NOT NULL,
    updates bigint NOT NULL,
    deletes bigint NOT NULL,
    hot_updates bigint NOT NULL,
    seq_scans bigint NOT NULL,
    idx_scans bigint NOT NULL,
    rows_read bigint NOT NULL,
    blks_hit bigint NOT NULL,
    blks_read bigint NOT NULL,
    read_ms double precision,
    lock_waits bigint NOT NULL,
    grown_bytes bigint,
    size_bytes bigint,
    live_rows bigint,
    dead_rows bigint,
    counted_rows bigint,
    counted_bytes bigint,
    counted_reads bigint,
    counted_cpu_us bigint,
    reset boolean NOT NULL
);
COMMENT ON TABLE shadowpart.partition_history IS
    'What was done to each leaf partition of a managed table, from PostgreSQL''s cumulative statistics. For '
    'each covered stretch there is one row without a partition: the table as a whole. A partition that has '
    'no row of a stretch that its table has one of was idle and did not change in it.';
COMMENT ON COLUMN shadowpart.partition_history.level IS 'Length of the stretch in minutes: 1, 5 or 60.';
COMMENT ON COLUMN shadowpart.partition_history.at IS 'Begin of the stretch.';
COMMENT ON COLUMN shadowpart.partition_history.covered_ms IS
    'How much of the stretch was measured, in milliseconds; rates are figures divided by this.';
COMMENT ON COLUMN shadowpart.partition_history.partition IS 'NULL: the table as a whole.';
COMMENT ON COLUMN shadowpart.partition_history.rows_read IS
    'Live rows returned by sequential scans and fetched by index scans.';
COMMENT ON COLUMN shadowpart.partition_history.blks_read IS
    'Blocks of heap, indexes and TOAST that were not in shared buffers.';
COMMENT ON COLUMN shadowpart.partition_history.read_ms IS
    'Time spent reading, as its share of the blocks read in the database: PostgreSQL does not time '
    'relations one by one. NULL unless track_io_timing is on.';
COMMENT ON COLUMN shadowpart.partition_history.lock_waits IS
    'Looks, one every five seconds, at which somebody waited for a lock on it or on a row of it.';
COMMENT ON COLUMN shadowpart.partition_history.grown_bytes IS
    'How much it grew, with indexes and TOAST; NULL where a look at its size would have had to wait.';
COMMENT ON COLUMN shadowpart.partition_history.size_bytes IS
    'Size at the end of the stretch, with indexes and TOAST.';
COMMENT ON COLUMN shadowpart.partition_history.live_rows IS 'Estimate at the end of the stretch.';
COMMENT ON COLUMN shadowpart.partition_history.dead_rows IS 'Estimate at the end of the stretch.';
COMMENT ON COLUMN shadowpart.partition_history.counted_rows IS
    'Rows written by statements, as the counters of entities have them: without what mirrors write. NULL '
    'where nothing was counted; so the other columns named counted_.';
COMMENT ON COLUMN shadowpart.partition_history.reset IS
    'Statistics were reset or began meanwhile: the figures are lower bounds.';
CREATE INDEX partition_history_at ON shadowpart.partition_history (level, at);

CREATE TABLE shadowpart.host_history (
    level smallint NOT NULL,
    at timestamptz NOT NULL,
    covered_ms bigint NOT NULL,
    cpus double precision,
    cpu_busy double precision,
    cpu_iowait double precision,
    cpu_steal double precision,
    cpu_throttled double precision,
    load1 double precision,
    memory_total_bytes bigint,
    memory_used double precision,
    swap_used_bytes bigint,
    pressure_cpu double precision,
    pressure_memory double precision,
    pressure_io double precision
);
COMMENT ON TABLE shadowpart.host_history IS
    'How busy the machine was: fractions from 0 to 1, averaged over the stretch. Limits of a container '
    'count as the size of the machine. NULL is what the system does not tell.';
COMMENT ON COLUMN shadowpart.host_history.cpus IS 'CPUs that can be used at once.';
COMMENT ON COLUMN shadowpart.host_history.cpu_throttled IS
    'Fraction of the periods of a CPU quota in which it was used up.';
COMMENT ON COLUMN shadowpart.host_history.pressure_io IS
    'Fraction of time in which at least one task stood still waiting for I/O; likewise for CPU and memory.';
CREATE INDEX host_history_at ON shadowpart.host_history (level, at);

CREATE TABLE shadowpart.disk_history (
    level smallint NOT NULL,
    at timestamptz NOT NULL,
    covered_ms bigint NOT NULL,
    device text NOT NULL,
    tablespaces name[] NOT NULL,
    utilisation double precision,
    reads_s double precision,
    writes_s double precision,
    read_bytes_s double precision,
    written_bytes_s double precision,
    queue double precision,
    read_ms double precision,
    write_ms double precision
);
COMMENT ON TABLE shadowpart.disk_history IS
    'How busy the disks were that tablespaces lie on, averaged over the stretch.';
COMMENT ON COLUMN shadowpart.disk_history.utilisation IS
    'Fraction of time with at least one request under way.';
COMMENT ON COLUMN shadowpart.disk_history.queue IS 'Requests under way, on average.';
COMMENT ON COLUMN shadowpart.disk_history.read_ms IS
    'Time that one read took, on average; NULL if there was none.';
CREATE INDEX disk_history_at ON shadowpart.disk_history (level, at);

REVOKE ALL ON shadowpart.entity_history, shadowpart.partition_history,
    shadowpart.host_history, shadowpart.disk_history FROM PUBLIC;

CREATE FUNCTION shadowpart.host_now()
    RETURNS TABLE (
        resource text,
        name text,
        tablespaces text[],
        used double precision,
        capacity double precision,
        read_bytes_s double precision,
        written_bytes_s double precision,
        queue double precision,
        wait_ms double precision,
        steal double precision,
        stalled double precision
    )
    LANGUAGE c VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'host_now_wrapper';
COMMENT ON FUNCTION shadowpart.host_now() IS
    'How busy the machine is, measured now: over the time since the call before in this session if that was '
    'between one second and five minutes ago, else over a tenth of a second.';
