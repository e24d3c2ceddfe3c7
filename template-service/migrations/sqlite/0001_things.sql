CREATE TABLE things (
    id            TEXT PRIMARY KEY,
    owner_id      TEXT NOT NULL,
    name          TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    version       INTEGER NOT NULL
) WITHOUT ROWID;
-- One owner's list, newest first.
CREATE INDEX things_owner ON things (owner_id, id);
