-- What is set of a table, of a partition and of targets, and what is refused. No load, so nothing is predicted.
\set SHOW_CONTEXT never
CREATE TABLE orders (tenant int, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
CREATE TABLE orders_a PARTITION OF orders FOR VALUES IN (1, 2);
CREATE TABLE orders_b PARTITION OF orders DEFAULT;
SELECT shadow_set_policy('orders', write_rows_s => 100);
SELECT shadow_manage('orders', 'tenant');
SELECT setting, value, source FROM shadow_policies;

-- The partition before the table, the table before the default.
SELECT shadow_set_policy('orders', autopilot => 'shadow', write_rows_s => 1000, cooldown => '10 min',
    quiet_hours => '22:00-6:00');
SELECT shadow_set_policy('orders_a', write_rows_s => 50.5);
SELECT partition, setting, value, source FROM shadow_policies WHERE source <> 'default';
SELECT shadow_reset_policy('orders', ARRAY['cooldown', 'write_rows_s']);
SELECT partition, setting, value, source FROM shadow_policies WHERE source <> 'default';

-- Refused.
SELECT shadow_set_policy('orders', autopilot => 'full');
SELECT shadow_set_policy('orders', write_rows_s => 0);
SELECT shadow_set_policy('orders', cooldown => '-1 min');
SELECT shadow_set_policy('orders', ticks => '4 of 3');
SELECT shadow_set_policy('orders', quiet_hours => '00:00-24:00');
SELECT shadow_set_policy('orders', threshold => 0.3);
SELECT shadow_set_policy('orders', relief => 0.95);
SELECT shadow_set_policy('orders', targets => '{nowhere}');
SELECT shadow_set_policy('orders_a', threshold => 0.8);
SELECT shadow_reset_policy('orders', '{nonsense}');

-- Targets.
SELECT shadow_add_target('fast', write_rows_s => 5000);
SELECT shadow_add_target('nowhere');
SELECT shadow_add_target('fast', size_bytes => -1);
SELECT tablespace, settings FROM shadowpart.target;
SELECT shadow_drop_target('fast');
SELECT shadow_drop_target('fast');

-- Nothing is known of a load yet. What is managed no more has no settings.
SELECT count(*) FROM shadow_predict('orders');
SELECT count(*) FROM shadow_plan('orders_a');
SELECT shadow_unmanage('orders');
SELECT count(*) FROM shadowpart.policy;
SELECT count(*) FROM shadow_policies;
