//! Placing and changing orders, and their timers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use shared::client::Context;
use shared::db::{DbError, DeferredWrite, Row, Tx, placeholders, query};
use shared::trace::SpanKind;
use time::OffsetDateTime;
use uuid::Uuid;

use super::batch::Batch;
use super::rows::{LockedOrder, bind_state};
use super::stock::StockColumn::{OnHand, Reserved, Sold};
use super::stock::{move_at_end, reserve};
use super::{Store, commands, rows};
use crate::checkout::{self, Decision, Effect, Transition, Trigger};
use crate::config::PAYMENTS;
use crate::domain::{Cart, CartLine, Line, Order, PaymentToken, Reason, Status};
use crate::error::Error;
use crate::metrics;

const POSTPONED_BY: time::Duration = time::Duration::seconds(30);

/// The cause of a change, for the timeline.
#[derive(Debug, Clone)]
pub struct Cause {
    pub name: &'static str,
    /// The message that caused the change, if any.
    pub message_id: Option<Uuid>,
    /// The delivery attempt of the message, the attempt of the saga's step, or 1.
    pub attempt: i64,
    pub context: Context,
}

impl Cause {
    pub fn request(name: &'static str, context: &Context) -> Self {
        Self { name, message_id: None, attempt: 1, context: context.clone() }
    }
}

/// An order to place.
#[derive(Debug)]
pub struct NewOrder<'a> {
    pub order: &'a Order,
    pub token: &'a PaymentToken,
    pub cause: &'a Cause,
}

impl Store {
    /// Creates an order for each customer and cart, at the current prices. Writes nothing.
    ///
    /// With several carts, also checks the limit and the stock, in their order, because one refused order would fail all in
    /// [`Store::place`].
    pub async fn quote(
        &self,
        tx: &mut Tx,
        carts: &[(Uuid, &Cart)],
    ) -> Result<Vec<Result<Order, Error>>, DbError> {
        let mut offers = offers(tx, carts.iter().flat_map(|(_, cart)| cart.lines())).await?;
        let customers: Vec<_> = carts.iter().map(|(customer_id, _)| *customer_id).collect();
        let mut unpaid = if carts.len() > 1 { Some(self.unpaid(tx, &customers).await?) } else { None };
        let now = tx.now();
        let mut quote = |(customer_id, cart): &(Uuid, &Cart)| -> Result<Order, Error> {
            let order = Order::place(*customer_id, price(&offers, cart)?, now)?;
            if let Some(unpaid) = &mut unpaid {
                unpaid.check(*customer_id)?;
                take(&mut offers, &order.lines)?;
                unpaid.add(*customer_id);
            }
            Ok(order)
        };
        Ok(carts.iter().map(&mut quote).collect())
    }

    /// Places orders: reserves their stock and sends the commands to authorize the payments.
    ///
    /// # Errors
    /// [`Error::TooManyAwaitPayment`] and [`Error::OutOfStock`]. With several orders, one that is refused fails all.
    pub async fn place(&self, tx: &mut Tx, orders: Vec<NewOrder<'_>>) -> Result<(), Error> {
        let customers: BTreeSet<_> = orders.iter().map(|new| new.order.customer_id).collect();
        let customers: Vec<_> = customers.into_iter().collect();
        self.lock_customers(tx, &customers).await?;
        // After the lock: a statement sees what was committed before it began.
        let mut unpaid = self.unpaid(tx, &customers).await?;
        let mut begun = Vec::with_capacity(orders.len());
        for NewOrder { order, token, cause } in orders {
            unpaid.check(order.customer_id)?;
            unpaid.add(order.customer_id);
            begun.push((checkout::begin(order.clone(), token.clone(), tx.now()), cause));
        }
        insert(tx, &begun).await?;
        for (transition, cause) in &begun {
            self.defer_effects(tx, None, transition, cause);
        }
        // The rows of the stock are locked until the commit, so everything else is written before.
        tx.write_deferred().await?;
        let lines = begun.iter().flat_map(|(transition, _)| &transition.order.lines);
        reserve(tx, &lines.collect::<Vec<_>>()).await
    }

    /// Locks the order and applies `trigger`. Returns the order after the change.
    pub async fn lock_and_apply_trigger(
        &self,
        tx: &mut Tx,
        id: Uuid,
        trigger: &Trigger,
        cause: &Cause,
    ) -> Result<Order, Error> {
        let locked = self.lock(tx, id).await?;
        let now = tx.now();
        self.apply_trigger(tx, locked, trigger, cause, now).await
    }

    /// Locks an order until the transaction ends.
    pub async fn lock(&self, tx: &mut Tx, id: Uuid) -> Result<LockedOrder, Error> {
        if let Some(locked) = tx.deferred::<Batch>().get(id) {
            return Ok(locked.clone());
        }
        let sql = format!("SELECT {} FROM orders WHERE id = $1 FOR UPDATE", rows::ORDER);
        let row = query(sql).bind(id).fetch_optional(tx).await?.ok_or(Error::NotFound)?;
        Ok(LockedOrder::of(&row)?)
    }

    /// Applies `trigger` to a locked order at the time `now`. Returns the order after the change.
    pub async fn apply_trigger(
        &self,
        tx: &mut Tx,
        locked: LockedOrder,
        trigger: &Trigger,
        cause: &Cause,
        now: OffsetDateTime,
    ) -> Result<Order, Error> {
        let LockedOrder { order, saga, .. } = locked;
        match checkout::handle(&order, &saga, trigger, now)? {
            Decision::Ignore => Ok(order),
            Decision::Apply(transition) => {
                if !tx.deferred::<Batch>().change(&transition.order, &transition.saga) {
                    update(tx, &order, &transition).await?;
                }
                self.defer_effects(tx, Some(order.status()), &transition, cause);
                Ok(transition.order)
            }
        }
    }

    /// Locks an order whose timer has expired at the time `now`. Skips orders that another replica has locked.
    pub async fn lock_due(&self, tx: &mut Tx, now: OffsetDateTime) -> Result<Option<Uuid>, DbError> {
        let due = query(
            "SELECT id FROM orders WHERE wake_at <= $1 ORDER BY wake_at LIMIT 1 FOR UPDATE SKIP LOCKED",
        );
        let row = due.bind(now).fetch_optional(tx).await?;
        row.map(|row| row.get("id")).transpose()
    }

    /// Applies the expired timer of an order.
    pub async fn apply_timer(&self, tx: &mut Tx, id: Uuid, now: OffsetDateTime) -> Result<(), Error> {
        let locked = self.lock(tx, id).await?;
        let context = Context::in_trace(locked.traceparent.clone());
        let cause =
            Cause { attempt: locked.saga.attempts, ..Cause::request(Trigger::Timer.as_str(), &context) };
        self.apply_trigger(tx, locked, &Trigger::Timer, &cause, now).await.map(drop)
    }

    /// Delays an expired timer that cannot be handled now.
    pub async fn postpone(&self, tx: &mut Tx, id: Uuid, now: OffsetDateTime) -> Result<(), DbError> {
        let later = query("UPDATE orders SET wake_at = $2 WHERE id = $1 AND wake_at <= $3");
        later.bind(id).bind(now + POSTPONED_BY).bind(now).execute(tx).await.map(drop)
    }

    /// Whether any timer has expired. Usually none has. So this read comes first, and it takes no lock.
    pub async fn is_any_due(&self, now: OffsetDateTime) -> Result<bool, DbError> {
        // Without ORDER BY, PostgreSQL reads the whole table: it expects that a third of the timers has expired.
        let due = query("SELECT id FROM orders WHERE wake_at <= $1 ORDER BY wake_at LIMIT 1").bind(now);
        Ok(due.fetch_optional(&self.db).await?.is_some())
    }

    /// Collects the timeline entry and the effects of a transition, which are written at the end of the transaction. The rows
    /// of the stock, which many orders change, are written last. Notifies subscribers after the commit.
    fn defer_effects(
        &self,
        tx: &mut Tx,
        from: Option<Status>,
        Transition { order, saga, effects }: &Transition,
        cause: &Cause,
    ) {
        let mut span = cause.context.start_span(SpanKind::Internal, "saga step");
        span.record(|span| {
            span.set("order.id", order.id.to_string());
            span.set("order.status.from", from.map_or("-", Status::as_str));
            span.set("order.status.to", order.status().as_str());
            span.set("saga.step", saga.step.as_str());
            span.set("saga.cause", cause.name);
            span.set("saga.attempt", cause.attempt);
        });
        tx.deferred::<NewTimelineEntries>().0.push(NewTimelineEntry {
            order_id: order.id,
            version: order.version(),
            at: order.updated_at(),
            from,
            to: order.status(),
            cause: cause.clone(),
            instance: self.instance.clone(),
        });
        for effect in effects {
            let (from, to) = match effect {
                Effect::Send(command) => {
                    let event = commands::event(order, command, &cause.context);
                    self.outbox.put(tx, PAYMENTS, event);
                    continue;
                }
                // Only `checkout::begin` has it, and `place` reserves.
                Effect::ReserveStock => continue,
                Effect::CommitStock => (Reserved, Sold),
                Effect::ReleaseStock => (Reserved, OnHand),
                Effect::ReturnStock => (Sold, OnHand),
            };
            move_at_end(tx, &order.lines, from, to);
        }
        let (notifier, order) = (self.notifier.clone(), order.clone());
        tx.on_commit(move || {
            notifier.publish(&order);
            if from != Some(order.status()) {
                metrics::count_status(&order);
            }
        });
    }
}

/// An entry of an order's timeline.
struct NewTimelineEntry {
    order_id: Uuid,
    version: i64,
    at: OffsetDateTime,
    from: Option<Status>,
    to: Status,
    cause: Cause,
    instance: Arc<str>,
}

/// The entries of one transaction. One statement inserts all.
#[derive(Default)]
struct NewTimelineEntries(Vec<NewTimelineEntry>);

#[async_trait(?Send)]
impl DeferredWrite for NewTimelineEntries {
    async fn write(self: Box<Self>, tx: &mut Tx) -> Result<(), DbError> {
        let insert = query(format!(
            "INSERT INTO order_events (order_id, version, at, from_status, to_status, reason, cause, \
             message_id, attempt, trace_id, instance) VALUES {}",
            placeholders(1, 11, self.0.len())
        ));
        let insert = self.0.iter().fold(insert, |insert, entry| {
            insert
                .bind(entry.order_id)
                .bind(entry.version)
                .bind(entry.at)
                .bind(entry.from.map(Status::as_str))
                .bind(entry.to.as_str())
                .bind(entry.to.reason().map(Reason::as_str))
                .bind(entry.cause.name)
                .bind(entry.cause.message_id)
                .bind(entry.cause.attempt)
                .bind(entry.cause.context.trace_id())
                .bind(&*entry.instance)
        });
        insert.execute(tx).await.map(drop)
    }

    fn locks_contended_rows(&self) -> bool {
        false
    }
}

/// The offers of the products of `lines`, by id.
async fn offers(
    tx: &mut Tx,
    lines: impl Iterator<Item = &CartLine>,
) -> Result<BTreeMap<Uuid, Offer>, DbError> {
    let ids: BTreeSet<_> = lines.map(|line| line.product_id).collect();
    let products = query(
        "SELECT id, sku, name, price, on_hand FROM products JOIN stock ON stock.product_id = products.id \
         WHERE id = ANY($1)",
    );
    let rows = products.bind(ids.into_iter().collect::<Vec<_>>()).fetch_all(tx).await?;
    rows.into_iter().map(|row| Ok((row.get("id")?, Offer { available: row.get("on_hand")?, row }))).collect()
}

/// A product as it can be ordered now.
struct Offer {
    row: Row,
    available: i64,
}

/// The lines of the cart at the current prices.
fn price(offers: &BTreeMap<Uuid, Offer>, cart: &Cart) -> Result<Vec<Line>, Error> {
    let mut lines = Vec::with_capacity(cart.lines().len());
    let mut unknown = Vec::new();
    for (index, CartLine { product_id, quantity }) in cart.lines().iter().enumerate() {
        match offers.get(product_id) {
            None => unknown.push(index),
            Some(offer) => lines.push(rows::new_line(&offer.row, *quantity)?),
        }
    }
    if unknown.is_empty() { Ok(lines) } else { Err(Error::UnknownProduct(unknown)) }
}

/// Takes the quantities from what is available, if there is enough of all.
fn take(offers: &mut BTreeMap<Uuid, Offer>, lines: &[Line]) -> Result<(), Error> {
    let is_missing =
        |line: &Line| offers.get(&line.product_id).is_none_or(|offer| offer.available < line.quantity.get());
    let missing: Vec<_> =
        (0..).zip(lines).filter(|(_, line)| is_missing(line)).map(|(index, _)| index).collect();
    if !missing.is_empty() {
        return Err(Error::OutOfStock(missing));
    }
    for line in lines {
        if let Some(offer) = offers.get_mut(&line.product_id) {
            offer.available -= line.quantity.get();
        }
    }
    Ok(())
}

async fn insert(tx: &mut Tx, orders: &[(Transition, &Cause)]) -> Result<(), DbError> {
    let insert = query(format!(
        "INSERT INTO orders (id, customer_id, lines, total, payment_id, created_at, traceparent, \
         status, reason, version, updated_at, step, attempts, deadline, wake_at, last_error) VALUES {}",
        placeholders(1, 16, orders.len())
    ));
    let insert = orders.iter().fold(insert, |insert, (Transition { order, saga, .. }, cause)| {
        let insert = insert
            .bind(order.id)
            .bind(order.customer_id)
            .bind(rows::lines(&order.lines))
            .bind(order.total.amount())
            .bind(order.payment_id)
            .bind(order.created_at)
            .bind(cause.context.traceparent());
        bind_state(insert, order, saga)
    });
    insert.execute(tx).await.map(drop)
}

/// Updates the order if it still has the version of `before`.
async fn update(tx: &mut Tx, before: &Order, transition: &Transition) -> Result<(), Error> {
    let update = query(
        "UPDATE orders SET status = $3, reason = $4, version = $5, updated_at = $6, step = $7, \
         attempts = $8, deadline = $9, wake_at = $10, last_error = $11 WHERE id = $1 AND version = $2",
    )
    .bind(before.id)
    .bind(before.version());
    let written = bind_state(update, &transition.order, &transition.saga).execute(tx).await?;
    if written == 1 { Ok(()) } else { Err(Error::Stale) }
}
