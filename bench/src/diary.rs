//! What customers were told, to be compared with what is in the books.

use std::collections::{BTreeMap, BTreeSet};

/// Everything that was answered, and what was not.
#[derive(Default)]
pub struct Diary {
    /// Each order placed, by its idempotency key's number: the ids that its 201s had.
    pub orders: BTreeMap<usize, Vec<String>>,
    /// The cards that they were to be paid with, by the orders' ids.
    pub tokens: BTreeMap<String, &'static str>,
    /// Each order refused, by the same number: the code.
    pub refused: BTreeMap<usize, String>,
    /// Requests that had to be answered, each counted once.
    pub requests: usize,
    /// Those that were given up.
    pub unanswered: usize,
    /// Those that were answered as they should not be.
    pub wronged: Vec<String>,
    /// Orders whose cancellation was answered with 202.
    pub cancelled: BTreeSet<String>,
    /// What an admin gave back of each payment, and was told so with 201, in minor units.
    pub refunds: BTreeMap<String, i64>,
    /// Reads, and those that failed.
    pub reads: u32,
    /// Reads that were answered with anything but 200, or not at all.
    pub reads_failed: u32,
    /// How often anything had to be sent again.
    pub retries: u32,
}

impl Diary {
    /// The order numbered `number`, to be paid with `token`, was answered with 201.
    pub fn placed(&mut self, number: usize, token: &'static str, id: &str) {
        self.orders.entry(number).or_default().push(id.to_owned());
        self.tokens.insert(id.to_owned(), token);
    }

    /// How many orders were refused, by code. What was sent twice, and refused once, is placed.
    pub fn refusals(&self) -> BTreeMap<&str, u32> {
        let mut refusals = BTreeMap::new();
        for (_, code) in self.refused.iter().filter(|(number, _)| !self.orders.contains_key(number)) {
            *refusals.entry(code.as_str()).or_default() += 1;
        }
        refusals
    }

    /// How many orders were answered, with whatever.
    pub fn answered(&self) -> usize {
        self.orders.len() + self.refusals().values().sum::<u32>() as usize
    }
}
