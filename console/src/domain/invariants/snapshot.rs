//! The state of every part of the stack, as each reports it.

use std::collections::BTreeMap;

use serde_json::Value;

/// Taken part by part, not at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// order-service: every order.
    pub orders: Vec<Value>,
    /// payment-service: every payment.
    pub payments: Vec<Value>,
    /// The card network: every charge.
    pub charges: Vec<Value>,
    /// payment-service: the ledger's accounts.
    pub ledger: Value,
    /// payment-service: where the card network contradicts its books.
    pub differences: Vec<Value>,
    /// payment-service's database: the ledger's entries; `None` if it cannot be asked.
    pub entries: Option<Entries>,
    /// order-service: on hand, reserved and sold, by product.
    pub stock: Vec<Value>,
    /// The size of each outbox, by service.
    pub unsent: Vec<(String, i64)>,
    /// Dead letters of all services.
    pub dead_letters: Vec<Value>,
    /// Sagas.
    pub running: Vec<Value>,
    /// Sagas that wait for an operator.
    pub stuck: Vec<Value>,
    pub is_healthy: bool,
}

/// Totals of payment-service's ledger.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// The sum of the entries, by account.
    pub balances: BTreeMap<String, i64>,
    pub count: i64,
}
