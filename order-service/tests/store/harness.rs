//! Stores in new databases, with a verb for each action.

use std::rc::Rc;
use std::time::Duration;

use async_trait::async_trait;
use order_service::checkout::Trigger;
use order_service::domain::{Cart, CartLine, Details, Order, Price, Status, Stock};
use order_service::error::Error;
use order_service::store::{CatalogueItem, Cause, NewOrder, Store, migrations};
use order_service::tasks::timers;
use shared::client::Context;
use shared::db::{Db, DbConfig, Tx, now, query, testing};
use shared::messages::{Outgoing, Relay, SendError, Transport};
use time::OffsetDateTime;
use uuid::Uuid;

/// Sends nothing, so that messages stay in the outbox.
struct NoTransport;

#[async_trait(?Send)]
impl Transport for NoTransport {
    async fn send(&self, _: &Outgoing) -> Result<(), SendError> {
        Err(SendError::Unavailable("no transport".to_owned()))
    }
}

/// A store in a new database of each kind.
pub(crate) async fn stores() -> Vec<Store> {
    let mut stores = Vec::new();
    for url in testing::urls().await {
        stores.push(open(&url).await);
    }
    stores
}

/// One more replica of the store at `url`.
pub(crate) async fn open(url: &str) -> Store {
    let db = Db::open(&DbConfig::at(url), migrations()).await.unwrap();
    let (outbox, _) = Relay::new(db.clone(), Rc::new(NoTransport), &[]);
    Store::new(db, outbox, "replica-1")
}

pub(crate) fn cause() -> Cause {
    Cause::request("test", &Context::background())
}

pub(crate) fn details(name: &str, cents: i64) -> Details {
    Details {
        name: name.to_owned().try_into().unwrap(),
        description: String::new().try_into().unwrap(),
        price: Price::try_from(cents).unwrap(),
    }
}

pub(crate) fn cart(lines: &[(&CatalogueItem, i64)]) -> Cart {
    let line = |(item, quantity): &(&CatalogueItem, i64)| CartLine {
        product_id: item.product.id,
        quantity: (*quantity).try_into().unwrap(),
    };
    Cart::new(lines.iter().map(line).collect()).unwrap()
}

/// Adds a product with this much stock.
pub(crate) async fn product(store: &Store, stock: i64) -> CatalogueItem {
    let sku = Uuid::now_v7().to_string().try_into().unwrap();
    let mut tx = store.db().begin().await.unwrap();
    let level = stock.try_into().unwrap();
    let added = store.add_product(&mut tx, sku, details("Green tea", 350), level).await.unwrap();
    tx.commit().await.unwrap();
    added
}

/// Places an order without committing.
pub(crate) async fn place_in(
    tx: &mut Tx,
    store: &Store,
    lines: &[(&CatalogueItem, i64)],
) -> Result<Order, Error> {
    let order = quote(tx, store, lines).await?;
    place_quoted(tx, store, std::slice::from_ref(&order)).await?;
    Ok(order)
}

/// Places the orders of several customers in one transaction.
pub(crate) async fn place_all(
    store: &Store,
    carts: &[&[(&CatalogueItem, i64)]],
) -> Result<Vec<Order>, Error> {
    let mut tx = store.db().begin().await?;
    let mut orders = Vec::new();
    for lines in carts {
        orders.push(quote(&mut tx, store, lines).await?);
    }
    place_quoted(&mut tx, store, &orders).await?;
    tx.commit().await?;
    Ok(orders)
}

async fn quote(tx: &mut Tx, store: &Store, lines: &[(&CatalogueItem, i64)]) -> Result<Order, Error> {
    store.quote(tx, &[(Uuid::now_v7(), &cart(lines))]).await?.remove(0)
}

async fn place_quoted(tx: &mut Tx, store: &Store, orders: &[Order]) -> Result<(), Error> {
    let (token, cause) = ("tok_visa".to_owned().try_into().unwrap(), cause());
    let new = orders.iter().map(|order| NewOrder { order, token: &token, cause: &cause });
    store.place(tx, new.collect()).await
}

pub(crate) async fn place(store: &Store, lines: &[(&CatalogueItem, i64)]) -> Result<Order, Error> {
    let mut tx = store.db().begin().await?;
    let order = place_in(&mut tx, store, lines).await?;
    tx.commit().await?;
    Ok(order)
}

/// Applies `trigger` to the order.
pub(crate) async fn apply(store: &Store, order: &Order, trigger: Trigger) -> Result<Order, Error> {
    let mut tx = store.db().begin().await?;
    let order = store.lock_and_apply_trigger(&mut tx, order.id, &trigger, &cause()).await?;
    tx.commit().await?;
    Ok(order)
}

/// A paid order.
pub(crate) async fn confirmed(store: &Store, lines: &[(&CatalogueItem, i64)]) -> Order {
    let order = place(store, lines).await.unwrap();
    apply(store, &order, Trigger::Authorized).await.unwrap();
    let order = apply(store, &order, Trigger::Captured).await.unwrap();
    assert_eq!(order.status(), Status::Confirmed);
    order
}

/// The quantities on hand, reserved and sold.
pub(crate) async fn stock_columns(store: &Store, item: &CatalogueItem) -> (i64, i64, i64) {
    let stock = stock(store, item).await;
    (stock.on_hand, stock.reserved, stock.sold)
}

pub(crate) async fn stock(store: &Store, item: &CatalogueItem) -> Stock {
    let stock = store.stock().await.unwrap();
    *stock.iter().find(|stock| stock.product_id == item.product.id).unwrap()
}

/// The commands about an order that were written, oldest first.
pub(crate) async fn commands(store: &Store, order: &Order) -> Vec<String> {
    let sent = query("SELECT event FROM outbox WHERE subject = $1 ORDER BY seq");
    let rows = sent.bind(order.id.to_string()).fetch_all(store.db()).await.unwrap();
    let kind = |row: &shared::db::Row| row.get::<serde_json::Value>("event").unwrap()["type"].to_string();
    rows.iter()
        .map(kind)
        .map(|kind| kind.trim_matches('"').replace("payment.", "").replace(".v1", ""))
        .collect()
}

/// Applies all timers that expire within `time`; returns how many.
pub(crate) async fn expire_timers(store: &Store, time: Duration) -> usize {
    let later = in_the_future(time);
    let mut expired = 0;
    while timers::advance_due(store, later).await.unwrap().is_some() {
        expired += 1;
    }
    expired
}

pub(crate) fn in_the_future(time: Duration) -> OffsetDateTime {
    now() + time
}

pub(crate) async fn count(store: &Store, table: &str) -> i64 {
    let row = query(format!("SELECT COUNT(*) AS rows FROM {table}")).fetch_one(store.db()).await.unwrap();
    row.get("rows").unwrap()
}
