//! `GET /api/orders`: a customer's own orders; for an admin, all orders.

use std::str::FromStr;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;
use shared::auth::Caller;
use shared::request::{Page, Paging, Params};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
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

struct Time(OffsetDateTime);

impl FromStr for Time {
    type Err = time::error::Parse;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        OffsetDateTime::parse(text, &Rfc3339).map(Self)
    }
}

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
        ("before" = Option<String>, Query, format = "date-time", description = "orders placed before this time"),
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
    let before = params.optional::<Time>("before", "a time like 2026-01-31T12:00:00Z")?.map(|time| time.0);
    let filter = Filter { customer_id, status, before };
    let Page { items, next_cursor } = store.orders(&paging, filter).await?;
    let orders = items.iter().map(OrderView::from).collect();
    Ok(HttpResponse::Ok().json(Orders { orders, next_cursor }))
}
