CREATE TABLE things (
    id            uuid PRIMARY KEY,
    owner_id      uuid NOT NULL,
    name          text NOT NULL,
    created_at    timestamptz NOT NULL,
    version       bigint NOT NULL
);
-- One owner's list, newest first.
CREATE INDEX things_owner ON things (owner_id, id);
