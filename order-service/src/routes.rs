//! The routes: method, path, handler. Each use case is a file of its own.

mod add_product;
mod adjust_stock;
mod admin_sagas;
mod admin_stock;
mod cancel_order;
mod change_product;
mod fulfil_order;
mod list_orders;
mod list_products;
mod place_order;
mod price;
mod show_order;
mod show_product;
mod show_timeline;
mod stream_order;
mod taking_on; // what cancel, ship, deliver, resume and compensate have in common
mod waiting; // Prefer: wait=N

pub(crate) use add_product::{__path_add_product, AddProduct, add_product};
pub(crate) use adjust_stock::{__path_adjust_stock, AdjustStock, StockAdjustment, adjust_stock};
pub(crate) use cancel_order::{__path_cancel_order, cancel_order};
pub(crate) use change_product::{__path_change_product, ChangeProduct, change_product};
pub(crate) use fulfil_order::{__path_deliver_order, __path_ship_order, deliver_order, ship_order};
pub(crate) use list_orders::{__path_list_orders, list_orders};
pub(crate) use list_products::{__path_list_products, list_products};
pub(crate) use place_order::{__path_place_order, PlaceOrder, PlaceOrderLine, place_order};
pub(crate) use show_order::{__path_show_order, show_order};
pub(crate) use show_product::{__path_show_product, show_product};
pub(crate) use show_timeline::{__path_show_timeline, show_timeline};
pub(crate) use stream_order::{__path_stream_order, stream_order};

use actix_web::web::ServiceConfig;
use shared::service::resource;

/// The routing table.
pub fn configure(app: &mut ServiceConfig) {
    app.service(resource("/api/products").get(list_products).post(add_product))
        .service(resource("/api/products/{id}").get(show_product).patch(change_product))
        .service(resource("/api/products/{id}/stock-adjustments").post(adjust_stock))
        .service(resource("/api/orders").get(list_orders).post(place_order))
        .service(resource("/api/orders/{id}").get(show_order))
        .service(resource("/api/orders/{id}/cancel").post(cancel_order))
        .service(resource("/api/orders/{id}/ship").post(ship_order))
        .service(resource("/api/orders/{id}/deliver").post(deliver_order))
        .service(resource("/api/orders/{id}/timeline").get(show_timeline))
        .service(resource("/api/orders/{id}/events").get(stream_order))
        .service(resource("/admin/sagas").get(admin_sagas::list))
        .service(resource("/admin/sagas/{id}/resume").post(admin_sagas::resume))
        .service(resource("/admin/sagas/{id}/compensate").post(admin_sagas::compensate))
        .service(resource("/admin/stock").get(admin_stock::list));
}
