//! Error responses: RFC 9457 problem documents.
//!
//! A [`Problem`] has a status, a stable `code` and a sentence for people. Its cause goes to the log only: the
//! client never sees a text of a database, a library or another service. The request middleware adds
//! `service`, `timestamp` and `request_id`.

/// Declares codes with their statuses, as constants. docs/errors.md lists those of all programs.
#[macro_export]
macro_rules! codes {
    ($($status:literal $name:ident = $code:literal;)*) => {
        $(pub const $name: $crate::problem::Code = $crate::problem::Code::declared($status, $code);)*
    };
}

pub mod codes;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub const PROBLEM_JSON: &str = "application/problem+json";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Box<str>,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, String)>,
    cause: Option<Box<str>>,
    flag: Option<&'static str>,
}

/// A stable, snake_case name of an error, with its status. [`codes!`](crate::codes) makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    status: u16,
    name: &'static str,
}

impl Code {
    #[doc(hidden)]
    pub const fn declared(status: u16, name: &'static str) -> Self {
        Self { status, name }
    }

    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// One invalid field of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Path in the body (`lines[1].quantity`), or name of a query parameter.
    pub field: String,
    /// How to correct it.
    pub message: String,
}

impl Problem {
    /// `detail` is a sentence for people.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            status,
            code: code.name,
            detail: detail.into().into_boxed_str(),
            errors: Vec::new(),
            headers: Vec::new(),
            cause: None,
            flag: None,
        }
    }

    /// The generic problem of a status.
    pub fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status.as_u16() {
            400 => (codes::INVALID_PARAMETER, "The request could not be understood."),
            401 => (codes::MISSING_TOKEN, "This needs a bearer token."),
            403 => (codes::FORBIDDEN, "This is not yours to do."),
            404 => (codes::NOT_FOUND, "There is nothing here."),
            405 => (codes::METHOD_NOT_ALLOWED, "This resource does not have that method."),
            406 => (codes::NOT_ACCEPTABLE, "Answers are JSON."),
            408 => (codes::REQUEST_TIMEOUT, "The request took too long to arrive."),
            413 => (codes::BODY_TOO_LARGE, "The body is too large."),
            414 => (codes::URI_TOO_LONG, "The address is too long."),
            415 => (codes::UNSUPPORTED_MEDIA_TYPE, "The body must be application/json."),
            417 => (codes::EXPECTATION_FAILED, "That expectation cannot be met."),
            422 => (codes::VALIDATION_FAILED, "The input is not valid."),
            428 => (codes::IDEMPOTENCY_KEY_REQUIRED, "Send an Idempotency-Key header."),
            429 => (codes::RATE_LIMITED, "Too many requests; wait before the next."),
            431 => (codes::HEADERS_TOO_LARGE, "The headers are too large."),
            502 => (codes::BAD_UPSTREAM, "The service behind this gave no usable answer."),
            503 => (codes::UNAVAILABLE, "This is not available right now; try again soon."),
            504 => (codes::UPSTREAM_TIMEOUT, "The service behind this did not answer in time."),
            _ if status.is_client_error() => (codes::BAD_REQUEST, "The request could not be served."),
            _ => (codes::INTERNAL, "Something went wrong on our side."),
        };
        Self { status, ..Self::new(code, detail) }
    }

    /// 500; the log has the cause under the request id.
    pub fn internal() -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 404. Also for a resource of another user, so that the response does not reveal that it exists.
    pub fn not_found() -> Self {
        Self::of_status(StatusCode::NOT_FOUND)
    }

    /// 503 with `Retry-After`.
    pub fn unavailable(seconds: u32) -> Self {
        Self::of_status(StatusCode::SERVICE_UNAVAILABLE).retry_after(seconds)
    }

    /// 400 for a malformed query parameter or header.
    pub fn invalid_parameter(name: &str, message: impl Into<String>) -> Self {
        Self::new(codes::INVALID_PARAMETER, format!("{name} cannot be used.")).field(name, message)
    }

    /// 400 for a request that cannot be read, or that can be read in two ways.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(codes::MALFORMED_REQUEST, detail)
    }

    /// 422 with every invalid field.
    pub fn validation(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::of_status(StatusCode::UNPROCESSABLE_ENTITY) }
    }

    /// 401 with the challenge of RFC 6750.
    pub fn unauthorized(code: Code, detail: &str) -> Self {
        let challenge = match code {
            codes::MISSING_TOKEN => "Bearer".to_owned(),
            _ => format!("Bearer error=\"invalid_token\", error_description=\"{detail}\""),
        };
        Self::new(code, detail).header(WWW_AUTHENTICATE, challenge)
    }

    /// 405 with `Allow`.
    pub fn method_not_allowed(allow: &str) -> Self {
        Self::of_status(StatusCode::METHOD_NOT_ALLOWED).header(ALLOW, allow)
    }

    /// Adds an invalid field.
    pub fn field(mut self, field: &str, message: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.to_owned(), message: message.into() });
        self
    }

    /// Adds a response header.
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn retry_after(self, seconds: u32) -> Self {
        self.header(RETRY_AFTER, seconds.to_string())
    }

    /// Sets the cause, with its chain of sources, for the log.
    pub fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !chain.ends_with(&text) {
                chain = format!("{chain}: {text}");
            }
            source = error.source();
        }
        self.cause = Some(chain.into_boxed_str());
        self
    }

    /// Says in the access log what led to the response, where its code does not.
    pub fn flagged(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    pub fn flag(&self) -> Option<&'static str> {
        self.flag
    }

    /// The cause, only for the log.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn code(&self) -> &'static str {
        self.code
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The problem document as JSON.
    pub fn document(&self, service: &str, request_id: &str, now: OffsetDateTime) -> Vec<u8> {
        let mut document = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "service": service,
            "timestamp": now.format(&Rfc3339).unwrap_or_default(),
            "request_id": request_id,
        });
        if !self.errors.is_empty() {
            document["errors"] = serde_json::json!(self.errors);
        }
        document.to_string().into_bytes()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

/// Answers an error type with the problem that its method `problem(&self)` makes of it.
#[macro_export]
macro_rules! respond_with_problem {
    ($error:ty) => {
        impl actix_web::ResponseError for $error {
            fn status_code(&self) -> actix_web::http::StatusCode {
                self.problem().status()
            }

            fn error_response(&self) -> actix_web::HttpResponse {
                self.problem().error_response()
            }
        }
    };
}

/// The response has no body yet: the request middleware writes it, because it knows the request id.
impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        for (name, value) in &self.headers {
            response.insert_header((name.clone(), value.as_str()));
        }
        let mut response = response.finish();
        response.extensions_mut().insert(self.clone());
        response
    }
}
