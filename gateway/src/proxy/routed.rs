//! A request whose route is known, until its response.

use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::{Method, StatusCode, Version, header};
use actix_web::web::{Bytes, Data, Payload};
use shared::auth::Caller;
use shared::balancer::{PickedReplica, Strategy};
use shared::problem::{Problem, codes};
use shared::request::{PreferWait, has_body};
use shared::resilience::retry::is_safe;
use shared::stop::Stop;
use uuid::Uuid;

use super::attempts::{self, Plan};
use super::body::KeptMemory;
use super::{Arrival, body, cached, headers, mirror, upgrade};
use crate::access_log::flags;
use crate::address;
use crate::cache::Found;
use crate::concurrency::{PerClient, Place, RefusedStreams};
use crate::engine::{Body, Engine, Response};
use crate::policies::versions::Split;
use crate::policies::websocket;
use crate::routing::{Admission, Route};

/// The time that a client has to send its body.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The time that the replicas have to answer, unless the route or `Prefer: wait` allows more. It starts when the whole
/// request has arrived, so that a slow client does not use it up.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How much longer the response to `Prefer: wait` may take.
const WAIT_MARGIN: Duration = Duration::from_secs(5);

pub struct Routed<'a> {
    pub arrival: &'a Arrival<'a>,
    pub route: &'a Route,
    /// As the client sent it. [`path::checked`](super::path::checked) has accepted it.
    pub path: &'a str,
    pub caller: Option<Caller>,
}

/// `Prefer: wait=N` of a request.
enum Wait {
    Unwanted,
    /// The client has too many requests that wait. So the service does not see the header, and answers immediately.
    Refused,
    Granted {
        time: Duration,
        _place: Place,
    },
}

/// The body of a request, and its places.
struct Received {
    body: Body,
    memory: Option<KeptMemory>,
    /// The place of a streamed body among the client's uploads.
    upload: Option<Place>,
}

impl Wait {
    fn is_granted(&self) -> bool {
        matches!(self, Self::Granted { .. })
    }
}

impl<'a> Routed<'a> {
    /// Answers with a response of the cache or of a replica.
    pub async fn respond(&self, payload: Payload, engine: &Engine) -> Result<HttpResponse, Problem> {
        let began = Instant::now();
        let socket = self.enter_websocket()?;
        if socket.is_none() {
            self.check_refused_streams(began)?;
        }
        let mut leader = None;
        if self.route.entry.cache && socket.is_none() {
            match Box::pin(cached::find(self.arrival, self.route, self.timeout())).await {
                Some(Found::Hit(stored)) => return Ok(stored.response(self.arrival.request.headers())),
                Some(Found::Miss(new)) => leader = Some(new),
                Some(Found::Failed) => return Err(Problem::unavailable(1).flagged(flags::RESET)),
                Some(Found::TimedOut) => {
                    return Err(Problem::of_status(StatusCode::GATEWAY_TIMEOUT).flagged(flags::TIMEOUT));
                }
                Some(Found::Bypass) | None => {}
            }
        }
        let wait = self.wait();
        let mut payload = Some(payload);
        let Received { body, memory, upload } = self.receive(&mut payload).await?;
        let arrived = Instant::now();
        let lasts_long = body.is_streamed() || wait.is_granted();
        // Before `plan`, so that a refused request builds no head and does not advance the turns of the versions.
        let _places = self.enter(lasts_long).await?;
        let plan = self.plan(&wait, &body, (began, arrived), socket.is_some(), lasts_long);
        if let Some(copy) = self.split().filter(|_| !plan.is_upgrade).and_then(Split::copy) {
            mirror::send(engine, self.route, &plan, (&body, memory.clone()), copy);
        }
        let answered = attempts::run(engine, self.route, plan, body).await;
        drop(upload);
        let (answer, picked) = match answered {
            Ok(answered) => answered,
            Err(problem) => {
                // After a mistake of the client, one of the requests that wait takes its place.
                if let Some(leader) = leader.filter(|_| problem.status().is_server_error()) {
                    leader.fail();
                }
                return Err(problem);
            }
        };
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            return upgrade::switch(answer, picked, socket, self.route, (self.arrival, payload));
        }
        match cached::storable_or_bypass(&answer, leader, self.arrival.table) {
            Some(kept) => Box::pin(cached::store(answer, picked, self.route, kept)).await,
            None => self.pass_on(answer, picked),
        }
    }

    fn person(&self) -> Option<Uuid> {
        self.caller.as_ref().map(|caller| caller.id)
    }

    /// If the client wants a WebSocket, checks its `Origin` and takes a place among the client's streams.
    fn enter_websocket(&self) -> Result<Option<upgrade::Socket>, Problem> {
        let Some(limits) = self.route.entry.websocket_for(self.arrival.request) else { return Ok(None) };
        let scheme = address::scheme(self.arrival.request, self.arrival.table);
        websocket::check_origin(self.arrival.request, scheme, self.route.entry.cors.as_ref())?;
        let place = self.take_place("streams", &self.arrival.gateway.concurrency.streams)?;
        Ok(Some(upgrade::Socket::new(limits, self.caller.as_ref(), place)))
    }

    /// Refuses an event stream that the client opens again although it has too many. The service is not asked again.
    fn check_refused_streams(&self, now: Instant) -> Result<(), Problem> {
        let limits = &self.arrival.gateway.concurrency;
        let is_refused = self.arrival.request.method() == Method::GET
            && limits.refused_streams.contains(self.person(), self.arrival.client, self.path, now)
            && limits.streams.is_full(self.person(), self.arrival.client);
        if is_refused { Err(too_many("event streams")) } else { Ok(()) }
    }

    /// `Prefer: wait` counts if the route supports it.
    fn wait(&self) -> Wait {
        let Arrival { request, gateway, client, .. } = *self.arrival;
        if !(self.route.entry.prefer_wait && request.method() == Method::POST) {
            return Wait::Unwanted;
        }
        let wanted = <PreferWait as actix_web::FromRequest>::extract(request).into_inner().ok();
        match wanted.and_then(|PreferWait(time)| time) {
            None => Wait::Unwanted,
            Some(time) => match gateway.concurrency.waits.enter(self.person(), client) {
                Some(_place) => Wait::Granted { time, _place },
                None => Wait::Refused,
            },
        }
    }

    /// Reads a small body. Takes the payload, unless the request has no body.
    async fn receive(&self, payload: &mut Option<Payload>) -> Result<Received, Problem> {
        let Arrival { request, gateway, .. } = *self.arrival;
        let Some(payload) = payload.take_if(|_| has_body(request)) else {
            // `Content-Length: 0` is passed on.
            let has_length = request.headers().contains_key(header::CONTENT_LENGTH);
            let body = if has_length { Body::Kept(Bytes::new()) } else { Body::None };
            return Ok(Received { body, memory: None, upload: None });
        };
        // This place counts toward the client's own limit. In the queue of the service, slow clients would block
        // other clients.
        let upload = self.take_place("uploads", &gateway.concurrency.uploads)?;
        let receiving = body::receive(request, payload, &gateway.kept_bodies);
        let received = Box::pin(tokio::time::timeout(UPLOAD_TIMEOUT, receiving)).await;
        let (body, memory) = received.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))??;
        let upload = body.is_streamed().then_some(upload);
        Ok(Received { body, memory, upload })
    }

    /// What is equal in every attempt. The request `began` with its head, and has `arrived` unless its body streams.
    fn plan(
        &self,
        wait: &Wait,
        body: &Body,
        (began, arrived): (Instant, Instant),
        is_upgrade: bool,
        lasts_long: bool,
    ) -> Plan {
        let Arrival { request, table, client, .. } = *self.arrival;
        let exchange = self.arrival.exchange.as_ref();
        let (granted, dropped): (_, &[&str]) = match wait {
            Wait::Unwanted => (Duration::ZERO, &[]),
            Wait::Refused => (Duration::ZERO, &["prefer"]),
            Wait::Granted { time, .. } => (*time + WAIT_MARGIN, &[]),
        };
        let head_timeout = Duration::from_secs(self.route.entry.head_timeout_s).max(granted);
        let upload_end = began + UPLOAD_TIMEOUT;
        // A streamed body has not arrived yet.
        let arrived = if body.is_streamed() { upload_end } else { arrived };
        let mut head = headers::request_head(request, self.path, client, table, dropped);
        if is_upgrade {
            headers::upgrade(&mut head);
        }
        Plan {
            head,
            affinity: self.affinity(),
            version: self.split().map(|split| self.version_of(split)),
            idempotent: is_safe(request.method()) || self.has_key(),
            is_upgrade,
            is_head: request.method() == Method::HEAD,
            awaits_continue: exchange.is_some_and(|exchange| exchange.awaits_continue()),
            client: exchange.filter(|_| request.version() == Version::HTTP_11).cloned(),
            head_timeout,
            upload_end,
            end: arrived + TIMEOUT.max(head_timeout),
            lasts_long,
            log: self.arrival.log.clone(),
        }
    }

    /// The time that the replicas have to answer a request without `Prefer: wait`.
    fn timeout(&self) -> Duration {
        TIMEOUT.max(Duration::from_secs(self.route.entry.head_timeout_s))
    }

    /// Takes the places that the request needs, or waits for them.
    async fn enter(&self, lasts_long: bool) -> Result<Admission, Problem> {
        let entered = self.route.enter(self.arrival.request, lasts_long).await;
        entered.map_err(|_| Problem::unavailable(1).flagged(flags::OVERFLOW))
    }

    /// The response to the client, with the body as the replica sends it.
    fn pass_on(&self, answer: Response, mut picked: PickedReplica) -> Result<HttpResponse, Problem> {
        if answer.status.is_success() || answer.status.is_redirection() {
            cached::forget(self.arrival, self.route);
        }
        let (mut stream, mut stop) = (None, None);
        if answer.is_event_stream && !answer.body.is_over() {
            picked.exempt_from_limit();
            let limits = &self.arrival.gateway.concurrency;
            let place = self.take_place("event streams", &limits.streams);
            if place.is_err() {
                limits.refused_streams.remember(
                    self.person(),
                    self.arrival.client,
                    self.path,
                    Instant::now(),
                );
            }
            stream = Some(place?);
            stop = self.arrival.request.app_data::<Data<Stop>>().map(|stop| stop.get_ref().clone());
        }
        let (exchange, log) = (self.arrival.exchange.clone(), self.arrival.log.clone());
        let client = headers::Client { exchange, stop, stream, log };
        Ok(headers::response(answer, picked, &self.route.entry.service, client))
    }

    /// A place for one more of the client's `what`; 429 if the client has reached `limit`.
    fn take_place(&self, what: &str, limit: &PerClient) -> Result<Place, Problem> {
        limit.enter(self.person(), self.arrival.client).ok_or_else(|| too_many(what))
    }

    /// Whether an idempotency key makes the request safe to retry.
    fn has_key(&self) -> bool {
        self.route.entry.honours_keys
            && self.arrival.request.method() == Method::POST
            && self.arrival.request.headers().contains_key("idempotency-key")
    }

    /// The key for consistent hashing; empty for other strategies.
    fn affinity(&self) -> String {
        if self.route.picker.strategy() != Strategy::ConsistentHash {
            return String::new();
        }
        let value = self.route.entry.hash_header.as_deref().and_then(|name| self.header(name));
        value.map_or_else(|| self.arrival.client.to_string(), str::to_owned)
    }

    fn split(&self) -> Option<&'a Split> {
        self.route.split.as_deref()
    }

    /// The version of the service that the request is for.
    fn version_of(&self, split: &Split) -> String {
        let value = split.entry.sticky_header.as_deref().and_then(|name| self.header(name));
        split.choose(value).to_owned()
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        self.arrival.request.headers().get(name)?.to_str().ok()
    }
}

fn too_many(what: &str) -> Problem {
    let detail = format!("Too many {what} are open; close one, or wait.");
    Problem::new(codes::RATE_LIMITED, detail).retry_after(RefusedStreams::RETRY_AFTER)
}
