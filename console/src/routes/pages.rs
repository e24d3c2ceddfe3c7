//! The pages: one shell, whose scripts show the view of the address.

use actix_web::{HttpResponse, web};
use shared::service::resource;

use crate::error::Error;
use crate::views::assets::{self, SHELL};

const PAGES: [&str; 9] =
    ["/", "/login", "/orders", "/orders/{id}", "/traces", "/traces/{id}", "/logs", "/messages", "/numbers"];

pub fn configure(app: &mut web::ServiceConfig, has_lab: bool) {
    let lab = has_lab.then_some("/lab");
    for path in PAGES.into_iter().chain(lab) {
        app.service(resource(path).get(show_page));
    }
}

async fn show_page() -> Result<HttpResponse, Error> {
    assets::response(SHELL).ok_or(Error::NotFound)
}
