//! What each token does.

use std::time::Duration;

use actix_web::http::StatusCode;

/// A card, by its behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// Approves.
    Good,
    /// Is declined with this code.
    Declined(&'static str),
    /// Approves, but answers after 3 s.
    Slow,
    /// Answers 503 twice to each operation.
    Flaky,
    /// Approves, but never answers the first call.
    SilentAfterAuthorizing,
    /// Approves; the capture is declined.
    CaptureDeclined,
    /// Approves; answers the first 5 captures with 500.
    CaptureFlaky,
}

/// What is asked of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Hold money.
    Authorize,
    /// Take it.
    Capture,
    /// Let it go.
    Void,
    /// Give it back.
    Refund,
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As it should be.
    Promptly,
    /// After this time.
    Late(Duration),
    /// Not at all, though it is done.
    Never,
    /// With this error, and nothing is done.
    Failing(StatusCode),
}

impl Card {
    /// The card behind `token`; one that nobody issued is declined.
    pub fn behind(token: &str) -> Self {
        match token {
            "tok_visa" => Self::Good,
            "tok_insufficient_funds" => Self::Declined("insufficient_funds"),
            "tok_slow" => Self::Slow,
            "tok_flaky" => Self::Flaky,
            "tok_timeout_after_charge" => Self::SilentAfterAuthorizing,
            "tok_capture_declined" => Self::CaptureDeclined,
            "tok_capture_flaky" => Self::CaptureFlaky,
            _ => Self::Declined("card_declined"),
        }
    }

    /// How the card's `call`th call of an operation is answered; the first is 1.
    pub fn manner(self, operation: Operation, call: i64) -> Manner {
        match (self, operation, call) {
            (Self::Flaky, _, ..=2) => Manner::Failing(StatusCode::SERVICE_UNAVAILABLE),
            (Self::CaptureFlaky, Operation::Capture, ..=5) => {
                Manner::Failing(StatusCode::INTERNAL_SERVER_ERROR)
            }
            (Self::Slow, Operation::Authorize, 1) => Manner::Late(Duration::from_secs(3)),
            (Self::SilentAfterAuthorizing, Operation::Authorize, 1) => Manner::Never,
            _ => Manner::Promptly,
        }
    }

    /// Whether it matters how often the card was used.
    pub fn counts_calls(self) -> bool {
        matches!(self, Self::Slow | Self::Flaky | Self::SilentAfterAuthorizing | Self::CaptureFlaky)
    }
}

impl Operation {
    /// Its name in the state file.
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
            let manners = [1, 2, 3].map(|call| Card::behind("tok_flaky").manner(operation, call));
            let failing = Manner::Failing(StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(manners, [failing, failing, Manner::Promptly]);
        }
    }

    #[test]
    fn cards_that_do_not_count_behave_alike_at_every_call() {
        for token in ["tok_visa", "tok_declined", "tok_insufficient_funds", "tok_capture_declined", "4111"] {
            let card = Card::behind(token);
            assert!(!card.counts_calls());
            assert_eq!(card.manner(Operation::Authorize, 1), Manner::Promptly);
            assert_eq!(card.manner(Operation::Capture, 1), Manner::Promptly);
        }
    }
}
