//! Security headers of the gateway's own pages: the documents and Swagger UI.

use actix_web::HttpResponseBuilder;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

/// What a page may load, and who may frame it.
pub struct Page {
    content_security_policy: &'static str,
}

/// Swagger UI sets styles by attributes, and has pictures in its style sheet.
pub const SWAGGER_UI: Page = Page {
    content_security_policy: "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
};

impl Page {
    pub fn add_to(&self, response: &mut HttpResponseBuilder) {
        response
            .insert_header((CONTENT_SECURITY_POLICY, self.content_security_policy))
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((REFERRER_POLICY, "no-referrer"));
    }
}
