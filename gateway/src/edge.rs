//! The handler of every forwarded request: the [`proxy`], and around it the access log and what the
//! route asks for ([`policies`](crate::policies)).

use actix_web::web::{Data, Payload};
use actix_web::{FromRequest as _, HttpRequest, HttpResponse, ResponseError as _, dev};
use shared::problem::Problem;
use shared::request::has_body;

use crate::engine::Engine;
use crate::policies::Policies;
use crate::policies::limit;
use crate::proxy::{self, Arrival, Gateway};

pub async fn edge(
    request: HttpRequest,
    mut payload: Payload,
    gateway: Data<Gateway>,
    engine: Data<Engine>,
) -> Result<HttpResponse, Problem> {
    let table = gateway.table.load_full();
    let arrival = Arrival::new(&gateway, &table, &request);
    if let Some(log) = arrival.log.as_ref().filter(|_| has_body(&request)) {
        payload = as_payload(&request, log.counting(payload.into_inner())).await?;
    }
    match arrival.route.and_then(|route| route.policies.as_ref()) {
        Some(policies) => Box::pin(serve_with_policies(policies, &arrival, payload, &engine)).await,
        None => proxy::proxy(&arrival, payload, &engine).await,
    }
}

/// Serves a request of a route with policies.
async fn serve_with_policies(
    policies: &Policies,
    arrival: &Arrival<'_>,
    payload: Payload,
    engine: &Engine,
) -> Result<HttpResponse, Problem> {
    let request = arrival.request;
    if let Some(answer) = policies.cors.as_ref().and_then(|cors| cors.preflight(request)) {
        arrival.check_rate()?;
        return Ok(answer);
    }
    let answered = match policies.body_limit.filter(|_| has_body(request)) {
        Some(max) => serve_with_body_limit(max, arrival, payload, engine).await,
        None => proxy::proxy(arrival, payload, engine).await,
    };
    let response = answered.unwrap_or_else(|problem| problem.error_response());
    Ok(policies.finish(request, response))
}

async fn serve_with_body_limit(
    max: u64,
    arrival: &Arrival<'_>,
    payload: Payload,
    engine: &Engine,
) -> Result<HttpResponse, Problem> {
    match limit::limited(arrival.request, payload.into_inner(), max) {
        Ok((payload, exceeded)) => {
            let payload = as_payload(arrival.request, payload).await?;
            let answered = proxy::proxy(arrival, payload, engine).await;
            if exceeded.get() { Err(limit::too_large(max)) } else { answered }
        }
        Err(problem) => arrival.check_rate().and(Err(problem)),
    }
}

async fn as_payload(request: &HttpRequest, mut payload: dev::Payload) -> Result<Payload, Problem> {
    Payload::from_request(request, &mut payload).await.map_err(|_| Problem::internal())
}
