//! What can go wrong here, and how a client sees it.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use shared::db::DbError;
use shared::problem::Problem;

use crate::checkout::Refusal;
use crate::domain::{MOST_ON_HAND, MoneyError};

/// Why a request or a message has no effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or it belongs to somebody else.
    #[error("it does not exist")]
    NotFound,
    /// Another product has the sku.
    #[error("the sku is taken")]
    SkuTaken,
    /// These lines name products that do not exist.
    #[error("some products do not exist")]
    UnknownProduct(Vec<usize>),
    /// There is not enough on hand for these lines.
    #[error("there is not enough in stock")]
    OutOfStock(Vec<usize>),
    /// More would be taken out of the stock than is on hand.
    #[error("there is not that much on hand")]
    NotOnHand,
    /// More would be on hand than a product may have.
    #[error("there would be too much on hand")]
    TooMuch,
    /// The total is more than can be counted.
    #[error("the order {0}")]
    Total(#[from] MoneyError),
    /// The customer may not order.
    #[error("the customer is not active")]
    CustomerInactive,
    /// Nobody knows whether the customer may order.
    #[error("the customer cannot be checked: {0}")]
    CustomerUnknown(String),
    /// The checkout does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another writer was first.
    #[error("the order was changed by another replica")]
    Stale,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The chassis has said it already.
    #[error("{0}")]
    Problem(Problem),
}

impl Error {
    fn problem(&self) -> Problem {
        use StatusCode as S;
        match self {
            Self::NotFound => Problem::not_found(),
            Self::SkuTaken => Problem::new(S::CONFLICT, "sku_taken", "Another product has this sku."),
            Self::UnknownProduct(lines) => named(
                Problem::new(S::UNPROCESSABLE_ENTITY, "unknown_product", "Some products do not exist."),
                lines,
                "there is no such product",
            ),
            Self::OutOfStock(lines) => named(
                Problem::new(S::CONFLICT, "out_of_stock", "There is not enough of some products."),
                lines,
                "there is not enough of this product",
            ),
            Self::NotOnHand => {
                Problem::new(S::CONFLICT, "out_of_stock", "There is not that much on hand to take out.")
            }
            Self::TooMuch => Problem::of_status(S::UNPROCESSABLE_ENTITY)
                .field("delta", format!("more than {MOST_ON_HAND} would be on hand")),
            Self::Total(_) => Problem::of_status(S::UNPROCESSABLE_ENTITY)
                .field("lines", "together they cost more than can be counted"),
            Self::CustomerInactive => {
                Problem::new(S::FORBIDDEN, "customer_inactive", "This account can no longer order.")
            }
            Self::CustomerUnknown(_) | Self::Stale => Problem::unavailable(1).because(self),
            Self::Refused(Refusal::NotCancellable(status)) => Problem::new(
                S::CONFLICT,
                "not_cancellable",
                format!("An order that is {} cannot be cancelled.", status.as_str()),
            ),
            Self::Refused(Refusal::Illegal(illegal)) => Problem::new(
                S::CONFLICT,
                "invalid_transition",
                format!("An order that is {} cannot become {}.", illegal.from.as_str(), illegal.to.as_str()),
            ),
            Self::Refused(Refusal::NotStuck) => {
                Problem::new(S::CONFLICT, "invalid_transition", "Only a stuck saga can be resumed.")
            }
            Self::Db(error) => error.problem(),
            Self::Problem(problem) => problem.clone(),
        }
    }
}

fn named(problem: Problem, lines: &[usize], message: &str) -> Problem {
    lines.iter().fold(problem, |problem, line| problem.field(&format!("lines[{line}].product_id"), message))
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        self.problem().status()
    }

    fn error_response(&self) -> HttpResponse {
        self.problem().error_response()
    }
}
