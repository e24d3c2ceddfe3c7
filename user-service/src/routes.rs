//! The routing table.

pub mod register;
pub mod sessions;
pub mod users;

pub use sessions::Issuer;

use actix_web::web;
use shared::service::resource;

/// Adds every route of this service.
pub fn configure(app: &mut web::ServiceConfig) {
    app.service(resource("/api/users").get(users::list).post(register::register))
        .service(resource("/api/users/{id}").get(users::read).patch(users::change).delete(users::deactivate))
        .service(resource("/api/sessions").post(sessions::log_in))
        .service(resource("/api/sessions/refresh").post(sessions::refresh))
        .service(resource("/api/sessions/current").delete(sessions::log_out))
        .service(resource("/.well-known/jwks.json").get(sessions::jwks));
}
