//! `GET /shop/assets/{name}`: a script, a style or the texts of a language.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use crate::error::Error;
use crate::views::assets::Assets;

#[utoipa::path(get, path = "/shop/assets/{name}", tag = "files", params(("name" = String, Path)),
    responses((status = 200), (status = 304), (status = 404, description = "`not_found`")))]
pub(crate) async fn show_asset(name: Path<String>, assets: Data<Assets>) -> Result<HttpResponse, Error> {
    Ok(assets.get(&name).ok_or(Error::NotFound)?.response())
}
