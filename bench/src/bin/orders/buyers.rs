//! Customers who place orders: in our shop, or in that of a peer with the same API.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use bench::customer::{Customer, Request};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

pub(crate) struct Buyers {
    pub(crate) customers: Vec<Customer>,
    /// The id of the product that they buy.
    pub(crate) product: String,
    /// Seconds that a customer waits for the confirmation.
    pub(crate) wait: u32,
}

impl Buyers {
    /// The latency of each order, and how many were answered before they were confirmed.
    pub(crate) async fn place(&self, orders: usize) -> Result<(Vec<Duration>, usize), String> {
        let (left, latencies, late) = (Cell::new(orders), RefCell::new(Vec::new()), Cell::new(0));
        let buy = async |customer: &Customer| {
            while left.get() > 0 {
                left.set(left.get() - 1);
                let begun = Instant::now();
                let order = self.order(customer, self.wait).await.ok_or("An order was not answered.")?;
                latencies.borrow_mut().push(begun.elapsed());
                late.set(late.get() + usize::from(order["status"] != "confirmed"));
            }
            Ok::<(), String>(())
        };
        try_join_all(self.customers.iter().map(buy)).await?;
        Ok((latencies.into_inner(), late.get()))
    }

    /// How many orders a request makes that is sent twice.
    pub(crate) async fn twice(&self) -> Result<usize, String> {
        let customer = self.customers.first().ok_or("There is no customer.")?;
        let (request, mut ids) = (self.request(self.wait), BTreeSet::new());
        for _ in 0..2 {
            let reply = customer.send(&request).await.reply.filter(|reply| reply.status == 201);
            ids.insert(reply.ok_or("An order was not answered.")?.body["id"].to_string());
        }
        Ok(ids.len())
    }

    /// `wait`: how many seconds the customer waits for the confirmation, or 0.
    pub(crate) async fn order(&self, customer: &Customer, wait: u32) -> Option<Value> {
        let reply = customer.send(&self.request(wait)).await.reply?;
        (reply.status == 201).then_some(reply.body)
    }

    /// One order, with a key of its own.
    pub(crate) fn request(&self, wait: u32) -> Request {
        let lines = json!([{ "product_id": self.product, "quantity": 1 }]);
        let body = json!({ "lines": lines, "payment_token": "tok_visa" });
        let request = Request::post("/api/orders", Some(body));
        if wait > 0 { request.waiting(wait) } else { request }
    }
}
