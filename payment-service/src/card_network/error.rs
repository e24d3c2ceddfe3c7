//! What can go wrong, and how a client sees it.

use actix_web::http::StatusCode;
use shared::db::DbError;
use shared::problem::Problem;

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
        let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, detail);
        match self {
            Self::NotFound => Problem::not_found(),
            Self::KeyReused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key_reused",
                "The key was used for something else.",
            ),
            Self::Declined(code) => {
                let code = if code == "insufficient_funds" { "insufficient_funds" } else { "card_declined" };
                Problem::new(StatusCode::PAYMENT_REQUIRED, code, "The card was declined.")
            }
            Self::InProgress => conflict("in_progress", "A request with this key is under way."),
            Self::Voided => conflict("voided", "The authorization was voided."),
            Self::Captured => conflict("captured", "The money was taken."),
            Self::ExceedsCaptured => conflict("exceeds_captured", "That is more than was captured."),
            Self::Db(error) => error.problem(),
        }
    }
}

shared::respond_with_problem!(Error);
