-- Money that the card network holds, held, or refused to hold.
CREATE TABLE authorizations (
    key             TEXT PRIMARY KEY,
    -- NULL if all that came was a void.
    order_id        TEXT,
    amount          INTEGER NOT NULL,
    currency        TEXT NOT NULL,
    token           TEXT NOT NULL,
    decline_code    TEXT,
    voided          BOOLEAN NOT NULL
) WITHOUT ROWID;
CREATE INDEX authorizations_order ON authorizations (order_id);

-- Money that it moved.
CREATE TABLE movements (
    key             TEXT PRIMARY KEY,
    authorization   TEXT NOT NULL REFERENCES authorizations (key),
    kind            TEXT NOT NULL CHECK (kind IN ('capture', 'refund')),
    amount          INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX movements_authorization ON movements (authorization);

-- How often the cards that misbehave were used.
CREATE TABLE calls (
    operation       TEXT NOT NULL,
    key             TEXT NOT NULL,
    calls           INTEGER NOT NULL,
    PRIMARY KEY (operation, key)
) WITHOUT ROWID;
