-- What the extension offers: functions, views, settings, and who may use them.
SELECT p.oid::regprocedure AS function, pg_get_function_result(p.oid) AS result,
       CASE p.provolatile WHEN 'v' THEN 'volatile' WHEN 's' THEN 'stable' ELSE 'immutable' END AS volatility
  FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'shadowpart'
 WHERE p.pronamespace <> 'shadowpart'::regnamespace
 ORDER BY p.proname COLLATE "C", 1;

SELECT c.relname AS view, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
 WHERE c.relkind = 'v' AND c.relname LIKE 'shadow\_%'
 ORDER BY c.relname COLLATE "C", a.attnum;

SELECT name, setting, unit, context, vartype, min_val, max_val
  FROM pg_settings WHERE name LIKE 'shadowpart.%' AND name <> 'shadowpart.failpoint'
 ORDER BY name COLLATE "C";

-- Everything says what it is.
SELECT p.oid::regprocedure AS without_comment
  FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'shadowpart'
 WHERE obj_description(p.oid, 'pg_proc') IS NULL;
SELECT c.oid::regclass AS without_comment
  FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'shadowpart'
 WHERE c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL;

-- Nobody but its owner has anything in the extension's own schema, but the right to look at its names.
SELECT c.oid::regclass AS relation, a.privilege_type, a.grantee::regrole
  FROM pg_class c, aclexplode(c.relacl) a
 WHERE c.relnamespace = 'shadowpart'::regnamespace AND a.grantee <> c.relowner;
