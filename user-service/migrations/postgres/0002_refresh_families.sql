-- Of the part that all refresh tokens of a session share: by it, a spent token that was deleted is still known.
ALTER TABLE sessions ADD COLUMN family text;
CREATE UNIQUE INDEX sessions_family ON sessions (family);
-- A spent token and its salt give the token that took its place.
ALTER TABLE refresh_tokens ADD COLUMN salt text;
-- The pruning of spent tokens.
CREATE INDEX refresh_tokens_spent ON refresh_tokens (spent_at) WHERE spent_at IS NOT NULL;
