//! `GET /api/orders`: a customer's own orders; for an admin, all orders.

use std::str::FromStr;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use shared::auth::Caller;
use shared::request::{Page, Paging, Params};
use utoipa::ToSchema;

use crate::domain::Status;
use crate::error::Error;
use crate::store::{Filter, Store};
use crate::views::OrderView;

#[derive(Serialize, ToSchema)]
pub(crate) struct Orders {
    /// Newest first.
    orders: Vec<OrderView>,
    /// The `cursor` of the next page; null on the last page.
    next_cursor: Option<String>,
}

struct StatusName(&'static str);

impl FromStr for StatusName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Status::all().map(Status::as_str).find(|status| *status == name).map(Self).ok_or(())
    }
}

#[utoipa::path(get, path = "/api/orders", tag = "orders", security(("user" = [])),
    params(
        ("status" = Option<String>, Query),
        ("customer_id" = Option<uuid::Uuid>, Query, description = "for admins; ignored otherwise"),
        ("limit" = Option<u8>, Query, minimum = 1, maximum = 100),
        ("cursor" = Option<String>, Query),
    ),
    responses((status = 200, body = Orders), (status = 400, description = "`invalid_parameter`")))]
pub(crate) async fn list_orders(
    caller: Caller,
    paging: Paging,
    params: Params,
    store: Data<Store>,
) -> Result<HttpResponse, Error> {
    let status = params.optional::<StatusName>("status", "the name of a status")?.map(|name| name.0);
    let customer_id = match caller.is_admin() {
        true => params.optional("customer_id", "the id of a customer")?,
        false => Some(caller.id),
    };
    let Page { items, next_cursor } = store.orders(&paging, Filter { customer_id, status }).await?;
    let orders = items.iter().map(OrderView::from).collect();
    Ok(HttpResponse::Ok().json(Orders { orders, next_cursor }))
}
