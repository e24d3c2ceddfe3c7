//! The files that pages load. They are in the program.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Bytes;
use shared::digest;

use super::texts;
use crate::domain::Language;

/// Name and content of each file in `assets/` but the texts.
const FILES: [(&str, &str); 18] = [
    ("account.js", include_str!("../../assets/account.js")),
    ("api.js", include_str!("../../assets/api.js")),
    ("cards.js", include_str!("../../assets/cards.js")),
    ("cart.js", include_str!("../../assets/cart.js")),
    ("catalogue.js", include_str!("../../assets/catalogue.js")),
    ("checkout.js", include_str!("../../assets/checkout.js")),
    ("dom.js", include_str!("../../assets/dom.js")),
    ("events.js", include_str!("../../assets/events.js")),
    ("frame.js", include_str!("../../assets/frame.js")),
    ("icon.svg", include_str!("../../assets/icon.svg")),
    ("keys.js", include_str!("../../assets/keys.js")),
    ("order.js", include_str!("../../assets/order.js")),
    ("orders.js", include_str!("../../assets/orders.js")),
    ("pieces.js", include_str!("../../assets/pieces.js")),
    ("session.js", include_str!("../../assets/session.js")),
    ("shop.css", include_str!("../../assets/shop.css")),
    ("shop.js", include_str!("../../assets/shop.js")),
    ("texts.js", include_str!("../../assets/texts.js")),
];

/// All files, by name.
pub struct Assets(BTreeMap<String, Asset>);

/// A file with its `ETag`.
pub struct Asset {
    kind: &'static str,
    bytes: Bytes,
    etag: String,
}

impl Assets {
    pub fn new() -> Self {
        let files = FILES.map(|(name, text)| (name.to_owned(), text));
        let texts = Language::ALL.map(|language| (format!("{}.json", language.tag()), texts::file(language)));
        let files = files.into_iter().chain(texts);
        Self(files.map(|(name, text)| (name.clone(), Asset::new(kind_of(&name), text.into()))).collect())
    }

    pub fn get(&self, name: &str) -> Option<&Asset> {
        self.0.get(name)
    }
}

impl Default for Assets {
    fn default() -> Self {
        Self::new()
    }
}

impl Asset {
    pub fn new(kind: &'static str, bytes: Bytes) -> Self {
        let etag = digest::etag(&bytes);
        Self { kind, bytes, etag }
    }

    /// The browser asks for it each time (304 if it has it), because replicas of two versions may serve one page.
    pub fn response(&self) -> HttpResponse {
        HttpResponse::Ok()
            .insert_header((header::ETAG, self.etag.as_str()))
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            // An image may be opened by itself.
            .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
            .insert_header((header::CONTENT_TYPE, self.kind))
            .body(self.bytes.clone())
    }
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json") => "application/json",
        _ => SVG,
    }
}

pub const SVG: &str = "image/svg+xml";
