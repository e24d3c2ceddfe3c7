//! What can go wrong, and the status and code that clients see.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use shared::auth::TokenError;
use shared::db::DbError;
use shared::problem::Problem;

/// Why a request about people or sessions was not done.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Somebody has this address.
    #[error("the address is taken")]
    EmailTaken,
    /// The address, the password, or both are wrong; or the person left.
    #[error("the login is wrong")]
    InvalidCredentials,
    /// Too many tries; the next makes sense after so many seconds.
    #[error("too many tries to log in")]
    Throttled(u32),
    /// The current password is wrong or missing.
    #[error("the current password is wrong")]
    WrongPassword,
    /// A refresh token was used twice: somebody may have stolen it.
    #[error("a refresh token was used again")]
    TokenReused,
    /// There is no such refresh token, or its session is over.
    #[error("the refresh token is not valid")]
    InvalidToken,
    /// Nobody has this id, or the caller may not know.
    #[error("there is no such person")]
    NotFound,
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked")]
    Busy,
    /// A password could not be hashed.
    #[error("a password could not be hashed: {0}")]
    Hashing(String),
    /// A token could not be signed.
    #[error("a token could not be signed: {0}")]
    Signing(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A rule of the chassis, such as a stale version.
    #[error("{0}")]
    Refused(#[from] Problem),
}

impl UserError {
    fn problem(&self) -> Problem {
        match self {
            Self::EmailTaken => {
                Problem::new(StatusCode::CONFLICT, "email_taken", "Somebody has this address already.")
            }
            Self::InvalidCredentials => {
                Problem::unauthorized("invalid_credentials", "The address or the password is wrong.")
            }
            Self::Throttled(seconds) => {
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many tries to log in.")
                    .retry_after(*seconds)
            }
            Self::WrongPassword => Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY)
                .field("current_password", "is not the current password"),
            Self::TokenReused => {
                Problem::unauthorized("token_reused", "This token was used before; log in again.")
            }
            Self::InvalidToken => TokenError::Invalid.problem(),
            Self::NotFound => Problem::not_found(),
            Self::Busy => Problem::unavailable(1),
            Self::Hashing(_) | Self::Signing(_) => Problem::internal().because(self),
            Self::Db(error) => error.problem(),
            Self::Refused(problem) => problem.clone(),
        }
    }
}

impl ResponseError for UserError {
    fn status_code(&self) -> StatusCode {
        self.problem().status()
    }

    fn error_response(&self) -> HttpResponse {
        self.problem().error_response()
    }
}
