//! The errors of this program, with their statuses and codes.

use actix_web::http::StatusCode;
use shared::auth::TokenError;
use shared::client::ClientError;
use shared::db::DbError;
use shared::http::ExchangeError;
use shared::problem::{Problem, codes};

use crate::domain::NotUnderstood;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such thing")]
    NotFound,
    /// Another site's page may have sent the request.
    #[error("the request does not come from a page of the console")]
    NotSameOrigin,
    /// Nobody is logged in.
    #[error("nobody is logged in")]
    NoSession,
    /// The session has ended.
    #[error("the session is over")]
    SessionOver,
    #[error("the person is not an admin")]
    NotAdmin,
    /// The request is not OTLP.
    #[error("this is not OTLP: {0}")]
    NotOtlp(String),
    /// More data arrives than can be written.
    #[error("the queue is full")]
    QueueFull,
    #[error(transparent)]
    Search(#[from] NotUnderstood),
    #[error(transparent)]
    Db(#[from] DbError),
    /// A service gave no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The gateway or a replica gave no answer.
    #[error("{0}: {1}")]
    Exchange(String, ExchangeError),
    /// An answer of another form.
    #[error("an answer cannot be used: {0}")]
    BadAnswer(#[from] serde_json::Error),
    /// An answer of the chassis.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Error {
    fn problem(&self) -> Problem {
        match self {
            Self::NotFound => Problem::not_found(),
            Self::NotSameOrigin | Self::NotAdmin => Problem::of_status(StatusCode::FORBIDDEN),
            Self::NoSession => TokenError::Missing.problem(),
            Self::SessionOver => TokenError::Invalid.problem(),
            Self::NotOtlp(why) => Problem::malformed(why.clone()),
            Self::QueueFull => Problem::unavailable(1),
            Self::Search(why) => {
                Problem::new(codes::INVALID_PARAMETER, why.to_string()).field("q", why.to_string())
            }
            Self::Db(_) => Problem::internal().because(self),
            Self::Client(ClientError::TimedOut(_)) | Self::Exchange(_, ExchangeError::TimedOut) => {
                Problem::of_status(StatusCode::GATEWAY_TIMEOUT).because(self)
            }
            Self::Client(ClientError::Malformed(..)) => Problem::internal().because(self),
            Self::Client(_) | Self::Exchange(..) => Problem::unavailable(1).because(self),
            Self::BadAnswer(_) => Problem::of_status(StatusCode::BAD_GATEWAY).because(self),
            Self::Problem(problem) => problem.clone(),
        }
    }
}

shared::respond_with_problem!(Error);
