//! The routing table: one file and one line for each use case.

mod cookies; // the refresh token, and the language
mod same_origin; // refuses requests that another site's page may have sent
mod tokens; // answers with tokens, of which the browser's script gets one
mod visit; // the language and address of a request for a page

shared::routes! {
    api: show_shop, list_orders, show_order, show_picture, show_asset, log_in, refresh_session, log_out;
}
