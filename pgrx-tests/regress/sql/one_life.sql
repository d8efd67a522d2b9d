-- One entity: moved, looked at from all sides, moved back, moved again, kept.
CREATE TABLE orders (tenant int, id int, v text, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
CREATE TABLE orders_a PARTITION OF orders FOR VALUES IN (1, 2);
CREATE TABLE orders_rest PARTITION OF orders DEFAULT;
INSERT INTO orders SELECT n % 5, n, 'v' || n FROM generate_series(1, 1000) n;
SELECT shadow_manage('orders', 'tenant');
SET client_min_messages = warning;

-- Entities of two partitions in one shadow: each pair moves its own.
SELECT shadow_migrate('orders', ARRAY[2, 3], tablespace => 'fast') AS id \gset
SELECT state, entities, source, target, rows FROM shadow_status WHERE id = :id;
SELECT entity, partition, tablespace, shadow, shadow_tablespace, state FROM shadow_route('orders', 2);
SELECT entity, partition, tablespace, shadow, shadow_tablespace, state FROM shadow_route('orders', 3);
SELECT entity, partition, tablespace, shadow, state FROM shadow_route('orders', 4);
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_partition_tree('orders') t
  JOIN pg_class c ON c.oid = t.relid WHERE isleaf ORDER BY 1;

-- Each row once, through the root and through the leaves.
SELECT tenant, count(*), min(tableoid::regclass::text), max(tableoid::regclass::text) FROM orders GROUP BY 1 ORDER BY 1;
SELECT (SELECT count(*) FROM orders_a) AS a, (SELECT count(*) FROM orders_rest) AS rest,
       (SELECT count(*) FROM orders_a_s1) AS a_s1, (SELECT count(*) FROM orders_rest_s2) AS rest_s2;
COPY (SELECT count(*) FROM orders) TO STDOUT;
-- Only where a primary keeps hidden rows, and the query does not name the entity, is there a filter.
SET enable_indexscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM orders WHERE v = 'v7';
EXPLAIN (COSTS OFF) SELECT * FROM orders WHERE tenant = 3 AND id = 8;
EXPLAIN (COSTS OFF) DELETE FROM orders WHERE tenant = 1;
RESET enable_indexscan;
RESET enable_bitmapscan;

-- Writes of all kinds, and the way back.
UPDATE orders SET v = v || '!' WHERE id % 10 = 2;
UPDATE orders SET tenant = 2, id = id + 1000 WHERE tenant = 4 AND id <= 20;
UPDATE orders SET tenant = 4, id = id + 2000 WHERE tenant = 3 AND id <= 20;
DELETE FROM orders WHERE id % 50 = 3;
INSERT INTO orders VALUES (2, 5000, 'new'), (3, 5000, 'new'), (1, 5000, 'new')
    ON CONFLICT (tenant, id) DO UPDATE SET v = 'conflict';
SELECT * FROM shadow_verify(:id);
SELECT tenant, count(*), sum(length(v)) FROM orders GROUP BY 1 ORDER BY 1;
SELECT shadow_revert(:id);
SELECT tenant, count(*), sum(length(v)) FROM orders GROUP BY 1 ORDER BY 1;
SELECT * FROM shadow_verify(:id);
SELECT shadow_swap(:id);
SELECT shadow_finalize(:id);
SELECT tenant, count(*), sum(length(v)), min(tableoid::regclass::text) FROM orders GROUP BY 1 ORDER BY 1;
SELECT state, rows FROM shadow_status WHERE id = :id;
SELECT DISTINCT event FROM shadow_history WHERE id = :id ORDER BY 1;
SELECT count(*) AS hidden_rows_left FROM pg_trigger WHERE tgname LIKE '!shadowpart_mark%';
SELECT shadow_revert(:id);
