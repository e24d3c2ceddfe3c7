//! `GET /`: the shop, with the catalogue.

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::client::Context;
use shared::request::Params;

use crate::clients::products::Products;
use crate::error::Error;
use crate::views::pages::{Pages, Visit};

#[utoipa::path(get, path = "/", tag = "pages",
    params(("q" = Option<String>, Query, description = "part of a name or sku"),
        ("cursor" = Option<String>, Query), ("lang" = Option<String>, Query)),
    responses((status = 200, content_type = "text/html", body = String)))]
pub(crate) async fn show_shop(
    visit: Visit,
    context: Context,
    params: Params,
    pages: Data<Pages>,
    products: Data<Products>,
) -> Result<HttpResponse, Error> {
    let part: Option<String> = params.optional("q", "a text")?;
    let part = part.filter(|part| !part.is_empty());
    let cursor: Option<String> = params.optional("cursor", "a text")?;
    // Without the catalogue the page says so, and its script tries again.
    let catalogue = products.list(part.as_deref(), cursor.as_deref(), &context).await;
    let catalogue = catalogue.inspect_err(|error| log::warn!(error:%; "the catalogue cannot be read"));
    pages.shop(&visit, part.as_deref().unwrap_or_default(), catalogue.ok().as_ref())
}
