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
    allow: Vec<String>,
}

/// A resource without methods at `path`, such as `/things/{id}`.
pub fn resource(path: &str) -> Resource {
    Resource { resource: web::resource(path), allow: vec![Method::OPTIONS.to_string()] }
}

macro_rules! methods {
    ($($name:ident $method:ident),*) => {$(
        pub fn $name<F, Args>(self, handler: F) -> Self
        where
            F: Handler<Args>,
            Args: FromRequest + 'static,
            F::Output: Responder + 'static,
        {
            self.method(Method::$method, handler)
        }
    )*};
}

impl Resource {
    methods!(get GET, post POST, put PUT, patch PATCH, delete DELETE);

    fn method<F, Args>(mut self, method: Method, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        if method == Method::GET {
            // The server drops the body of an answer to HEAD.
            self = self.method(Method::HEAD, handler.clone());
        }
        self.allow.push(method.to_string());
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
