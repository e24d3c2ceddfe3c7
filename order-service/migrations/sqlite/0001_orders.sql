-- What is sold.
CREATE TABLE products (
    id            TEXT PRIMARY KEY,
    sku           TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    description   TEXT NOT NULL,
    price         INTEGER NOT NULL CHECK (price >= 0),
    -- Name and sku in lower case, for searching. A catalogue is small: it is scanned.
    search        TEXT NOT NULL,
    version       INTEGER NOT NULL,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
) WITHOUT ROWID;

-- How much there is of a product. Apart from it, because every order changes this and none that.
CREATE TABLE stock (
    product_id    TEXT PRIMARY KEY REFERENCES products (id),
    on_hand       INTEGER NOT NULL CHECK (on_hand >= 0),
    reserved      INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    sold          INTEGER NOT NULL DEFAULT 0 CHECK (sold >= 0),
    initial       INTEGER NOT NULL CHECK (initial >= 0),
    adjusted      INTEGER NOT NULL DEFAULT 0,
    -- Things are moved, or counted in and out; nothing makes or loses one.
    CHECK (on_hand + reserved + sold = initial + adjusted)
) WITHOUT ROWID;

-- Who counted what in or out, and why.
CREATE TABLE stock_adjustments (
    id            TEXT PRIMARY KEY,
    product_id    TEXT NOT NULL REFERENCES products (id),
    delta         INTEGER NOT NULL CHECK (delta <> 0),
    reason        TEXT NOT NULL,
    admin_id      TEXT NOT NULL,
    at            TEXT NOT NULL
) WITHOUT ROWID;

-- An order, its saga, and by both what it holds of the stock.
CREATE TABLE orders (
    id            TEXT PRIMARY KEY,
    customer_id   TEXT NOT NULL,
    -- What was agreed; never changes.
    lines         TEXT NOT NULL,
    total         INTEGER NOT NULL CHECK (total >= 0),
    payment_id    TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    -- The trace of the request that placed it, for what timers do.
    traceparent   TEXT,
    -- What the customer sees.
    status        TEXT NOT NULL,
    reason        TEXT,
    version       INTEGER NOT NULL,
    updated_at    TEXT NOT NULL,
    -- What is left to do.
    step          TEXT NOT NULL,
    attempts      INTEGER NOT NULL,
    deadline      TEXT NOT NULL,
    wake_at       TEXT,
    last_error    TEXT,
    CHECK ((status = 'rejected') = (reason IS NOT NULL)),
    CHECK (step <> 'done' OR wake_at IS NULL)
) WITHOUT ROWID;
-- A customer's orders, newest first.
CREATE INDEX orders_customer ON orders (customer_id, id);
-- An admin's list of orders in a status, newest first.
CREATE INDEX orders_status ON orders (status, id);
-- The timers ask for whatever is due; few orders have one.
CREATE INDEX orders_due ON orders (wake_at) WHERE wake_at IS NOT NULL;
-- An admin's list of sagas that are not done.
CREATE INDEX orders_open ON orders (id) WHERE step <> 'done';

-- Every change of an order, for ever: one row per version, so that no two writers can make the same.
CREATE TABLE order_events (
    order_id      TEXT NOT NULL REFERENCES orders (id),
    version       INTEGER NOT NULL,
    at            TEXT NOT NULL,
    from_status   TEXT,
    to_status     TEXT NOT NULL,
    reason        TEXT,
    cause         TEXT NOT NULL,
    message_id    TEXT,
    attempt       INTEGER NOT NULL,
    trace_id      TEXT,
    instance      TEXT NOT NULL,
    PRIMARY KEY (order_id, version)
) WITHOUT ROWID;

CREATE TRIGGER order_events_are_not_updated BEFORE UPDATE ON order_events
BEGIN SELECT RAISE(ABORT, 'the table order_events is append-only'); END;
CREATE TRIGGER order_events_are_not_deleted BEFORE DELETE ON order_events
BEGIN SELECT RAISE(ABORT, 'the table order_events is append-only'); END;
