//! The errors of this service, with their statuses and codes.

use shared::db::DbError;
use shared::problem::Problem;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not exist, or the caller may not see it.
    #[error("it does not exist")]
    NotFound,
    #[error(transparent)]
    Db(#[from] DbError),
    /// An answer of the chassis, such as a missing idempotency key.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Error {
    fn problem(&self) -> Problem {
        match self {
            Self::NotFound => Problem::not_found(),
            Self::Db(error) => error.problem(),
            Self::Problem(problem) => problem.clone(),
        }
    }
}

shared::respond_with_problem!(Error);
