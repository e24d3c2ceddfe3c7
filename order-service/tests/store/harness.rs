//! A store in a new database, with a verb per thing that happens to it.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use order_service::checkout::Trigger;
use order_service::domain::{Cart, CartLine, Details, Order, Price, Status, Stock};
use order_service::error::Error;
use order_service::store::{Cause, Listed, Store, migrations};
use order_service::tasks::timers;
use shared::client::Context;
use shared::db::{Db, DbConfig, Tx, now, query, testing};
use shared::messages::{Outgoing, Relay, SendError, Transport};
use time::OffsetDateTime;
use uuid::Uuid;

/// A transport that is never used: what is sent stays in the outbox, to be looked at.
struct Nowhere;

impl Transport for Nowhere {
    fn send<'a>(&'a self, _: &'a Outgoing) -> LocalBoxFuture<'a, Result<(), SendError>> {
        async { Err(SendError::Unavailable("nowhere".to_owned())) }.boxed_local()
    }
}

/// A new store on each database that this machine has.
pub(crate) async fn stores() -> Vec<Store> {
    let mut stores = Vec::new();
    for url in testing::urls().await {
        stores.push(open(&url).await);
    }
    stores
}

/// A store in the database at `url`, as one more replica opens it.
pub(crate) async fn open(url: &str) -> Store {
    let db = Db::open(&DbConfig::at(url), migrations()).await.unwrap();
    let (outbox, _) = Relay::new(db.clone(), Rc::new(Nowhere));
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

pub(crate) fn cart(lines: &[(&Listed, i64)]) -> Cart {
    let line = |(listed, quantity): &(&Listed, i64)| CartLine {
        product_id: listed.product.id,
        quantity: (*quantity).try_into().unwrap(),
    };
    Cart::of(lines.iter().map(line).collect()).unwrap()
}

/// Adds a product of which there is so much.
pub(crate) async fn product(store: &Store, level: i64) -> Listed {
    let sku = Uuid::now_v7().to_string().try_into().unwrap();
    let mut tx = store.db().begin().await.unwrap();
    let level = level.try_into().unwrap();
    let added = store.add_product(&mut tx, sku, details("Green tea", 350), level).await.unwrap();
    tx.commit().await.unwrap();
    added
}

/// Places an order in `tx`, and leaves the rest to the caller.
pub(crate) async fn place_in(tx: &mut Tx, store: &Store, lines: &[(&Listed, i64)]) -> Result<Order, Error> {
    let token = "tok_visa".to_owned().try_into().unwrap();
    store.place(tx, Uuid::now_v7(), &cart(lines), token, &cause()).await
}

/// Places an order.
pub(crate) async fn place(store: &Store, lines: &[(&Listed, i64)]) -> Result<Order, Error> {
    let mut tx = store.db().begin().await?;
    let order = place_in(&mut tx, store, lines).await?;
    tx.commit().await?;
    Ok(order)
}

/// Lets `event` happen to the order.
pub(crate) async fn on(store: &Store, order: &Order, event: Trigger) -> Result<Order, Error> {
    let mut tx = store.db().begin().await?;
    let order = store.advance(&mut tx, order.id, &event, &cause()).await?;
    tx.commit().await?;
    Ok(order)
}

/// An order that is paid.
pub(crate) async fn confirmed(store: &Store, lines: &[(&Listed, i64)]) -> Order {
    let order = place(store, lines).await.unwrap();
    on(store, &order, Trigger::Authorized).await.unwrap();
    let order = on(store, &order, Trigger::Captured).await.unwrap();
    assert_eq!(order.status(), Status::Confirmed);
    order
}

/// Where the goods of a product are: on hand, reserved, sold.
pub(crate) async fn goods(store: &Store, listed: &Listed) -> (i64, i64, i64) {
    let stock = stock(store, listed).await;
    (stock.on_hand, stock.reserved, stock.sold)
}

pub(crate) async fn stock(store: &Store, listed: &Listed) -> Stock {
    let stock = store.stock().await.unwrap();
    *stock.iter().find(|stock| stock.product_id == listed.product.id).unwrap()
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

/// All timers that have run out so long from now; answers how many.
pub(crate) async fn pass(store: &Store, time: Duration) -> usize {
    let later = in_the_future(time);
    let mut taken = 0;
    while timers::advance_due(store, later).await.unwrap().is_some() {
        taken += 1;
    }
    taken
}

pub(crate) fn in_the_future(time: Duration) -> OffsetDateTime {
    now() + time
}
