//! The OpenAPI document: the routes under `/api`, as their handlers describe themselves.

use shared::openapi::Conventions;
use utoipa::OpenApi;

use crate::{routes, wire};

#[derive(OpenApi)]
#[openapi(
    info(title = "order-service", description = "The catalogue, stock, orders and their checkout."),
    paths(
        routes::list_products,
        routes::show_product,
        routes::add_product,
        routes::change_product,
        routes::adjust_stock,
        routes::place_order,
        routes::list_orders,
        routes::show_order,
        routes::cancel_order,
        routes::ship_order,
        routes::deliver_order,
        routes::show_timeline,
        routes::stream_order,
    ),
    components(schemas(
        wire::Product,
        wire::Products,
        wire::Order,
        wire::Orders,
        wire::Timeline,
        routes::AddProduct,
        routes::ChangeProduct,
        wire::Money,
        routes::AdjustStock,
        routes::StockAdjustment,
        routes::PlaceOrder,
        routes::PlaceOrderLine,
    )),
    modifiers(&Conventions)
)]
struct Document;

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
