//! The pages. The catalogue is complete without a script; everything else needs one.

use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::http::header;
use askama::Template;

use super::texts::Texts;
use crate::clients::products::{Catalogue, Product};
use crate::domain::{Language, euros};
use crate::error::Error;

/// The prepared parts of all pages, made once.
pub struct Pages {
    instance: String,
    is_lab: bool,
    english: Texts,
    chinese: Texts,
}

/// The parts of a page that depend on the request.
pub struct Visit {
    pub language: Language,
    /// Whether the reader has just chosen the language.
    pub chosen: bool,
    /// The address of the page without `lang`, for the links to the other languages.
    pub address: String,
    pub request_id: String,
    pub began: Instant,
}

/// Header and footer.
struct Frame<'a> {
    texts: &'a Texts,
    visit: &'a Visit,
    instance: &'a str,
    is_lab: bool,
}

struct LanguageLink {
    tag: &'static str,
    name: &'static str,
    address: String,
    is_current: bool,
}

#[derive(Template)]
#[template(path = "shop.html")]
struct ShopPage<'a> {
    frame: Frame<'a>,
    /// The text that was searched for.
    part: &'a str,
    /// `None` if order-service does not answer.
    catalogue: Option<&'a Catalogue>,
}

#[derive(Template)]
#[template(path = "orders.html")]
struct OrdersPage<'a> {
    frame: Frame<'a>,
}

#[derive(Template)]
#[template(path = "order.html")]
struct OrderPage<'a> {
    frame: Frame<'a>,
    id: String,
}

impl Frame<'_> {
    fn text(&self, key: &'static str) -> &str {
        self.texts.get(key)
    }

    fn with(&self, key: &'static str, name: &str, value: impl ToString) -> String {
        self.texts.with(key, name, value)
    }

    /// This page in each language.
    fn languages(&self) -> [LanguageLink; 2] {
        let address = &self.visit.address;
        let mark = if address.contains('?') { '&' } else { '?' };
        Language::ALL.map(|language| LanguageLink {
            tag: language.tag(),
            name: language.name(),
            address: format!("{address}{mark}lang={}", language.tag()),
            is_current: language == self.visit.language,
        })
    }

    fn milliseconds(&self) -> String {
        format!("{:.1}", self.visit.began.elapsed().as_secs_f64() * 1000.0)
    }
}

impl Product {
    fn money(&self) -> String {
        euros(self.price.amount)
    }
}

impl Pages {
    /// Prepares the pages. With `is_lab`, a visitor may register as an example customer with one click.
    ///
    /// # Errors
    /// When the texts in the program are malformed.
    pub fn new(instance: &str, is_lab: bool) -> Result<Self, serde_json::Error> {
        let (english, chinese) = (Texts::of(Language::English)?, Texts::of(Language::Chinese)?);
        Ok(Self { instance: instance.to_owned(), is_lab, english, chinese })
    }

    pub fn shop(
        &self,
        visit: &Visit,
        part: &str,
        catalogue: Option<&Catalogue>,
    ) -> Result<HttpResponse, Error> {
        respond(visit, &ShopPage { frame: self.frame(visit), part, catalogue })
    }

    pub fn orders(&self, visit: &Visit) -> Result<HttpResponse, Error> {
        respond(visit, &OrdersPage { frame: self.frame(visit) })
    }

    pub fn order(&self, visit: &Visit, id: String) -> Result<HttpResponse, Error> {
        respond(visit, &OrderPage { frame: self.frame(visit), id })
    }

    fn frame<'a>(&'a self, visit: &'a Visit) -> Frame<'a> {
        let texts = match visit.language {
            Language::English => &self.english,
            Language::Chinese => &self.chinese,
        };
        Frame { texts, visit, instance: &self.instance, is_lab: self.is_lab }
    }
}

/// The content security policy: only files of this origin, nothing inline.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
/// The cookie with the language that the reader has chosen.
pub const LANGUAGE_COOKIE: &str = "lang";

fn respond(visit: &Visit, page: &impl Template) -> Result<HttpResponse, Error> {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "same-origin"))
        .insert_header((header::CONTENT_LANGUAGE, visit.language.tag()))
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .insert_header((header::VARY, "Accept-Language, Cookie"));
    if visit.chosen {
        let cookie =
            format!("{LANGUAGE_COOKIE}={}; Path=/; Max-Age=31536000; SameSite=Lax", visit.language.tag());
        response.insert_header((header::SET_COOKIE, cookie));
    }
    Ok(response.body(page.render()?))
}
