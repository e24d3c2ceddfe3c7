-- What admins did to what belongs to other people, for ever.
CREATE TABLE admin_acts (
    id            TEXT PRIMARY KEY,
    at            TEXT NOT NULL,
    admin_id      TEXT NOT NULL,
    action        TEXT NOT NULL,
    subject_id    TEXT NOT NULL,
    details       TEXT NOT NULL,
    request_id    TEXT,
    trace_id      TEXT
);

CREATE TRIGGER admin_acts_are_not_updated BEFORE UPDATE ON admin_acts
BEGIN SELECT RAISE(ABORT, 'the table admin_acts is append-only'); END;
CREATE TRIGGER admin_acts_are_not_deleted BEFORE DELETE ON admin_acts
BEGIN SELECT RAISE(ABORT, 'the table admin_acts is append-only'); END;
