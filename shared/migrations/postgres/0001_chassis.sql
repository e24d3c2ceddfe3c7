-- Events on their way to another service, written with the change they tell of.
CREATE TABLE outbox (
    seq           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id            uuid NOT NULL,
    destination   text NOT NULL,
    subject       text NOT NULL,
    event         jsonb NOT NULL,
    created_at    timestamptz NOT NULL,
    attempts      bigint NOT NULL DEFAULT 0,
    last_error    text,
    -- Who may send it, until when; free if the time is past.
    claimed_by    text,
    next_at       timestamptz NOT NULL,
    sent_at       timestamptz
);
-- The relay asks for the oldest unsent event of each subject.
CREATE INDEX outbox_pending ON outbox (subject, seq) WHERE sent_at IS NULL;
-- The pruning of what was sent.
CREATE INDEX outbox_sent ON outbox (sent_at) WHERE sent_at IS NOT NULL;

-- Events whose effect has happened.
CREATE TABLE inbox (
    consumer      text NOT NULL,
    id            uuid NOT NULL,
    seen_at       timestamptz NOT NULL,
    PRIMARY KEY (consumer, id)
);
CREATE INDEX inbox_seen ON inbox (seen_at);

-- Events that could not be delivered, kept for a person to decide.
CREATE TABLE dead_letters (
    id            uuid PRIMARY KEY,
    destination   text NOT NULL,
    type          text NOT NULL,
    subject       text NOT NULL,
    event         jsonb NOT NULL,
    attempts      bigint NOT NULL,
    last_error    text NOT NULL,
    at            timestamptz NOT NULL
);

-- Answers to requests with an Idempotency-Key, kept for 24 hours.
CREATE TABLE idempotency_keys (
    scope         text NOT NULL,
    key           text NOT NULL,
    fingerprint   text NOT NULL,
    answer        jsonb,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
