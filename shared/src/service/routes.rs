//! The routing table of a service, and the OpenAPI document made from it.
//!
//! Method and path are declared once, in the `#[utoipa::path]` of a handler, and [`routes!`](crate::routes)
//! lists the handlers. So the document cannot differ from the routes.

use std::sync::Arc;

use actix_web::{FromRequest, Handler, Responder, web};
use utoipa::openapi::{HttpMethod, OpenApi};
use utoipa::{Modify as _, Path};

use super::resource::{Resource, resource};
use crate::openapi::Conventions;

/// Declares the module of each use case and `pub fn routes() -> Routes`.
///
/// For each name there is a file `routes/<name>.rs` with a handler `<name>` that has a `#[utoipa::path(…)]`.
/// The OpenAPI document contains the `api` routes, not the `admin` routes.
///
/// ```text
/// shared::routes! {
///     api: list_things, add_thing;
///     admin: show_stock;
/// }
/// ```
#[macro_export]
macro_rules! routes {
    (api: $($api:ident),+ $(,)?; $(admin: $($admin:ident),+ $(,)?;)?) => {
        $(mod $api;)+
        $($(mod $admin;)+)?

        /// Title, description, version and license are those of the crate.
        #[derive(utoipa::OpenApi)]
        #[openapi(paths($($api::$api),+))]
        struct Document;

        /// The routing table of this service.
        pub fn routes() -> $crate::service::Routes {
            $crate::service::Routes::new(<Document as utoipa::OpenApi>::openapi())
                $(.route::<$crate::paste!($api::[<__path_ $api>]), _, _>($api::$api))+
                $($(.route::<$crate::paste!($admin::[<__path_ $admin>]), _, _>($admin::$admin))+)?
        }
    };
}

/// Handlers by path and method, and the OpenAPI document.
#[derive(Clone)]
pub struct Routes {
    resources: Vec<(String, Vec<AddMethod>)>,
    document: OpenApi,
}

type AddMethod = Arc<dyn Fn(Resource) -> Resource + Send + Sync>;

impl Routes {
    /// `document` describes the routes that are not for operators.
    pub fn new(mut document: OpenApi) -> Self {
        Conventions.modify(&mut document);
        Self { resources: Vec::new(), document }
    }

    pub fn route<P, F, Args>(mut self, handler: F) -> Self
    where
        P: Path,
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        for method in P::methods() {
            let handler = handler.clone();
            let add: AddMethod = Arc::new(move |resource| {
                let handler = handler.clone();
                match method {
                    HttpMethod::Get => resource.get(handler),
                    HttpMethod::Post => resource.post(handler),
                    HttpMethod::Put => resource.put(handler),
                    HttpMethod::Patch => resource.patch(handler),
                    HttpMethod::Delete => resource.delete(handler),
                    // Resource itself answers HEAD and OPTIONS; there is no TRACE.
                    HttpMethod::Head | HttpMethod::Options | HttpMethod::Trace => resource,
                }
            });
            let path = P::path();
            match self.resources.iter_mut().find(|(known, _)| *known == path) {
                Some((_, methods)) => methods.push(add),
                None => self.resources.push((path, vec![add])),
            }
        }
        self
    }

    pub(super) fn document(&self) -> &OpenApi {
        &self.document
    }

    pub(super) fn configure(&self, app: &mut web::ServiceConfig) {
        for (path, methods) in &self.resources {
            app.service(methods.iter().fold(resource(path), |resource, add| add(resource)));
        }
    }
}
