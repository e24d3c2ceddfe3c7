//! The routing table: one file and one line for each use case.

mod order_command; // the extractor of cancel, ship, deliver, resume and compensate
mod price; // a price in a request
mod prefer_wait; // Prefer: wait=N

pub(crate) use place_order::PlaceOrderOperation;

shared::routes! {
    api:
        list_products,
        add_product,
        show_product,
        change_product,
        adjust_stock,
        list_orders,
        place_order,
        show_order,
        cancel_order,
        ship_order,
        deliver_order,
        show_timeline,
        stream_order;
    admin:
        list_sagas,
        resume_saga,
        compensate_saga,
        show_stock;
}
