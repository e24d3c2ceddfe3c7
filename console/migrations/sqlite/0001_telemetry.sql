-- Times are microseconds since 1970. What is searched for has a column; the rest is in `details`.
CREATE TABLE spans (
    -- In the order of arrival.
    id              INTEGER PRIMARY KEY,
    trace_id        TEXT NOT NULL,
    span_id         TEXT NOT NULL,
    parent_id       TEXT,
    service         TEXT NOT NULL,
    instance        TEXT,
    name            TEXT NOT NULL,
    kind            TEXT NOT NULL,
    route           TEXT,
    order_id        TEXT,
    start_us        INTEGER NOT NULL,
    duration_us     INTEGER NOT NULL,
    is_error        BOOLEAN NOT NULL,
    details         TEXT NOT NULL
);
-- One trace; and a span that is sent twice is kept once.
CREATE UNIQUE INDEX spans_trace ON spans (trace_id, span_id);
CREATE INDEX spans_order ON spans (order_id) WHERE order_id IS NOT NULL;

-- One row for each trace, kept up as its spans arrive.
CREATE TABLE traces (
    trace_id        TEXT PRIMARY KEY,
    start_us        INTEGER NOT NULL,
    end_us          INTEGER NOT NULL,
    -- Of the span that began first.
    service         TEXT NOT NULL,
    name            TEXT NOT NULL,
    order_id        TEXT,
    spans           INTEGER NOT NULL,
    errors          INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX traces_start ON traces (start_us);

CREATE TABLE logs (
    id              INTEGER PRIMARY KEY,
    at_us           INTEGER NOT NULL,
    trace_id        TEXT,
    span_id         TEXT,
    service         TEXT NOT NULL,
    instance        TEXT,
    -- 0 trace, 1 debug, 2 info, 3 warn, 4 error
    level           INTEGER NOT NULL,
    message         TEXT NOT NULL,
    attributes      TEXT NOT NULL
);
CREATE INDEX logs_at ON logs (at_us);
CREATE INDEX logs_trace ON logs (trace_id) WHERE trace_id IS NOT NULL;

-- Served requests in steps of 30 s.
CREATE TABLE rollups (
    step            INTEGER NOT NULL,
    service         TEXT NOT NULL,
    route           TEXT NOT NULL,
    requests        INTEGER NOT NULL,
    errors          INTEGER NOT NULL,
    -- How many took how long, as text: see Histogram.
    histogram       TEXT NOT NULL,
    PRIMARY KEY (step, service, route)
) WITHOUT ROWID;
