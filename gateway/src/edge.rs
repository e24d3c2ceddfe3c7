//! The handler of every forwarded request: the [`proxy`], and around it the access log and what the
//! route asks for ([`policies`](crate::policies)).

use std::rc::Rc;
use std::sync::Arc;

use actix_web::web::{Data, Payload};
use actix_web::{FromRequest as _, HttpRequest, HttpResponse, ResponseError as _, dev};
use shared::problem::Problem;
use shared::request::has_body;

use crate::access_log::AccessLog;
use crate::engine::Engine;
use crate::policies::Policies;
use crate::policies::limit;
use crate::proxy::{self, Gateway, path};

pub async fn edge(
    request: HttpRequest,
    mut payload: Payload,
    gateway: Data<Gateway>,
    engine: Data<Engine>,
) -> Result<HttpResponse, Problem> {
    let log = AccessLog::begin(&request);
    if let Some(log) = &log {
        log.set_client(gateway.client(&request));
        if has_body(&request) {
            payload = as_payload(&request, log.counting(payload.into_inner())).await?;
        }
    }
    let policies = policies_of(&request, &gateway);
    let Some(policies) = policies else { return proxy::proxy(request, payload, gateway, engine, log).await };
    Box::pin(serve_with_policies(&policies, request, payload, gateway, engine, log)).await
}

/// Serves a request of a route with policies.
async fn serve_with_policies(
    policies: &Policies,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
    engine: Data<Engine>,
    log: Option<Rc<AccessLog>>,
) -> Result<HttpResponse, Problem> {
    if let Some(answer) = policies.cors.as_ref().and_then(|cors| cors.preflight(&request)) {
        gateway.check_rate(&request)?;
        return Ok(answer);
    }
    let answered = match policies.body_limit {
        Some(max) if has_body(&request) => match limit::limited(&request, payload.into_inner(), max) {
            Ok((payload, exceeded)) => {
                let payload = as_payload(&request, payload).await?;
                let answered = proxy::proxy(request.clone(), payload, gateway, engine, log).await;
                if exceeded.get() { Err(limit::too_large(max)) } else { answered }
            }
            Err(problem) => gateway.check_rate(&request).and(Err(problem)),
        },
        _ => proxy::proxy(request.clone(), payload, gateway, engine, log).await,
    };
    let response = answered.unwrap_or_else(|problem| problem.error_response());
    Ok(policies.finish(&request, response))
}

/// The policies of the route, if the table has any at all.
fn policies_of(request: &HttpRequest, gateway: &Gateway) -> Option<Arc<Policies>> {
    let table = gateway.table.load();
    if !table.has_policies {
        return None;
    }
    // The proxy refuses a path that cannot be read in one way.
    table.route(path::checked(request).ok()?)?.policies.clone()
}

async fn as_payload(request: &HttpRequest, mut payload: dev::Payload) -> Result<Payload, Problem> {
    Payload::from_request(request, &mut payload).await.map_err(|_| Problem::internal())
}
