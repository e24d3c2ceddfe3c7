-- People. The address is kept as it was written; its lower-case form is what must be unique.
CREATE TABLE users (
    id            uuid PRIMARY KEY,
    email         text NOT NULL,
    email_key     text NOT NULL,
    name          text NOT NULL,
    password_hash text NOT NULL,
    is_admin      boolean NOT NULL,
    deactivated   boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    version       bigint NOT NULL DEFAULT 1,
    CONSTRAINT users_email_key_key UNIQUE (email_key)
);

-- One login, and all the refresh tokens that follow from it: a family.
CREATE TABLE sessions (
    id            uuid PRIMARY KEY,
    user_id       uuid NOT NULL REFERENCES users (id),
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz
);
-- A new password ends a person's sessions.
CREATE INDEX sessions_user ON sessions (user_id);
-- The pruning of what is over.
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- Only the hashes: who reads this table cannot log in with it.
CREATE TABLE refresh_tokens (
    hash          text PRIMARY KEY,
    session_id    uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    spent_at      timestamptz
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);

-- Wrong passwords since the last right one, by client and address: by the address's digest, because
-- anything may be written there.
CREATE TABLE login_failures (
    address       text NOT NULL,
    client        text NOT NULL,
    failures      bigint NOT NULL,
    began_at      timestamptz NOT NULL,
    PRIMARY KEY (address, client)
);
CREATE INDEX login_failures_began ON login_failures (began_at);
