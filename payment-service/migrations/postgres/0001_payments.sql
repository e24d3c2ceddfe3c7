-- Payments, and what is still to be carried out for each at the card network.
CREATE TABLE payments (
    id              uuid PRIMARY KEY,
    order_id        uuid NOT NULL,
    customer_id     uuid NOT NULL,
    amount          bigint NOT NULL CHECK (amount >= 0),
    currency        text NOT NULL,
    refunded        bigint NOT NULL CHECK (refunded >= 0),
    refund_pending  bigint NOT NULL CHECK (refund_pending >= 0),
    refund_all      boolean NOT NULL,
    -- Only until the card network has decided.
    token           text,
    status          text NOT NULL,
    intent          text,
    decline_code    text,
    intended_at     timestamptz NOT NULL,
    attempts        bigint NOT NULL,
    stuck           boolean NOT NULL,
    -- When the intent may be taken up: while a replica is at it, the end of its lease.
    due_at          timestamptz,
    traceparent     text,
    version         bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CHECK (refunded + refund_pending <= amount),
    CHECK ((intent IS NULL) = (due_at IS NULL))
);
-- GET /api/payments?order_id=
CREATE INDEX payments_order ON payments (order_id, id);
-- GET /api/payments, as a customer
CREATE INDEX payments_customer ON payments (customer_id, id);
-- What the worker looks for; small, because a payment at rest is not in it.
CREATE INDEX payments_due ON payments (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE refunds (
    id              uuid PRIMARY KEY,
    payment_id      uuid NOT NULL REFERENCES payments (id),
    amount          bigint NOT NULL CHECK (amount > 0),
    reason          text NOT NULL,
    status          text NOT NULL,
    created_at      timestamptz NOT NULL
);
-- The next refund of a payment to carry out.
CREATE INDEX refunds_pending ON refunds (payment_id, id) WHERE status = 'pending';

-- Double entry: the two entries of a transfer have one payment and one cause, and a sum of 0.
CREATE TABLE ledger_entries (
    payment_id      uuid NOT NULL REFERENCES payments (id),
    cause           text NOT NULL,
    account         text NOT NULL,
    -- Debits are positive, credits negative.
    amount          bigint NOT NULL CHECK (amount <> 0),
    currency        text NOT NULL,
    at              timestamptz NOT NULL,
    -- A cause moves the money of a payment once.
    PRIMARY KEY (payment_id, cause, account)
);
CREATE FUNCTION ledger_entries_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger entries cannot be changed or deleted';
END $$;
CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_entries_stay();
CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE OR TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_entries_stay();

-- What the entries add up to, kept with them. Each account is spread over slots, because otherwise
-- all payments would wait for one row.
CREATE TABLE ledger_totals (
    account         text NOT NULL,
    currency        text NOT NULL,
    slot            bigint NOT NULL,
    balance         bigint NOT NULL,
    entries         bigint NOT NULL,
    PRIMARY KEY (account, currency, slot)
);
