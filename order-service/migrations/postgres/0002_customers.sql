-- A row for each customer who has placed an order: two orders of one customer lock it and take turns.
CREATE TABLE customers (
    id            uuid PRIMARY KEY
);
-- How many orders of a customer await payment.
CREATE INDEX orders_awaiting_payment ON orders (customer_id) WHERE status = 'awaiting_payment';
