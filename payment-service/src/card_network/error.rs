//! The errors of the card network, with their statuses and codes.

use shared::db::DbError;
use shared::problem::Problem;

shared::codes! {
    402 CARD_DECLINED = "card_declined";
    402 INSUFFICIENT_FUNDS = "insufficient_funds";
    409 CAPTURED = "captured";
    409 EXCEEDS_CAPTURED = "exceeds_captured";
    409 IN_PROGRESS = "in_progress";
    409 VOIDED = "voided";
    422 KEY_REUSED = "key_reused";
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no such authorization")]
    NotFound,
    #[error("the key was used for something else")]
    KeyReused,
    #[error("declined: {0}")]
    Declined(String),
    #[error("the key is in use")]
    InProgress,
    #[error("voided")]
    Voided,
    #[error("captured")]
    Captured,
    #[error("exceeds what was captured")]
    ExceedsCaptured,
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Error {
    fn problem(&self) -> Problem {
        match self {
            Self::NotFound => Problem::not_found(),
            Self::KeyReused => Problem::new(KEY_REUSED, "The key was used for something else."),
            Self::Declined(code) => {
                let code = if code == "insufficient_funds" { INSUFFICIENT_FUNDS } else { CARD_DECLINED };
                Problem::new(code, "The card was declined.")
            }
            Self::InProgress => Problem::new(IN_PROGRESS, "A request with this key is under way."),
            Self::Voided => Problem::new(VOIDED, "The authorization was voided."),
            Self::Captured => Problem::new(CAPTURED, "The money was taken."),
            Self::ExceedsCaptured => Problem::new(EXCEEDS_CAPTURED, "That is more than was captured."),
            Self::Db(error) => error.problem(),
        }
    }
}

shared::respond_with_problem!(Error);
