//! Double-entry bookkeeping: money only moves between accounts.
//!
//! A positive entry is a debit, a negative one a credit. A [`Transfer`] has one amount and two accounts,
//! so an unbalanced transfer cannot be expressed.

use uuid::Uuid;

use super::Money;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// The account of the money that the card network owes us.
    CardNetwork,
    Refunds,
    Sales,
}

/// Why money moves. Each cause moves the money of a payment at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Capture,
    /// The id of the refund.
    Refund(Uuid),
}

/// Money that moved. An authorization only holds money, so it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    pub cause: Cause,
    pub amount: Money,
}

impl Transfer {
    /// The debited and the credited account.
    pub fn accounts(&self) -> (Account, Account) {
        match self.cause {
            Cause::Capture => (Account::CardNetwork, Account::Sales),
            Cause::Refund(_) => (Account::Refunds, Account::CardNetwork),
        }
    }

    /// Account and signed amount, in the order of [`Account`], which every writer locks them in.
    pub fn entries(&self) -> [(Account, i64); 2] {
        let (debit, credit) = self.accounts();
        let mut entries = [(debit, self.amount.amount()), (credit, -self.amount.amount())];
        entries.sort();
        entries
    }
}

impl Account {
    /// The name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CardNetwork => "card_network",
            Self::Refunds => "refunds",
            Self::Sales => "sales",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Capture => f.write_str("capture"),
            Self::Refund(id) => write!(f, "refund {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transfer_balances() {
        let amount = Money::new(1250, "EUR".try_into().unwrap()).unwrap();
        for cause in [Cause::Capture, Cause::Refund(Uuid::now_v7())] {
            let entries = Transfer { cause, amount }.entries();
            assert_eq!(entries.iter().map(|(_, amount)| amount).sum::<i64>(), 0);
            assert_ne!(entries[0].0, entries[1].0);
        }
    }
}
