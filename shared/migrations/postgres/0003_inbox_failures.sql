-- How often the handler of an event has failed: a redelivery alone is no attempt.
CREATE TABLE inbox_failures (
    consumer      text NOT NULL,
    id            uuid NOT NULL,
    failures      bigint NOT NULL,
    at            timestamptz NOT NULL,
    PRIMARY KEY (consumer, id)
);
CREATE INDEX inbox_failures_at ON inbox_failures (at);
