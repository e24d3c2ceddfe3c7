//! A resource: one path and the handlers of its methods. It adds HEAD where there is GET, answers OPTIONS,
//! and answers every other method with 405 and `Allow`.

use actix_web::dev::{AppService, HttpServiceFactory};
use actix_web::http::header::ALLOW;
use actix_web::http::{Method, StatusCode};
use actix_web::{FromRequest, Handler, HttpResponse, Responder, web};

use crate::problem::Problem;

/// One path and its handlers.
pub struct Resource {
    resource: actix_web::Resource,
    allow: Vec<&'static str>,
}

/// A resource without methods at `path`, such as `/things/{id}`.
pub fn resource(path: &str) -> Resource {
    Resource { resource: web::resource(path), allow: vec!["OPTIONS"] }
}

macro_rules! methods {
    ($($name:ident $method:ident $doc:literal),*) => {$(
        #[doc = $doc]
        pub fn $name<F, Args>(self, handler: F) -> Self
        where
            F: Handler<Args>,
            Args: FromRequest + 'static,
            F::Output: Responder + 'static,
        {
            self.method(Method::$method, stringify!($method), handler)
        }
    )*};
}

impl Resource {
    methods!(
        post POST "Answers POST with `handler`.",
        put PUT "Answers PUT with `handler`.",
        patch PATCH "Answers PATCH with `handler`.",
        delete DELETE "Answers DELETE with `handler`."
    );

    /// Answers GET and HEAD with `handler`; for HEAD the body is dropped.
    pub fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.method(Method::HEAD, "HEAD", handler.clone()).method(Method::GET, "GET", handler)
    }

    fn method<F, Args>(mut self, method: Method, name: &'static str, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allow.push(name);
        self.resource = self.resource.route(web::method(method).to(handler));
        self
    }
}

impl HttpServiceFactory for Resource {
    fn register(self, app: &mut AppService) {
        let allow = self.allow.join(", ");
        let allowed = allow.clone();
        let options = move || {
            let allow = allowed.clone();
            async move { HttpResponse::build(StatusCode::NO_CONTENT).insert_header((ALLOW, allow)).finish() }
        };
        let other = move || {
            let problem = Problem::method_not_allowed(&allow);
            async move { Err::<HttpResponse, _>(problem) }
        };
        self.resource
            .route(web::method(Method::OPTIONS).to(options))
            .default_service(web::to(other))
            .register(app);
    }
}

pub(super) async fn not_found() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found())
}
