//! What customers were told, to be compared with what is in the books.

use std::collections::{BTreeMap, BTreeSet};

/// Everything that was answered, and what was not.
#[derive(Default)]
pub struct Diary {
    /// Each order placed, by its idempotency key's number: the ids that its 201s had.
    pub orders: BTreeMap<usize, Vec<String>>,
    /// Refusals (4xx) of orders by their code.
    pub refused: BTreeMap<String, u32>,
    /// Those of them that there was no reason for.
    pub wronged: Vec<String>,
    /// Orders that were given up.
    pub unanswered: u32,
    /// Orders whose cancellation was answered with 202.
    pub cancelled: BTreeSet<String>,
    /// What an admin gave back of each payment, and was told so with 201, in minor units.
    pub refunds: BTreeMap<String, i64>,
    /// Payments of which more may have been given back, without an answer.
    pub refunds_unanswered: BTreeSet<String>,
    /// Reads, and those that failed.
    pub reads: u32,
    /// Reads that were answered with anything but 200, or not at all.
    pub reads_failed: u32,
    /// How often anything had to be sent again.
    pub retries: u32,
}

impl Diary {
    /// Orders that were answered, with whatever.
    pub fn answered(&self) -> usize {
        self.orders.len() + self.refused.values().sum::<u32>() as usize
    }

    /// The order numbered `number` was answered with 201.
    pub fn placed(&mut self, number: usize, id: &str) {
        self.orders.entry(number).or_default().push(id.to_owned());
    }
}
