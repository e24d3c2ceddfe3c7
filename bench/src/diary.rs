//! What customers were told, to be compared with what is in the books.

use std::collections::BTreeMap;

/// Everything that was answered, and what was not.
#[derive(Default)]
pub struct Diary {
    /// Each order placed, by its idempotency key's number: the ids that its 201s had.
    pub orders: BTreeMap<usize, Vec<String>>,
    /// Refusals (4xx) of orders by their code.
    pub refused: BTreeMap<String, u32>,
    /// Orders that were given up.
    pub unanswered: u32,
    /// Cancellations that were answered with 202.
    pub cancelled: u32,
    /// What an admin gave back, and was told so with 201: payment and minor units.
    pub refunds: Vec<(String, i64)>,
    /// Reads, and those that failed.
    pub reads: u32,
    /// Reads that were answered with anything but 200, or not at all.
    pub reads_failed: u32,
    /// How often anything had to be sent again.
    pub retries: u32,
}

impl Diary {
    /// The order numbered `number` was answered with 201.
    pub fn placed(&mut self, number: usize, id: &str) {
        self.orders.entry(number).or_default().push(id.to_owned());
    }
}
