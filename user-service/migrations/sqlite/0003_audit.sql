-- What admins did to other people, for ever.
CREATE TABLE audit (
    id            TEXT PRIMARY KEY,
    at            TEXT NOT NULL,
    admin_id      TEXT NOT NULL,
    user_id       TEXT NOT NULL,
    action        TEXT NOT NULL,
    -- The names of the changed fields, never their values.
    fields        TEXT NOT NULL,
    client        TEXT NOT NULL,
    trace_id      TEXT
);

CREATE TRIGGER audit_is_not_updated BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the table audit is append-only'); END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the table audit is append-only'); END;
