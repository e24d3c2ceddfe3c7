//! Merges the OpenAPI documents of all services, and serves Swagger UI with embedded assets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Data, Path};
use actix_web::{HttpResponse, web};
use serde_json::{Map, Value, json};
use shared::client::ServiceClient;
use shared::problem::Problem;
use shared::service::resource;
use shared::stop::Stop;
use utoipa_swagger_ui::Config;

/// The last known document of each service, by name.
#[derive(Default)]
pub struct Docs(Mutex<BTreeMap<String, Value>>);

const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// While a document is missing.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

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

    fn put(&self, service: &str, document: Value) {
        let mut documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        documents.insert(service.to_owned(), document);
    }

    /// All documents as one, with the public paths only.
    fn merged(&self) -> Value {
        let documents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut paths, mut components) = (Map::new(), Map::new());
        for document in documents.values() {
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
}

async fn document(service: &ServiceClient) -> Option<Value> {
    let answer = service.get("/openapi.json").send().await.ok()?;
    answer.json().ok().filter(|_| answer.status.is_success())
}

/// Adds `/openapi.json` and `/docs`.
pub fn configure(app: &mut web::ServiceConfig) {
    app.service(resource("/openapi.json").get(merged))
        .service(resource("/docs").get(index))
        .service(resource("/docs/{file:.*}").get(asset));
}

async fn merged(docs: Data<Docs>) -> HttpResponse {
    HttpResponse::Ok().json(docs.merged())
}

async fn index() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/docs/")).finish()
}

async fn asset(file: Path<String>) -> Result<HttpResponse, Problem> {
    let file = if file.is_empty() { "index.html" } else { &file };
    let config = Arc::new(Config::from("/openapi.json"));
    let asset = utoipa_swagger_ui::serve(file, config).map_err(|error| {
        log::error!(error:%; "Swagger UI cannot be served");
        Problem::internal()
    })?;
    let asset = asset.ok_or_else(Problem::not_found)?;
    let mut response = HttpResponse::Ok();
    if let Ok(kind) = HeaderValue::from_str(&asset.content_type) {
        response.insert_header((header::CONTENT_TYPE, kind));
    }
    Ok(response.body(asset.bytes.into_owned()))
}
