//! `GET /api/payments/{id}`

use actix_web::{HttpResponse, web};
use shared::auth::Caller;
use shared::request::{PathId, etag};

use crate::error::Error;
use crate::store::Store;
use crate::views::PaymentView;

/// One payment, for who pays it and for admins.
///
/// # Errors
/// 404 also for somebody else's.
#[utoipa::path(
    get, path = "/api/payments/{id}", tag = "payments", operation_id = "get_payment",
    security(("user" = [])), params(("id" = uuid::Uuid, Path)),
    responses(
        (
            status = 200, description = "The payment", body = PaymentView,
            headers(("ETag" = String, description = "Its version"))
        ),
        (status = 404, description = "`not_found`"),
    )
)]
pub(crate) async fn show_payment(
    caller: Caller,
    id: PathId,
    store: web::Data<Store>,
) -> Result<HttpResponse, Error> {
    let payment = store.payment(id.0).await?.filter(|payment| caller.may_see(payment.customer_id));
    let payment = payment.ok_or(Error::NotFound)?;
    Ok(HttpResponse::Ok().insert_header(etag(payment.version)).json(PaymentView::from(&payment)))
}
