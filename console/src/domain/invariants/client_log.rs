//! The responses that clients got, to be compared with the state of the stack.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct ClientLog {
    /// The ids in the 201s of each order, by its number, which stands for its idempotency key.
    pub orders: BTreeMap<usize, Vec<String>>,
    /// Payment tokens, by order id.
    pub tokens: BTreeMap<String, &'static str>,
    /// The code of each refusal, by the order's number.
    pub refused: BTreeMap<usize, String>,
    /// Requests that had to be answered. One that was sent again counts once.
    pub requests: usize,
    /// Requests that were given up.
    pub unanswered: usize,
    /// Answers with a status or code that they may not have.
    pub unexpected: Vec<String>,
    /// Orders whose cancellation was answered with 202.
    pub cancelled: BTreeSet<String>,
    /// Refunds that were answered with 201, by payment id, in minor units.
    pub refunds: BTreeMap<String, i64>,
    pub reads: u32,
    /// Reads that were not answered with 200.
    pub reads_failed: u32,
    pub retries: u32,
}

impl ClientLog {
    /// The order numbered `number`, to be paid with `token`, was answered with 201.
    pub fn placed(&mut self, number: usize, token: &'static str, id: &str) {
        self.orders.entry(number).or_default().push(id.to_owned());
        self.tokens.insert(id.to_owned(), token);
    }

    /// The number of refused orders, by code. An order that was sent twice and refused once is placed.
    pub fn refusals(&self) -> BTreeMap<&str, u32> {
        let mut refusals = BTreeMap::new();
        for (_, code) in self.refused.iter().filter(|(number, _)| !self.orders.contains_key(number)) {
            *refusals.entry(code.as_str()).or_default() += 1;
        }
        refusals
    }

    /// The number of orders that were placed or refused.
    pub fn answered(&self) -> usize {
        self.orders.len() + self.refusals().values().sum::<u32>() as usize
    }
}
