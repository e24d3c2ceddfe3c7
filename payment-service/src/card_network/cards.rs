//! The behaviour of each token.

use std::time::Duration;

use actix_web::http::StatusCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    Good,
    /// The authorization is declined with this code.
    Declined(&'static str),
    /// Responds to the authorization after 3 s.
    Slow,
    /// Fails twice in each operation.
    Flaky,
    /// Never responds to the first authorization, which takes effect.
    SilentAfterAuthorizing,
    CaptureDeclined,
    /// Fails in the first 5 captures.
    CaptureFlaky,
    /// The first two requests of each operation get 409 `in_progress`.
    Busy,
    /// Captures and refunds one minor unit less than requested.
    OtherAmount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Authorize,
    Capture,
    Void,
    Refund,
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Prompt,
    Delayed(Duration),
    /// The operation takes effect, and there is no response.
    Silent,
    /// The operation has no effect.
    Failing(StatusCode),
    /// The operation has no effect; the response is 409 `in_progress`.
    InProgress,
}

impl Card {
    /// An unknown token is declined.
    pub fn from_token(token: &str) -> Self {
        match token {
            "tok_visa" => Self::Good,
            "tok_insufficient_funds" => Self::Declined("insufficient_funds"),
            "tok_slow" => Self::Slow,
            "tok_flaky" => Self::Flaky,
            "tok_timeout_after_charge" => Self::SilentAfterAuthorizing,
            "tok_capture_declined" => Self::CaptureDeclined,
            "tok_capture_flaky" => Self::CaptureFlaky,
            "tok_busy" => Self::Busy,
            "tok_other_amount" => Self::OtherAmount,
            _ => Self::Declined("card_declined"),
        }
    }

    /// `call` counts the requests for this operation, from 1.
    pub fn behaviour(self, operation: Operation, call: i64) -> Behaviour {
        match (self, operation, call) {
            (Self::Flaky, _, ..=2) => Behaviour::Failing(StatusCode::SERVICE_UNAVAILABLE),
            (Self::Busy, _, ..=2) => Behaviour::InProgress,
            (Self::CaptureFlaky, Operation::Capture, ..=5) => {
                Behaviour::Failing(StatusCode::INTERNAL_SERVER_ERROR)
            }
            (Self::Slow, Operation::Authorize, 1) => Behaviour::Delayed(Duration::from_secs(3)),
            (Self::SilentAfterAuthorizing, Operation::Authorize, 1) => Behaviour::Silent,
            _ => Behaviour::Prompt,
        }
    }

    /// Whether the behaviour depends on the number of calls.
    pub fn counts_calls(self) -> bool {
        matches!(
            self,
            Self::Slow | Self::Flaky | Self::SilentAfterAuthorizing | Self::CaptureFlaky | Self::Busy
        )
    }

    /// The amount that the card network charges or refunds when this one is requested.
    pub fn executed_amount(self, amount: i64) -> i64 {
        if self == Self::OtherAmount { (amount - 1).max(0) } else { amount }
    }
}

impl Operation {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaky_card_fails_twice_in_each_operation() {
        for operation in [Operation::Authorize, Operation::Capture, Operation::Void, Operation::Refund] {
            let behaviours = [1, 2, 3].map(|call| Card::from_token("tok_flaky").behaviour(operation, call));
            let failing = Behaviour::Failing(StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(behaviours, [failing, failing, Behaviour::Prompt]);
        }
    }

    #[test]
    fn cards_that_do_not_count_behave_alike_at_every_call() {
        for token in ["tok_visa", "tok_declined", "tok_insufficient_funds", "tok_capture_declined", "4111"] {
            let card = Card::from_token(token);
            assert!(!card.counts_calls());
            assert_eq!(card.behaviour(Operation::Authorize, 1), Behaviour::Prompt);
            assert_eq!(card.behaviour(Operation::Capture, 1), Behaviour::Prompt);
        }
    }
}
