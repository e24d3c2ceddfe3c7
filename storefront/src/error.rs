//! The errors of this program, with their statuses and codes.

use actix_web::http::StatusCode;
use shared::client::ClientError;
use shared::problem::Problem;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such file")]
    NotFound,
    /// Another site's page may have sent the request.
    #[error("the request does not come from a page of this shop")]
    NotSameOrigin,
    /// Another service gave no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Another service gave an answer of another form.
    #[error("an answer cannot be used: {0}")]
    BadAnswer(#[from] serde_json::Error),
    #[error("a page cannot be made: {0}")]
    Page(#[from] askama::Error),
    /// An answer of the chassis.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Error {
    fn problem(&self) -> Problem {
        match self {
            Self::NotFound => Problem::not_found(),
            Self::NotSameOrigin => Problem::of_status(StatusCode::FORBIDDEN),
            Self::Client(ClientError::TimedOut(_)) => {
                Problem::of_status(StatusCode::GATEWAY_TIMEOUT).because(self)
            }
            Self::Client(ClientError::Malformed(..)) | Self::Page(_) => Problem::internal().because(self),
            Self::Client(_) => Problem::unavailable(1).because(self),
            Self::BadAnswer(_) => Problem::of_status(StatusCode::BAD_GATEWAY).because(self),
            Self::Problem(problem) => problem.clone(),
        }
    }
}

shared::respond_with_problem!(Error);
