//! What every service's OpenAPI document has in common.
//!
//! ```text
//! #[derive(OpenApi)]
//! #[openapi(paths(…), modifiers(&shared::openapi::Conventions))]
//! struct Document;
//! ```

use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa::{Modify, PartialSchema as _, ToSchema};

/// Adds the security scheme `user` (a bearer token from `POST /api/sessions`) and the schema
/// `Problem` (RFC 9457), to which every error answer refers.
#[derive(Debug)]
pub struct Conventions;

impl Modify for Conventions {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_with(Components::new);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("user", SecurityScheme::Http(bearer));
        components.schemas.insert("Problem".to_owned(), Problem::schema());
        components.schemas.insert("ProblemField".to_owned(), ProblemField::schema());
    }
}

/// An error: `application/problem+json`.
#[derive(Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` tells problems apart.
    pub r#type: String,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// A sentence for people.
    pub detail: String,
    /// A stable code for programs.
    pub code: String,
    /// Which service answered.
    pub service: String,
    /// When, in RFC 3339.
    pub timestamp: String,
    /// The request, as it stands in the log.
    pub request_id: String,
    /// What is wrong with the input, fault by fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemField>,
}

/// One fault of the input.
#[derive(Serialize, ToSchema)]
pub struct ProblemField {
    /// Where: a path into the body, or the name of a parameter.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_3_1_and_knows_problems_and_tokens() {
        let mut document = OpenApi::default();
        Conventions.modify(&mut document);
        let json = serde_json::to_value(&document).unwrap();
        assert!(json["openapi"].as_str().unwrap().starts_with("3.1"));
        assert_eq!(json["components"]["securitySchemes"]["user"]["scheme"], "bearer");
        assert!(json["components"]["schemas"]["Problem"]["properties"]["code"].is_object());
    }
}
