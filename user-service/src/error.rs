//! The errors of this service, with their statuses and codes.

use actix_web::http::StatusCode;
use shared::auth::TokenError;
use shared::db::DbError;
use shared::problem::{Problem, codes};

shared::codes! {
    401 INVALID_CREDENTIALS = "invalid_credentials";
    401 TOKEN_REUSED = "token_reused";
    409 EMAIL_TAKEN = "email_taken";
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the address is taken")]
    EmailTaken,
    /// The address, the password, or both are wrong; or the user is deactivated.
    #[error("the login is wrong")]
    InvalidCredentials,
    /// Another attempt is allowed after this many seconds.
    #[error("too many attempts to log in")]
    Throttled(u32),
    /// The current password is wrong or missing.
    #[error("the current password is wrong")]
    WrongPassword,
    /// A spent refresh token came again: it may be stolen.
    #[error("a refresh token was used again")]
    TokenReused,
    /// The refresh token is unknown, or its session is over.
    #[error("the refresh token is not valid")]
    InvalidToken,
    /// There is no such user, or the caller may not see it.
    #[error("there is no such user")]
    NotFound,
    #[error("too many passwords are being checked")]
    Busy,
    #[error("a password could not be hashed: {0}")]
    Hashing(String),
    #[error("a token could not be signed: {0}")]
    Signing(String),
    #[error(transparent)]
    Db(#[from] DbError),
    /// An answer of the chassis, such as a stale version.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Error {
    fn problem(&self) -> Problem {
        match self {
            Self::EmailTaken => Problem::new(EMAIL_TAKEN, "Somebody has this address already."),
            Self::InvalidCredentials => {
                Problem::unauthorized(INVALID_CREDENTIALS, "The address or the password is wrong.")
            }
            Self::Throttled(seconds) => {
                Problem::new(codes::RATE_LIMITED, "Too many tries to log in.").retry_after(*seconds)
            }
            Self::WrongPassword => Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY)
                .field("current_password", "is not the current password"),
            Self::TokenReused => {
                Problem::unauthorized(TOKEN_REUSED, "This token was used before; log in again.")
            }
            Self::InvalidToken => TokenError::Invalid.problem(),
            Self::NotFound => Problem::not_found(),
            Self::Busy => Problem::unavailable(1),
            Self::Hashing(_) | Self::Signing(_) => Problem::internal().because(self),
            Self::Db(error) => error.problem(),
            Self::Problem(problem) => problem.clone(),
        }
    }
}

shared::respond_with_problem!(Error);
