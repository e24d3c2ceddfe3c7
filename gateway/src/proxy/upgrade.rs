//! WebSockets: what follows the 101 of a replica.

use std::time::{Instant, SystemTime};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use futures_util::FutureExt as _;
use shared::auth::Caller;
use shared::balancer::PickedReplica;
use shared::problem::Problem;
use shared::stop::Stop;

use super::{Arrival, headers};
use crate::concurrency::Place;
use crate::engine::{Response, Tunnel, TunnelLimits};
use crate::policies::websocket::WebSocket;
use crate::routing::{Route, Table};

/// A WebSocket that a client wants.
pub struct Socket {
    limits: TunnelLimits,
    place: Place,
}

impl Socket {
    /// A WebSocket lasts no longer than the token of `caller`.
    pub fn new(limits: &WebSocket, caller: Option<&Caller>, place: Place) -> Self {
        let left = caller.and_then(|caller| caller.remaining(SystemTime::now()));
        let total = left.map_or(limits.total(), |left| left.min(limits.total()));
        Self { limits: TunnelLimits { idle: limits.idle(), end: Instant::now() + total }, place }
    }
}

/// Answers with the 101 in `answer`, and opens the tunnel. The payload is what the client sends after its request.
pub fn switch(
    answer: Response,
    mut picked: PickedReplica,
    socket: Option<Socket>,
    route: &Route,
    (arrival, payload): (&Arrival<'_>, Option<Payload>),
) -> Result<HttpResponse, Problem> {
    let (Some(Socket { limits, place }), Some(exchange), Some(payload)) =
        (socket, arrival.exchange.clone(), payload)
    else {
        return Err(Problem::of_status(StatusCode::BAD_GATEWAY));
    };
    picked.exempt_from_limit();
    let stop = arrival.request.app_data::<Data<Stop>>().map(|stop| stop.get_ref().clone());
    let lost = Table::lost(arrival.gateway.table.clone(), route.entry.clone());
    let drain = async move {
        let stopped = async {
            match stop {
                Some(stop) => stop.requested().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stopped => {}
            () = lost => {}
        }
    };
    let make = |answer| {
        let tunnel = Tunnel::new(answer, payload, limits, drain.boxed_local())?;
        if let Some(log) = &arrival.log {
            log.set_tunnel(tunnel.outcome());
        }
        exchange.open_tunnel();
        Some(tunnel)
    };
    headers::switched(answer, picked, &route.entry.service, place, make)
        .ok_or_else(|| Problem::of_status(StatusCode::BAD_GATEWAY))
}
