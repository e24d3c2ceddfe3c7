-- The relay's look for the oldest that are due; small, because what was sent is not in it.
CREATE INDEX outbox_unsent ON outbox (seq) WHERE sent_at IS NULL;
-- An admin's list of the newest.
CREATE INDEX dead_letters_at ON dead_letters (at);
