-- Events on their way to another service, written with the change they tell of.
CREATE TABLE outbox (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL,
    destination   TEXT NOT NULL,
    subject       TEXT NOT NULL,
    event         TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    last_error    TEXT,
    -- Who may send it, until when; free if the time is past.
    claimed_by    TEXT,
    next_at       TEXT NOT NULL,
    sent_at       TEXT
);
-- The relay asks for the oldest unsent event of each subject.
CREATE INDEX outbox_pending ON outbox (subject, seq) WHERE sent_at IS NULL;
-- The pruning of what was sent.
CREATE INDEX outbox_sent ON outbox (sent_at) WHERE sent_at IS NOT NULL;

-- Events whose effect has happened.
CREATE TABLE inbox (
    consumer      TEXT NOT NULL,
    id            TEXT NOT NULL,
    seen_at       TEXT NOT NULL,
    PRIMARY KEY (consumer, id)
) WITHOUT ROWID;
CREATE INDEX inbox_seen ON inbox (seen_at);

-- Events that could not be delivered, kept for a person to decide.
CREATE TABLE dead_letters (
    id            TEXT PRIMARY KEY,
    destination   TEXT NOT NULL,
    type          TEXT NOT NULL,
    subject       TEXT NOT NULL,
    event         TEXT NOT NULL,
    attempts      INTEGER NOT NULL,
    last_error    TEXT NOT NULL,
    at            TEXT NOT NULL
) WITHOUT ROWID;

-- Answers to requests with an Idempotency-Key, kept for 24 hours.
CREATE TABLE idempotency_keys (
    scope         TEXT NOT NULL,
    key           TEXT NOT NULL,
    fingerprint   TEXT NOT NULL,
    answer        TEXT,
    expires_at    TEXT NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
