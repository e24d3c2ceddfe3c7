-- Where the card network says something else than our books: both figures, until they agree again.
CREATE TABLE differences (
    -- Of the authorization at the card network.
    key             TEXT NOT NULL,
    figure          TEXT NOT NULL,
    -- NULL if it is not in our books.
    payment_id      TEXT,
    ours            INTEGER NOT NULL,
    our_currency    TEXT NOT NULL,
    theirs          INTEGER NOT NULL,
    their_currency  TEXT NOT NULL,
    found_at        TEXT NOT NULL,
    resolved_at     TEXT,
    PRIMARY KEY (key, figure)
) WITHOUT ROWID;
-- GET /admin/differences, newest first, and the metric.
CREATE INDEX differences_open ON differences (found_at) WHERE resolved_at IS NULL;
CREATE INDEX differences_resolved ON differences (resolved_at) WHERE resolved_at IS NOT NULL;
