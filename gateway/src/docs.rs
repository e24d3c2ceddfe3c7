//! Merges the OpenAPI documents of all services, and serves Swagger UI with embedded assets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::http::header;
use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse, web};
use arc_swap::ArcSwap;
use futures_util::stream;
use serde_json::{Map, Value, json};
use shared::client::ServiceClient;
use shared::digest;
use shared::problem::Problem;
use shared::request::is_known;
use shared::service::resource;
use shared::stop::Stop;
use utoipa_swagger_ui::Config;

use crate::pages;
use crate::proxy::Gateway;

/// The last known documents.
pub struct Docs {
    /// The document of each service, by the service's name.
    services: Mutex<BTreeMap<String, Value>>,
    /// All documents, merged. The merge runs when a document changes and not in a request, because it is expensive.
    merged: ArcSwap<Document>,
    /// The files of Swagger UI that were requested.
    assets: Mutex<BTreeMap<String, Arc<Document>>>,
}

/// A document with its `ETag`.
struct Document {
    bytes: Bytes,
    /// The `ETag`, with its quotes.
    etag: String,
}

impl Document {
    fn new(bytes: Bytes) -> Self {
        let etag = digest::etag(&bytes);
        Self { bytes, etag }
    }

    /// The document, or 304 if the client already has it.
    fn response(&self, request: &HttpRequest, kind: &str) -> HttpResponse {
        let known = is_known(request.headers(), &self.etag);
        let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response.insert_header((header::ETAG, self.etag.as_str()));
        response.insert_header((header::CACHE_CONTROL, "no-cache"));
        pages::SWAGGER_UI.add_to(&mut response);
        if known {
            return response.finish();
        }
        // The document is sent in parts, so that a slow client occupies the memory of one part only.
        let (bytes, length) = (self.bytes.clone(), self.bytes.len());
        let parts = (0..length).step_by(PART).map(move |at| Ok(bytes.slice(at..length.min(at + PART))));
        let parts = stream::iter(parts.collect::<Vec<Result<Bytes, std::io::Error>>>());
        response.insert_header((header::CONTENT_TYPE, kind)).body(SizedStream::new(length as u64, parts))
    }
}

/// The size of a part, in bytes.
const PART: usize = 32 * 1024;
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// The interval while a document is missing.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl Default for Docs {
    fn default() -> Self {
        let none = Document::new(merge(&BTreeMap::new()).to_string().into());
        Self { services: Mutex::default(), merged: ArcSwap::from_pointee(none), assets: Mutex::default() }
    }
}

impl Docs {
    /// Fetches the documents of `services` regularly until `stop`.
    pub async fn follow(self: Arc<Self>, services: Vec<ServiceClient>, stop: Stop) {
        while !stop.is_requested() {
            let mut complete = true;
            for service in &services {
                match document(service).await {
                    Some(document) => self.put(service.service(), document),
                    None => complete = false,
                }
            }
            stop.sleep(if complete { REFRESH_INTERVAL } else { RETRY_INTERVAL }).await;
        }
    }

    /// The document of a file. It is cached, because hashing a megabyte is too expensive for each request.
    fn asset(&self, file: &str, content: Cow<'static, [u8]>) -> Arc<Document> {
        let mut assets = self.assets.lock().unwrap_or_else(PoisonError::into_inner);
        let document = || {
            Arc::new(Document::new(match content {
                Cow::Borrowed(content) => Bytes::from_static(content),
                Cow::Owned(content) => content.into(),
            }))
        };
        assets.entry(file.to_owned()).or_insert_with(document).clone()
    }

    fn put(&self, service: &str, document: Value) {
        let mut documents = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        documents.insert(service.to_owned(), document);
        self.merged.store(Arc::new(Document::new(merge(&documents).to_string().into())));
    }
}

/// All documents as one, with the public paths only.
fn merge(documents: &BTreeMap<String, Value>) -> Value {
    let (mut paths, mut components) = (Map::new(), Map::new());
    for (service, document) in documents {
        let document = &with_own_names(service, document, &components);
        let public = document["paths"].as_object().into_iter().flatten();
        let public =
            public.filter(|(path, _)| path.starts_with("/api/") || path.starts_with("/.well-known/"));
        paths.extend(public.map(|(path, item)| (path.clone(), item.clone())));
        for (kind, named) in document["components"].as_object().into_iter().flatten() {
            let all = components.entry(kind.clone()).or_insert_with(|| json!({}));
            if let (Some(all), Some(named)) = (all.as_object_mut(), named.as_object()) {
                all.extend(named.clone());
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Shop",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "All services behind the gateway. Log in with POST /api/sessions, then authorize with the access token.",
        },
        "paths": paths,
        "components": components,
    })
}

/// Renames the schemas of `document` that differ from a schema with the same name in `others`. For example, `Money`
/// becomes `PaymentServiceMoney`.
fn with_own_names(service: &str, document: &Value, others: &Map<String, Value>) -> Value {
    let prefix: String = service.split('-').map(capitalized).collect();
    let mut text = document.to_string();
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let other = others.get("schemas").and_then(|schemas| schemas.get(name));
        if other.is_some_and(|other| other != schema) {
            text = text.replace(
                &format!("#/components/schemas/{name}\""),
                &format!("#/components/schemas/{prefix}{name}\""),
            );
            text = text.replace(&format!("\"{name}\":{{"), &format!("\"{prefix}{name}\":{{"));
        }
    }
    serde_json::from_str(&text).unwrap_or_else(|_| document.clone())
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

async fn document(service: &ServiceClient) -> Option<Value> {
    let answer = service.get("/openapi.json").send().await.ok()?;
    answer.json().ok().filter(|_| answer.status.is_success())
}

/// Adds `/openapi.json` and `/docs`.
pub fn configure(app: &mut web::ServiceConfig) {
    // In a scope, the pattern of the files is matched only against paths below `/docs`.
    let files =
        web::scope("/docs").service(resource("").get(index)).service(resource("/{file:.*}").get(asset));
    app.service(resource("/openapi.json").get(merged)).service(files);
}

async fn merged(
    request: HttpRequest,
    docs: Data<Docs>,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, Problem> {
    gateway.check_rate(&request)?;
    Ok(docs.merged.load().response(&request, "application/json"))
}

async fn index() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/docs/")).finish()
}

async fn asset(
    request: HttpRequest,
    file: Path<String>,
    docs: Data<Docs>,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, Problem> {
    gateway.check_rate(&request)?;
    let file = if file.is_empty() { "index.html" } else { &file };
    let config = Arc::new(Config::from("/openapi.json"));
    let asset = utoipa_swagger_ui::serve(file, config).map_err(|error| {
        log::error!(error:%; "Swagger UI cannot be served");
        Problem::internal()
    })?;
    let asset = asset.ok_or_else(Problem::not_found)?;
    Ok(docs.asset(file, asset.bytes).response(&request, &asset.content_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_service_may_have_empty_words() {
        let schema = |kind: &str| json!({ "components": { "schemas": { "Money": { "type": kind } } } });
        let documents = ["a", "b--c", "d-", "-"].map(|service| (service.to_owned(), schema(service)));
        let merged = merge(&documents.into());
        let mut names: Vec<_> = merged["components"]["schemas"].as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["AMoney", "BCMoney", "DMoney", "Money"]);
    }

    #[test]
    fn two_services_may_have_different_schemas_of_one_name() {
        let document = |path: &str, kind: &str| {
            let schema = json!({ "$ref": "#/components/schemas/Money" });
            json!({
                "paths": { path: { "get": { "schema": schema } } },
                "components": { "schemas": { "Money": { "type": kind }, "Same": { "type": "string" } } },
            })
        };
        let documents = [
            ("order-service".to_owned(), document("/api/orders", "object")),
            ("payment-service".to_owned(), document("/api/payments", "integer")),
        ];
        let merged = merge(&documents.into());
        let reference = |path: &str| merged["paths"][path]["get"]["schema"]["$ref"].clone();
        assert_eq!(reference("/api/orders"), "#/components/schemas/Money");
        assert_eq!(reference("/api/payments"), "#/components/schemas/PaymentServiceMoney");
        let schemas = merged["components"]["schemas"].as_object().unwrap();
        assert_eq!(schemas["Money"]["type"], "object");
        assert_eq!(schemas["PaymentServiceMoney"]["type"], "integer");
        assert_eq!(schemas.len(), 3);
    }
}
