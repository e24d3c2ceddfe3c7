//! Placing an order, and applying triggers to it.

use shared::client::Context;
use shared::db::{DbError, Query, Tx, now, query};
use time::OffsetDateTime;
use uuid::Uuid;

use super::stock::{Place, shift};
use super::{Store, events, rows};
use crate::checkout::{self, Decision, Effect, Move, Saga, Trigger};
use crate::domain::{Cart, Line, Order, PaymentToken, Reason, Status};
use crate::error::Error;
use crate::metrics;

const POSTPONED_BY: time::Duration = time::Duration::seconds(30);

/// Why something happens to an order, for its timeline.
#[derive(Debug, Clone)]
pub struct Cause {
    /// Its name.
    pub name: &'static str,
    /// The message that told of it.
    pub message_id: Option<Uuid>,
    /// The try at which it came.
    pub attempt: i64,
    /// The trace it belongs to.
    pub context: Context,
}

/// An order whose row is locked, and its saga.
#[derive(Debug)]
pub struct Checkout {
    /// The order.
    pub order: Order,
    saga: Saga,
    traceparent: Option<String>,
}

impl Cause {
    /// What a person asked for.
    pub fn request(name: &'static str, context: &Context) -> Self {
        Self { name, message_id: None, attempt: 1, context: context.clone() }
    }
}

impl Store {
    /// Places an order: prices the lines, reserves the goods, and orders the payment.
    ///
    /// # Errors
    /// [`Error::UnknownProduct`], [`Error::OutOfStock`] or [`Error::Total`].
    pub async fn place(
        &self,
        tx: &mut Tx,
        customer_id: Uuid,
        cart: &Cart,
        token: PaymentToken,
        cause: &Cause,
    ) -> Result<Order, Error> {
        let now = now();
        let order = Order::place(customer_id, priced(tx, cart).await?, now)?;
        let begun = checkout::begin(order, token, now);
        insert(tx, &begun, cause.context.traceparent()).await?;
        self.apply(tx, None, &begun, cause).await?;
        Ok(begun.order)
    }

    /// Applies `event` to the order, and returns the order after it.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Refused`] if the checkout does not allow it.
    pub async fn advance(
        &self,
        tx: &mut Tx,
        id: Uuid,
        event: &Trigger,
        cause: &Cause,
    ) -> Result<Order, Error> {
        let checkout = self.lock(tx, id).await?;
        self.proceed(tx, checkout, event, cause, now()).await
    }

    /// Locks an order until the transaction ends.
    pub async fn lock(&self, tx: &mut Tx, id: Uuid) -> Result<Checkout, Error> {
        let sql = format!("SELECT {} FROM orders WHERE id = $1 FOR UPDATE", rows::ORDER);
        let row = query(sql).bind(id).fetch_optional(tx).await?.ok_or(Error::NotFound)?;
        Ok(Checkout {
            order: rows::order(&row)?,
            saga: rows::saga(&row)?,
            traceparent: row.get("traceparent")?,
        })
    }

    /// Applies `event` to a locked order at the time `now`.
    ///
    /// # Errors
    /// [`Error::Refused`] if the checkout does not allow it.
    pub async fn proceed(
        &self,
        tx: &mut Tx,
        checkout: Checkout,
        event: &Trigger,
        cause: &Cause,
        now: OffsetDateTime,
    ) -> Result<Order, Error> {
        let Checkout { order, saga, .. } = checkout;
        match checkout::handle(&order, &saga, event, now)? {
            Decision::Stays => Ok(order),
            Decision::Moves(moved) => {
                update(tx, &order, &moved).await?;
                self.apply(tx, Some(order.status()), &moved, cause).await?;
                Ok(moved.order)
            }
        }
    }

    /// Locks one order whose timer has run out at the time `now`. Orders that another replica has locked
    /// are passed over.
    pub async fn lock_due(&self, tx: &mut Tx, now: OffsetDateTime) -> Result<Option<Uuid>, DbError> {
        let due = query(
            "SELECT id FROM orders WHERE wake_at <= $1 ORDER BY wake_at LIMIT 1 FOR UPDATE SKIP LOCKED",
        );
        let row = due.bind(now).fetch_optional(tx).await?;
        row.map(|row| row.get("id")).transpose()
    }

    /// Applies the timer of an order.
    pub async fn time_out(&self, tx: &mut Tx, id: Uuid, now: OffsetDateTime) -> Result<(), Error> {
        let checkout = self.lock(tx, id).await?;
        let context = Context::in_trace(checkout.traceparent.clone());
        let cause =
            Cause { attempt: checkout.saga.attempts, ..Cause::request(Trigger::Timer.as_str(), &context) };
        self.proceed(tx, checkout, &Trigger::Timer, &cause, now).await.map(drop)
    }

    /// Sets a timer that cannot be handled now to a later time.
    pub async fn postpone(&self, tx: &mut Tx, id: Uuid, now: OffsetDateTime) -> Result<(), DbError> {
        let later = query("UPDATE orders SET wake_at = $2 WHERE id = $1 AND wake_at <= $3");
        later.bind(id).bind(now + POSTPONED_BY).bind(now).execute(tx).await.map(drop)
    }

    /// Whether any timer has run out: a read without a lock, because mostly none has.
    pub async fn is_any_due(&self, now: OffsetDateTime) -> Result<bool, DbError> {
        let due = query("SELECT id FROM orders WHERE wake_at <= $1 LIMIT 1").bind(now);
        Ok(due.fetch_optional(&self.db).await?.is_some())
    }

    /// Writes what comes with a changed order: its effects, and its line in the timeline.
    async fn apply(
        &self,
        tx: &mut Tx,
        from: Option<Status>,
        moved: &Move,
        cause: &Cause,
    ) -> Result<(), Error> {
        let Move { order, effects, .. } = moved;
        self.record(tx, from, order, cause).await?;
        for effect in effects {
            let missing = match effect {
                Effect::Send(command) => {
                    let event = events::command(order, command, &cause.context);
                    self.outbox.put(tx, events::PAYMENTS, event).await?;
                    continue;
                }
                Effect::ReserveStock => shift(tx, &order.lines, Place::OnHand, Place::Reserved).await?,
                Effect::CommitStock => shift(tx, &order.lines, Place::Reserved, Place::Sold).await?,
                Effect::ReleaseStock => shift(tx, &order.lines, Place::Reserved, Place::OnHand).await?,
                Effect::ReturnStock => shift(tx, &order.lines, Place::Sold, Place::OnHand).await?,
            };
            if !missing.is_empty() {
                return Err(Error::OutOfStock(missing));
            }
        }
        let (notifier, order) = (self.notifier.clone(), order.clone());
        tx.on_commit(move || {
            notifier.publish(&order);
            if from != Some(order.status()) {
                metrics::order_became(order.status());
            }
        });
        Ok(())
    }

    async fn record(
        &self,
        tx: &mut Tx,
        from: Option<Status>,
        order: &Order,
        cause: &Cause,
    ) -> Result<(), DbError> {
        query(
            "INSERT INTO order_events (order_id, version, at, from_status, to_status, reason, cause, \
             message_id, attempt, trace_id, instance) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(order.id)
        .bind(order.version())
        .bind(order.updated_at())
        .bind(from.map(Status::as_str))
        .bind(order.status().as_str())
        .bind(order.status().reason().map(Reason::as_str))
        .bind(cause.name)
        .bind(cause.message_id)
        .bind(cause.attempt)
        .bind(cause.context.trace_id())
        .bind(&*self.instance)
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// The lines of the cart at today's prices.
async fn priced(tx: &mut Tx, cart: &Cart) -> Result<Vec<Line>, Error> {
    let places: Vec<String> = (1..=cart.lines().len()).map(|place| format!("${place}")).collect();
    let sql = format!("SELECT {} FROM products WHERE id IN ({})", rows::PRODUCT, places.join(", "));
    let products = cart.lines().iter().fold(query(sql), |query, line| query.bind(line.product_id));
    let products = products.fetch_all(tx).await?;
    let products = products.iter().map(rows::product).collect::<Result<Vec<_>, _>>()?;
    let mut lines = Vec::with_capacity(cart.lines().len());
    let mut unknown = Vec::new();
    for (index, wanted) in cart.lines().iter().enumerate() {
        match products.iter().find(|product| product.id == wanted.product_id) {
            None => unknown.push(index),
            Some(product) => lines.push(Line {
                product_id: product.id,
                sku: product.sku.as_str().to_owned(),
                name: product.details.name.as_str().to_owned(),
                quantity: wanted.quantity,
                unit_price: product.details.price.money(),
            }),
        }
    }
    if unknown.is_empty() { Ok(lines) } else { Err(Error::UnknownProduct(unknown)) }
}

async fn insert(tx: &mut Tx, begun: &Move, traceparent: Option<&str>) -> Result<(), DbError> {
    let order = &begun.order;
    let insert = query(
        "INSERT INTO orders (id, customer_id, lines, total, payment_id, created_at, traceparent, \
         status, reason, version, updated_at, step, attempts, deadline, wake_at, last_error) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(order.id)
    .bind(order.customer_id)
    .bind(rows::lines(&order.lines))
    .bind(order.total.amount())
    .bind(order.payment_id)
    .bind(order.created_at)
    .bind(traceparent);
    bind_changing(insert, begun).execute(tx).await?;
    Ok(())
}

/// Writes the order over the version that the decision was made on, and over no other.
async fn update(tx: &mut Tx, before: &Order, moved: &Move) -> Result<(), Error> {
    let update = query(
        "UPDATE orders SET status = $3, reason = $4, version = $5, updated_at = $6, step = $7, \
         attempts = $8, deadline = $9, wake_at = $10, last_error = $11 WHERE id = $1 AND version = $2",
    )
    .bind(before.id)
    .bind(before.version());
    let written = bind_changing(update, moved).execute(tx).await?;
    if written == 1 { Ok(()) } else { Err(Error::Stale) }
}

/// What changes in an order's row: from `status` to `last_error`, in the order of both statements above.
fn bind_changing(statement: Query, moved: &Move) -> Query {
    let Move { order, saga, .. } = moved;
    statement
        .bind(order.status().as_str())
        .bind(order.status().reason().map(Reason::as_str))
        .bind(order.version())
        .bind(order.updated_at())
        .bind(saga.step.as_str())
        .bind(saga.attempts)
        .bind(saga.deadline)
        .bind(saga.wake_at)
        .bind(saga.last_error.as_deref())
}
