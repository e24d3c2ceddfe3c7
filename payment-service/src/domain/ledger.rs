//! Double entry: money is never made or lost, it only moves between accounts.
//!
//! An entry of a positive amount is a debit, of a negative amount a credit. A [`Transfer`] has one
//! amount and two accounts, so one that does not balance cannot be written down.

use uuid::Uuid;

use super::Money;

/// Where money can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// What the card network owes us.
    CardNetwork,
    /// What customers gave back, or got back.
    Refunds,
    /// What was sold.
    Sales,
}

/// What moved the money; each cause moves the money of a payment at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The payment's capture.
    Capture,
    /// This refund.
    Refund(Uuid),
}

/// Money that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Why.
    pub cause: Cause,
    /// How much; an authorization moves nothing, and so is no transfer.
    pub amount: Money,
}

impl Transfer {
    /// The account that is debited and the one that is credited.
    pub fn accounts(&self) -> (Account, Account) {
        match self.cause {
            Cause::Capture => (Account::CardNetwork, Account::Sales),
            Cause::Refund(_) => (Account::Refunds, Account::CardNetwork),
        }
    }

    /// The two entries: account and signed amount, in the order of the accounts.
    pub fn entries(&self) -> [(Account, i64); 2] {
        let (debit, credit) = self.accounts();
        let mut entries = [(debit, self.amount.amount()), (credit, -self.amount.amount())];
        entries.sort();
        entries
    }
}

impl Account {
    /// Its name in the API and in the database.
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
