-- Rights in one database. `owner` migrates and owns the tables. `worker` is the login of the running programs: it
-- uses rows, can neither change tables nor drop or disable their triggers, and reads which migrations ran. Also moves a database to this in
-- which `worker` owns the tables.
BEGIN;
REASSIGN OWNED BY :"worker" TO :"owner";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"worker";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"worker";
-- Only who migrates writes what has been migrated; shared/src/db/migrate.rs does the same for new tables.
DO $$ DECLARE held record; BEGIN
    FOR held IN SELECT DISTINCT table_name, grantee FROM information_schema.role_table_grants
        WHERE table_schema = 'public' AND grantee NOT IN (grantor, 'PUBLIC') AND privilege_type <> 'SELECT'
        AND table_name IN ('_chassis_migrations', '_sqlx_migrations') LOOP
        EXECUTE format('REVOKE ALL ON %I FROM %I', held.table_name, held.grantee);
        EXECUTE format('GRANT SELECT ON %I TO %I', held.table_name, held.grantee);
    END LOOP; END $$;
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"worker";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT USAGE ON SEQUENCES TO :"worker";
COMMIT;
