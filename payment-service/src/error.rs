//! The errors of this service, with their statuses and codes.

use shared::db::DbError;
use shared::problem::Problem;

use crate::domain::Refusal;

shared::codes! {
    409 EXCEEDS_CAPTURED = "exceeds_captured";
    409 NOT_REFUNDABLE = "not_refundable";
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The payment does not exist, or it belongs to another customer.
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
        match self {
            Self::NotFound => Problem::not_found(),
            Self::Refused(Refusal::NotRefundable | Refusal::InvalidIn(_)) => {
                Problem::new(NOT_REFUNDABLE, "Only a captured payment can be refunded.")
            }
            Self::Refused(Refusal::ExceedsCaptured) => {
                Problem::new(EXCEEDS_CAPTURED, "That is more than was captured and not yet refunded.")
            }
            Self::Refused(Refusal::OtherCurrency) => Problem::validation(Vec::new())
                .field("amount.currency", "must be the currency of the payment"),
            Self::Db(error) => error.problem(),
            Self::Problem(problem) => problem.clone(),
        }
    }
}

shared::respond_with_problem!(Error);
