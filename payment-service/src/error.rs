//! What can go wrong, and how a client sees it.

use actix_web::http::StatusCode;
use shared::db::DbError;
use shared::problem::Problem;

use crate::domain::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Also for a payment of another customer.
    #[error("there is no such payment")]
    NotFound,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Db(#[from] DbError),
    /// Made by the chassis.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Error {
    fn problem(&self) -> Problem {
        let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, detail);
        match self {
            Self::NotFound => Problem::not_found(),
            Self::Refused(Refusal::NotRefundable | Refusal::InvalidIn(_)) => {
                conflict("not_refundable", "Only a captured payment can be refunded.")
            }
            Self::Refused(Refusal::ExceedsCaptured) => {
                conflict("exceeds_captured", "That is more than was captured and not yet refunded.")
            }
            Self::Refused(Refusal::OtherCurrency) => Problem::validation(Vec::new())
                .field("amount.currency", "must be the currency of the payment"),
            Self::Db(error) => error.problem(),
            Self::Problem(problem) => problem.clone(),
        }
    }
}

shared::respond_with_problem!(Error);
