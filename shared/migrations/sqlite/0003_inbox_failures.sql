-- How often the handler of an event has failed: a redelivery alone is no attempt.
CREATE TABLE inbox_failures (
    consumer      TEXT NOT NULL,
    id            TEXT NOT NULL,
    failures      INTEGER NOT NULL,
    at            TEXT NOT NULL,
    PRIMARY KEY (consumer, id)
) WITHOUT ROWID;
CREATE INDEX inbox_failures_at ON inbox_failures (at);
