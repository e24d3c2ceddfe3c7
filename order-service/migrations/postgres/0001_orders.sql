-- What is sold.
CREATE TABLE products (
    id            uuid PRIMARY KEY,
    sku           text NOT NULL UNIQUE,
    name          text NOT NULL,
    description   text NOT NULL,
    price         bigint NOT NULL CHECK (price >= 0),
    -- Name and sku in lower case, for searching. A catalogue is small: it is scanned.
    search        text NOT NULL,
    version       bigint NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
);

-- How much there is of a product. Apart from it, because every order changes this and none that; rows
-- are locked in the order of their product's id, so that two orders never wait for each other.
CREATE TABLE stock (
    product_id    uuid PRIMARY KEY REFERENCES products (id),
    on_hand       bigint NOT NULL CHECK (on_hand >= 0),
    reserved      bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    sold          bigint NOT NULL DEFAULT 0 CHECK (sold >= 0),
    initial       bigint NOT NULL CHECK (initial >= 0),
    adjusted      bigint NOT NULL DEFAULT 0,
    -- Things are moved, or counted in and out; nothing makes or loses one.
    CHECK (on_hand + reserved + sold = initial + adjusted)
);

-- Who counted what in or out, and why.
CREATE TABLE stock_adjustments (
    id            uuid PRIMARY KEY,
    product_id    uuid NOT NULL REFERENCES products (id),
    delta         bigint NOT NULL CHECK (delta <> 0),
    reason        text NOT NULL,
    admin_id      uuid NOT NULL,
    at            timestamptz NOT NULL
);

-- An order, its saga, and by both what it holds of the stock: the row that every change locks first.
CREATE TABLE orders (
    id            uuid PRIMARY KEY,
    customer_id   uuid NOT NULL,
    -- What was agreed; never changes.
    lines         jsonb NOT NULL,
    total         bigint NOT NULL CHECK (total >= 0),
    payment_id    uuid NOT NULL,
    created_at    timestamptz NOT NULL,
    -- The trace of the request that placed it, for what timers do.
    traceparent   text,
    -- What the customer sees.
    status        text NOT NULL,
    reason        text,
    version       bigint NOT NULL,
    updated_at    timestamptz NOT NULL,
    -- What is left to do.
    step          text NOT NULL,
    attempts      bigint NOT NULL,
    deadline      timestamptz NOT NULL,
    wake_at       timestamptz,
    last_error    text,
    CHECK ((status = 'rejected') = (reason IS NOT NULL)),
    CHECK (step <> 'done' OR wake_at IS NULL)
);
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
    order_id      uuid NOT NULL REFERENCES orders (id),
    version       bigint NOT NULL,
    at            timestamptz NOT NULL,
    from_status   text,
    to_status     text NOT NULL,
    reason        text,
    cause         text NOT NULL,
    message_id    uuid,
    attempt       bigint NOT NULL,
    trace_id      text,
    instance      text NOT NULL,
    PRIMARY KEY (order_id, version)
);

CREATE FUNCTION is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the table % is append-only', TG_TABLE_NAME; END $$;
CREATE TRIGGER order_events_are_append_only BEFORE UPDATE OR DELETE ON order_events
    FOR EACH ROW EXECUTE FUNCTION is_append_only();
