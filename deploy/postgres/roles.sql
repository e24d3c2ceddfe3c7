-- Rights in one database. `owner` migrates and owns the tables. `worker` is the login of the running programs: it
-- uses rows, and can neither change tables nor drop or disable their triggers. Also moves a database to this in
-- which `worker` owns the tables.
BEGIN;
REASSIGN OWNED BY :"worker" TO :"owner";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"worker";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO :"worker";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"worker";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT USAGE ON SEQUENCES TO :"worker";
COMMIT;
