//! Method, path, handler.

pub mod get_ledger;
pub mod get_payment;
pub mod list_payments;
pub mod refund_payment;
pub mod views;

use actix_web::web;
use shared::service::resource;

/// The routes of this service.
pub fn configure(app: &mut web::ServiceConfig) {
    app.service(resource("/api/payments").get(list_payments::list))
        .service(resource("/api/payments/{id}").get(get_payment::get))
        .service(resource("/api/payments/{id}/refunds").post(refund_payment::refund))
        .service(resource("/admin/ledger").get(get_ledger::ledger));
}
