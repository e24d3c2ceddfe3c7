//! `GET /api/payments`

use actix_web::{HttpResponse, web};
use serde::Serialize;
use shared::auth::Caller;
use shared::request::{Paging, Params};
use utoipa::ToSchema;

use crate::error::Error;
use crate::store::{Filter, Store};
use crate::views::PaymentView;

/// A page of payments.
#[derive(Serialize, ToSchema)]
pub(crate) struct Payments {
    /// Newest first.
    pub payments: Vec<PaymentView>,
    /// What to send as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
}

/// One's own payments; an admin sees all.
///
/// # Errors
/// 400 for a parameter that cannot be read.
#[utoipa::path(
    get, path = "/api/payments", tag = "payments", operation_id = "list_payments",
    security(("user" = [])),
    params(
        ("order_id" = Option<uuid::Uuid>, Query, description = "Only this order's"),
        ("limit" = Option<i64>, Query, description = "1 to 100, 20 if absent", minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page, newest first", body = Payments),
        (status = 400, description = "`invalid_parameter`"),
    )
)]
pub(crate) async fn list_payments(
    caller: Caller,
    params: Params,
    paging: Paging,
    store: web::Data<Store>,
) -> Result<HttpResponse, Error> {
    let order_id = params.optional("order_id", "the id of an order")?;
    let customer_id = Some(caller.id).filter(|_| !caller.is_admin());
    let found = store.payments(Filter { customer_id, order_id }, &paging).await?;
    let page = paging.page(found, |payment| payment.id);
    let payments = page.items.iter().map(PaymentView::from).collect();
    Ok(HttpResponse::Ok().json(Payments { payments, next_cursor: page.next_cursor }))
}
