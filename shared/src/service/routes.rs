//! The routing table of a service, and the OpenAPI document made from it.
//!
//! Method and path are declared once, in the `#[utoipa::path]` of a handler, and [`routes!`](crate::routes)
//! lists the handlers. So the document cannot differ from the routes.

use std::sync::Arc;

use actix_web::{FromRequest, Handler, Responder, web};
use utoipa::__dev::{SchemaReferences, Tags};
use utoipa::openapi::{Components, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
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
    ($($kind:ident: $($handler:ident),+ $(,)?;)+) => {
        $($(mod $handler;)+)+

        /// The routing table of this service.
        pub fn routes() -> $crate::service::Routes {
            $crate::service::Routes::new(env!("CARGO_PKG_DESCRIPTION"))
                $($(.$kind::<$crate::paste!($handler::[<__path_ $handler>]), _, _>($handler::$handler))+)+
        }
    };
}

/// Handlers by path and method, with their OpenAPI descriptions.
#[derive(Clone)]
pub struct Routes {
    resources: Vec<(String, Vec<AddMethod>)>,
    document: OpenApi,
}

type AddMethod = Arc<dyn Fn(Resource) -> Resource + Send + Sync>;

impl Routes {
    pub fn new(description: &str) -> Self {
        let license = env!("CARGO_PKG_LICENSE");
        let info = InfoBuilder::new()
            .description(Some(description))
            .version(env!("CARGO_PKG_VERSION"))
            .license(Some(LicenseBuilder::new().name(license).identifier(Some(license)).build()));
        let document = OpenApiBuilder::new().info(info.build()).components(Some(Components::new()));
        Self { resources: Vec::new(), document: document.build() }
    }

    /// Adds a documented route.
    pub fn api<P, F, Args>(mut self, handler: F) -> Self
    where
        P: Path + SchemaReferences + for<'t> Tags<'t>,
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let mut operation = P::operation();
        operation.tags = Some(P::tags().into_iter().map(str::to_owned).collect());
        self.document.paths.add_path_operation(P::path(), P::methods(), operation);
        let mut schemas = Vec::new();
        P::schemas(&mut schemas);
        if let Some(components) = &mut self.document.components {
            components.schemas.extend(schemas);
        }
        self.admin::<P, F, Args>(handler)
    }

    /// Adds a route for operators, without documenting it.
    pub fn admin<P, F, Args>(mut self, handler: F) -> Self
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

    /// The OpenAPI 3.1 document with the title `service`.
    pub fn document(&self, service: &str) -> OpenApi {
        let mut document = self.document.clone();
        document.info.title = service.to_owned();
        Conventions.modify(&mut document);
        document
    }

    pub(super) fn configure(&self, app: &mut web::ServiceConfig) {
        for (path, methods) in &self.resources {
            app.service(methods.iter().fold(resource(path), |resource, add| add(resource)));
        }
    }
}
