//! Conventions of every service's OpenAPI document: security scheme and error responses. The routing table
//! ([`Routes`](crate::service::Routes)) applies them.

use actix_web::http::StatusCode;
use serde::Serialize;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::{Response, Responses};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, Content, OpenApi, Ref, RefOr};
use utoipa::{Modify, PartialSchema as _, ToSchema};

/// Adds the security scheme `user` (a bearer token from `POST /api/sessions`), and the schema `Problem` (RFC
/// 9457) to every error response. Handlers document only their specific errors; all others are documented
/// as `default`.
#[derive(Debug)]
pub struct Conventions;

impl Modify for Conventions {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_with(Components::new);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("user", SecurityScheme::Http(bearer));
        components.schemas.insert("Problem".to_owned(), Problem::schema());
        components.schemas.insert("ProblemField".to_owned(), ProblemField::schema());
        for operation in document.paths.paths.values_mut().flat_map(operations) {
            describe_errors(&mut operation.responses);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let methods = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
    methods.into_iter().filter_map(Option::as_mut)
}

fn describe_errors(responses: &mut Responses) {
    let any = Response::new("Any other error: `code` tells which.");
    responses.responses.entry("default".to_owned()).or_insert(RefOr::T(any));
    for (status, response) in &mut responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            let reason =
                status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()?.canonical_reason());
            response.description = reason.unwrap_or("Any other response.").to_owned();
        }
        if let RefOr::T(response) = response
            && !status.starts_with('2')
        {
            let problem = Content::new(Some(Ref::from_schema_name("Problem")));
            response.content.insert("application/problem+json".to_owned(), RefOr::T(problem));
        }
    }
}

/// An error.
#[derive(Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: `code` identifies the problem.
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
    use utoipa::openapi::path::OperationBuilder;
    use utoipa::openapi::{HttpMethod, Info, Paths};

    use super::*;

    #[test]
    fn a_document_says_3_1_and_knows_tokens_and_every_error_is_a_problem() {
        let (ok, missing) = (Response::new("Here it is."), Response::new("`not_found`"));
        let responses = [("200", ok), ("404", missing)].into_iter().collect::<Responses>();
        let read = OperationBuilder::new().responses(responses).build();
        let paths = Paths::builder().path("/things", PathItem::new(HttpMethod::Get, read)).build();
        let mut document = OpenApi::new(Info::new("a-service", "1"), paths);
        Conventions.modify(&mut document);
        let json = serde_json::to_value(&document).unwrap();
        assert!(json["openapi"].as_str().unwrap().starts_with("3.1"));
        assert_eq!(json["components"]["securitySchemes"]["user"]["scheme"], "bearer");
        assert!(json["components"]["schemas"]["Problem"]["properties"]["code"].is_object());
        let responses = &json["paths"]["/things"]["get"]["responses"];
        assert_eq!(responses["200"]["content"], serde_json::Value::Null);
        for error in ["404", "default"] {
            let schema = &responses[error]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem");
        }
    }
}
