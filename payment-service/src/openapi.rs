//! The API, described from the code.

use shared::openapi::Conventions;
use utoipa::OpenApi;

use crate::routes::{get_payment, list_payments, refund_payment};

#[derive(OpenApi)]
#[openapi(
    info(title = "payment-service", description = "Payments and refunds."),
    paths(list_payments::list, get_payment::get, refund_payment::refund),
    modifiers(&Conventions)
)]
struct Document;

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
