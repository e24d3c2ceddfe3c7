-- Payments, and what is still to be carried out for each at the card network.
CREATE TABLE payments (
    id              TEXT PRIMARY KEY,
    order_id        TEXT NOT NULL,
    customer_id     TEXT NOT NULL,
    amount          INTEGER NOT NULL CHECK (amount >= 0),
    currency        TEXT NOT NULL,
    refunded        INTEGER NOT NULL CHECK (refunded >= 0),
    refund_pending  INTEGER NOT NULL CHECK (refund_pending >= 0),
    refund_all      BOOLEAN NOT NULL,
    -- Only until the card network has decided.
    token           TEXT,
    status          TEXT NOT NULL,
    intent          TEXT,
    decline_code    TEXT,
    intended_at     TEXT NOT NULL,
    attempts        INTEGER NOT NULL,
    stuck           BOOLEAN NOT NULL,
    -- When the intent may be taken up: while a replica is at it, the end of its lease.
    due_at          TEXT,
    traceparent     TEXT,
    version         INTEGER NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL,
    CHECK (refunded + refund_pending <= amount),
    CHECK ((intent IS NULL) = (due_at IS NULL))
) WITHOUT ROWID;
-- GET /api/payments?order_id=
CREATE INDEX payments_order ON payments (order_id, id);
-- GET /api/payments, as a customer
CREATE INDEX payments_customer ON payments (customer_id, id);
-- What the worker looks for; small, because a payment at rest is not in it.
CREATE INDEX payments_due ON payments (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE refunds (
    id              TEXT PRIMARY KEY,
    payment_id      TEXT NOT NULL REFERENCES payments (id),
    amount          INTEGER NOT NULL CHECK (amount > 0),
    reason          TEXT NOT NULL,
    status          TEXT NOT NULL,
    created_at      TEXT NOT NULL
) WITHOUT ROWID;
-- The next refund of a payment to carry out.
CREATE INDEX refunds_pending ON refunds (payment_id, id) WHERE status = 'pending';

-- Double entry: the two entries of a transfer have one payment and one cause, and a sum of 0.
CREATE TABLE ledger_entries (
    payment_id      TEXT NOT NULL REFERENCES payments (id),
    cause           TEXT NOT NULL,
    account         TEXT NOT NULL,
    -- Debits are positive, credits negative.
    amount          INTEGER NOT NULL CHECK (amount <> 0),
    currency        TEXT NOT NULL,
    at              TEXT NOT NULL,
    -- A cause moves the money of a payment once.
    PRIMARY KEY (payment_id, cause, account)
) WITHOUT ROWID;
CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries
BEGIN SELECT RAISE(ABORT, 'ledger entries cannot be changed'); END;
CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries
BEGIN SELECT RAISE(ABORT, 'ledger entries cannot be deleted'); END;

-- What the entries add up to, kept with them. Each account is spread over slots, because otherwise
-- all payments would wait for one row.
CREATE TABLE ledger_totals (
    account         TEXT NOT NULL,
    currency        TEXT NOT NULL,
    slot            INTEGER NOT NULL,
    balance         INTEGER NOT NULL,
    entries         INTEGER NOT NULL,
    PRIMARY KEY (account, currency, slot)
) WITHOUT ROWID;
