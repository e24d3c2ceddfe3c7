-- Where the card network says something else than our books: both figures, until they agree again.
CREATE TABLE differences (
    -- Of the authorization at the card network.
    key             text NOT NULL,
    figure          text NOT NULL,
    -- NULL if it is not in our books.
    payment_id      uuid,
    ours            bigint NOT NULL,
    our_currency    text NOT NULL,
    theirs          bigint NOT NULL,
    their_currency  text NOT NULL,
    found_at        timestamptz NOT NULL,
    resolved_at     timestamptz,
    PRIMARY KEY (key, figure)
);
-- GET /admin/differences, newest first, and the metric.
CREATE INDEX differences_open ON differences (found_at) WHERE resolved_at IS NULL;
CREATE INDEX differences_resolved ON differences (resolved_at) WHERE resolved_at IS NOT NULL;
