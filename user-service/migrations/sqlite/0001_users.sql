-- People. The address is kept as it was written; its lower-case form is what must be unique.
CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    email         TEXT NOT NULL,
    email_key     TEXT NOT NULL,
    name          TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    is_admin      BOOLEAN NOT NULL,
    deactivated   BOOLEAN NOT NULL DEFAULT FALSE,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL,
    version       INTEGER NOT NULL DEFAULT 1,
    UNIQUE (email_key)
);

-- One login, and all the refresh tokens that follow from it: a family.
CREATE TABLE sessions (
    id            TEXT PRIMARY KEY,
    user_id       TEXT NOT NULL REFERENCES users (id),
    created_at    TEXT NOT NULL,
    expires_at    TEXT NOT NULL,
    revoked_at    TEXT
);
-- A new password ends a person's sessions.
CREATE INDEX sessions_user ON sessions (user_id);
-- The pruning of what is over.
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Only the hashes: who reads this table cannot log in with it.
CREATE TABLE refresh_tokens (
    hash          TEXT PRIMARY KEY,
    session_id    TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    spent_at      TEXT
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- Wrong passwords since the last right one, by client and address: by the address's digest, because
-- anything may be written there.
CREATE TABLE login_failures (
    address       TEXT NOT NULL,
    client        TEXT NOT NULL,
    failures      INTEGER NOT NULL,
    began_at      TEXT NOT NULL,
    PRIMARY KEY (address, client)
);
CREATE INDEX login_failures_began ON login_failures (began_at);
