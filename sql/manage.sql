-- Managed tables.
CREATE FUNCTION shadow_manage(relation regclass, entity_column name, colocate_with regclass DEFAULT NULL)
    RETURNS void LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.manage(relation, entity_column, colocate_with) $$;
COMMENT ON FUNCTION shadow_manage(regclass, name, regclass) IS
    'Registers a partitioned table whose column entity_column names the entity (tenant) of each row.';

CREATE FUNCTION shadow_unmanage(relation regclass)
    RETURNS void LANGUAGE sql VOLATILE
    AS $$ SELECT shadowpart.unmanage(relation) $$;
COMMENT ON FUNCTION shadow_unmanage(regclass) IS
    'Forgets a managed table. Refused while it has live shadows. Partitions stay where they are.';
