//! The errors of this service, with their statuses and codes.

use actix_web::http::StatusCode;
use shared::db::DbError;
use shared::problem::{Problem, codes};

use crate::checkout::Refusal;
use crate::domain::{MAX_ON_HAND, MoneyError};

shared::codes! {
    403 CUSTOMER_INACTIVE = "customer_inactive";
    409 INVALID_TRANSITION = "invalid_transition";
    409 NOT_CANCELLABLE = "not_cancellable";
    409 OUT_OF_STOCK = "out_of_stock";
    409 SKU_TAKEN = "sku_taken";
    422 UNKNOWN_PRODUCT = "unknown_product";
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not exist, or it belongs to another customer.
    #[error("it does not exist")]
    NotFound,
    #[error("the sku is taken")]
    SkuTaken,
    /// The positions of these lines in the cart, from 0.
    #[error("some products do not exist")]
    UnknownProduct(Vec<usize>),
    /// The positions of these lines in the cart, from 0.
    #[error("there is not enough in stock")]
    OutOfStock(Vec<usize>),
    #[error("there is not that much on hand")]
    NotOnHand,
    #[error("there would be too much on hand")]
    TooMuchOnHand,
    #[error("the order {0}")]
    Total(#[from] MoneyError),
    /// The customer has reached the limit.
    #[error("too many orders await payment")]
    TooManyAwaitPayment,
    #[error("the customer is not active")]
    CustomerInactive,
    /// user-service did not say whether the customer is active.
    #[error("the customer cannot be checked: {0}")]
    CustomerNotChecked(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The version that was read is no longer the latest.
    #[error("the order was changed by another replica")]
    Stale,
    #[error(transparent)]
    Db(#[from] DbError),
    /// An error of the chassis.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Error {
    fn problem(&self) -> Problem {
        use StatusCode as S;
        match self {
            Self::NotFound => Problem::not_found(),
            Self::SkuTaken => Problem::new(SKU_TAKEN, "Another product has this sku."),
            Self::UnknownProduct(lines) => with_lines(
                Problem::new(UNKNOWN_PRODUCT, "Some products do not exist."),
                lines,
                "there is no such product",
            ),
            Self::OutOfStock(lines) => with_lines(
                Problem::new(OUT_OF_STOCK, "There is not enough of some products."),
                lines,
                "there is not enough of this product",
            ),
            Self::NotOnHand => Problem::new(OUT_OF_STOCK, "There is not that much on hand to take out."),
            Self::TooMuchOnHand => Problem::of_status(S::UNPROCESSABLE_ENTITY)
                .field("delta", format!("more than {MAX_ON_HAND} would be on hand")),
            Self::Total(_) => Problem::of_status(S::UNPROCESSABLE_ENTITY)
                .field("lines", "together they cost more than can be counted"),
            Self::TooManyAwaitPayment => Problem::new(
                codes::RATE_LIMITED,
                "Too many of your orders await payment; wait until one is paid.",
            )
            .retry_after(5),
            Self::CustomerInactive => Problem::new(CUSTOMER_INACTIVE, "This account can no longer order."),
            Self::CustomerNotChecked(_) | Self::Stale => Problem::unavailable(1).because(self),
            Self::Refused(Refusal::NotCancellable(status)) => Problem::new(
                NOT_CANCELLABLE,
                format!("An order that is {} cannot be cancelled.", status.as_str()),
            ),
            Self::Refused(Refusal::Illegal(illegal)) => Problem::new(
                INVALID_TRANSITION,
                format!("An order that is {} cannot become {}.", illegal.from.as_str(), illegal.to.as_str()),
            ),
            Self::Refused(Refusal::NotStuck) => {
                Problem::new(INVALID_TRANSITION, "Only a stuck saga can be resumed.")
            }
            Self::Db(error) => error.problem(),
            Self::Problem(problem) => problem.clone(),
        }
    }
}

fn with_lines(problem: Problem, lines: &[usize], message: &str) -> Problem {
    lines.iter().fold(problem, |problem, line| problem.field(&format!("lines[{line}].product_id"), message))
}

shared::respond_with_problem!(Error);
