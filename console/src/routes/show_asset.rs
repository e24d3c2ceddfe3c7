//! `GET /assets/{name}`: a script, a style, or the texts of a language.

use actix_web::HttpResponse;
use actix_web::web::Path;

use crate::error::Error;
use crate::views::assets;

#[utoipa::path(get, path = "/assets/{name}", tag = "pages", params(("name" = String, Path)),
    responses((status = 200), (status = 304), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_asset(name: Path<String>) -> Result<HttpResponse, Error> {
    assets::response(&name).ok_or(Error::NotFound)
}
