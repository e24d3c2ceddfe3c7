//! The API as an OpenAPI 3.1 document, made from the code.

use shared::openapi::Conventions;
use utoipa::OpenApi;

use crate::domain::{Role, Status, User};
use crate::routes::{register, sessions, users};

#[derive(OpenApi)]
#[openapi(
    info(title = "user-service", description = "People and their sessions."),
    paths(
        register::register,
        users::list,
        users::read,
        users::change,
        users::deactivate,
        sessions::log_in,
        sessions::refresh,
        sessions::log_out,
        sessions::jwks
    ),
    components(schemas(User, Role, Status)),
    modifiers(&Conventions)
)]
struct Document;

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
