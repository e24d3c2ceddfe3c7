//! A request whose route is known, until its response.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::{Method, StatusCode, Version, header};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use shared::auth::Caller;
use shared::balancer::{PickedReplica, Strategy};
use shared::problem::{Problem, codes};
use shared::request::{PreferWait, has_body};
use shared::resilience::retry::is_safe;
use shared::service::Exchange;
use shared::stop::Stop;
use uuid::Uuid;

use super::attempts::{self, Plan};
use super::body::KeptMemory;
use super::{Gateway, body, cached, headers, mirror, upgrade};
use crate::access_log::{AccessLog, flags};
use crate::cache::Found;
use crate::concurrency::{PerClient, Place, RefusedStreams};
use crate::engine::{Body, Engine, Response};
use crate::policies::versions::Split;
use crate::policies::websocket;
use crate::routing::{Admission, Route, Table};

/// The time that a client has to send its body.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The time that the replicas have to answer, unless the route or `Prefer: wait` allows more. It starts when the whole
/// request has arrived, so that a slow client does not use it up.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How much longer the response to `Prefer: wait` may take.
const WAIT_MARGIN: Duration = Duration::from_secs(5);

pub struct Routed<'a> {
    pub gateway: &'a Gateway,
    pub table: &'a Table,
    pub route: &'a Route,
    pub request: &'a HttpRequest,
    /// As the client sent it. [`path::checked`](super::path::checked) has accepted it.
    pub path: &'a str,
    pub client: IpAddr,
    pub caller: Option<Caller>,
    pub exchange: Option<Rc<Exchange>>,
    pub log: Option<Rc<AccessLog>>,
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
            match Box::pin(cached::find(self.request, self.route, self.gateway)).await {
                Some(Found::Hit(stored)) => {
                    self.count();
                    return Ok(stored.response(self.request.headers()));
                }
                Some(Found::Miss(new)) => leader = Some(new),
                Some(Found::Bypass) | None => {}
            }
        }
        let wait = self.wait();
        let mut payload = Some(payload);
        let Received { body, memory, upload } = self.receive(&mut payload).await?;
        let arrived = Instant::now();
        let lasts_long = matches!(body, Body::Streaming(..)) || matches!(wait, Wait::Granted { .. });
        // Before `plan`, so that a refused request builds no head and does not advance the turns of the versions.
        let _place = if lasts_long { None } else { Some(self.enter().await?) };
        let plan = self.plan(&wait, &body, (began, arrived), socket.is_some());
        if let Some(copy) = self.split().filter(|_| !plan.is_upgrade).and_then(Split::copy) {
            mirror::send(engine, self.route, &plan, (&body, memory.clone()), copy);
        }
        self.count();
        let answered = attempts::run(engine, self.route, plan, body).await;
        drop(upload);
        match answered {
            Ok((answer, picked)) if answer.status == StatusCode::SWITCHING_PROTOCOLS => {
                let (exchange, log) = (self.exchange.clone(), self.log.clone());
                let (request, gateway) = (self.request, self.gateway);
                let client = upgrade::Client { request, exchange, payload, gateway, log };
                upgrade::switch(answer, picked, socket, self.route, client)
            }
            Ok((answer, picked)) => match cached::storable_or_bypass(&answer, leader, self.table) {
                Some(kept) => Box::pin(cached::store(answer, picked, self.route, kept)).await,
                None => self.pass_on(answer, picked),
            },
            Err(problem) => {
                // The service has failed: the requests that wait for this one go to it on their own. After an error of
                // the client, the leader is only dropped, and the next waiting request takes its place.
                if let Some(leader) = leader
                    && ResponseError::status_code(&problem).is_server_error()
                {
                    leader.bypass();
                }
                Ok(ResponseError::error_response(&problem))
            }
        }
    }

    fn person(&self) -> Option<Uuid> {
        self.caller.as_ref().map(|caller| caller.id)
    }

    /// Counts the request under the route's label.
    fn count(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.count_under(&self.route.label);
        }
    }

    /// If the client wants a WebSocket, checks its `Origin` and takes a place among the client's streams.
    fn enter_websocket(&self) -> Result<Option<upgrade::Socket>, Problem> {
        let Some(limits) = self.route.entry.websocket.as_ref().filter(|_| websocket::is_wanted(self.request))
        else {
            return Ok(None);
        };
        websocket::check_origin(self.request, self.route.entry.cors.as_ref())?;
        let place = self.take_place("streams", &self.gateway.concurrency.streams)?;
        Ok(Some(upgrade::Socket::new(limits, self.caller.as_ref(), place)))
    }

    /// Refuses an event stream that the client opens again although it has too many. The service is not asked again.
    fn check_refused_streams(&self, now: Instant) -> Result<(), Problem> {
        let limits = &self.gateway.concurrency;
        let is_refused = self.request.method() == Method::GET
            && limits.refused_streams.contains(self.person(), self.client, self.path, now)
            && limits.streams.is_full(self.person(), self.client);
        if is_refused { Err(too_many("event streams")) } else { Ok(()) }
    }

    /// `Prefer: wait` counts if the route supports it.
    fn wait(&self) -> Wait {
        if !(self.route.entry.prefer_wait && self.request.method() == Method::POST) {
            return Wait::Unwanted;
        }
        let wanted = <PreferWait as actix_web::FromRequest>::extract(self.request).into_inner().ok();
        match wanted.and_then(|PreferWait(time)| time) {
            None => Wait::Unwanted,
            Some(time) => match self.gateway.concurrency.waits.enter(self.person(), self.client) {
                Some(_place) => Wait::Granted { time, _place },
                None => Wait::Refused,
            },
        }
    }

    /// Reads a small body. Takes the payload, unless the request has no body.
    async fn receive(&self, payload: &mut Option<Payload>) -> Result<Received, Problem> {
        let Some(payload) = payload.take_if(|_| has_body(self.request)) else {
            // `Content-Length: 0` is passed on.
            let has_length = self.request.headers().contains_key(header::CONTENT_LENGTH);
            let body = if has_length { Body::Kept(Bytes::new()) } else { Body::None };
            return Ok(Received { body, memory: None, upload: None });
        };
        // This place counts toward the client's own limit. In the queue of the service, slow clients would block
        // other clients.
        let upload = self.take_place("uploads", &self.gateway.concurrency.uploads)?;
        let receiving = body::receive(self.request, payload, &self.gateway.kept_bodies);
        let received = Box::pin(tokio::time::timeout(UPLOAD_TIMEOUT, receiving)).await;
        let (body, memory) = received.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))??;
        let upload = matches!(body, Body::Streaming(..)).then_some(upload);
        Ok(Received { body, memory, upload })
    }

    /// What is equal in every attempt. The request `began` with its head, and has `arrived` unless its body streams.
    fn plan(&self, wait: &Wait, body: &Body, (began, arrived): (Instant, Instant), is_upgrade: bool) -> Plan {
        let is_streamed = matches!(body, Body::Streaming(..));
        let (granted, dropped): (_, &[&str]) = match wait {
            Wait::Unwanted => (Duration::ZERO, &[]),
            Wait::Refused => (Duration::ZERO, &["prefer"]),
            Wait::Granted { time, .. } => (*time + WAIT_MARGIN, &[]),
        };
        let head_timeout = Duration::from_secs(self.route.entry.head_timeout_s).max(granted);
        let upload_end = began + UPLOAD_TIMEOUT;
        // A streamed body has not arrived yet.
        let arrival = if is_streamed { upload_end } else { arrived };
        let mut head = headers::request_head(self.request, self.path, self.client, self.table, dropped);
        if is_upgrade {
            headers::upgrade(&mut head);
        }
        Plan {
            head,
            affinity: self.affinity(),
            version: self.split().map(|split| self.version_of(split)),
            idempotent: is_safe(self.request.method()) || self.has_key(),
            is_upgrade,
            is_head: self.request.method() == Method::HEAD,
            awaits_continue: self.exchange.as_ref().is_some_and(|exchange| exchange.awaits_continue()),
            client: self.exchange.clone().filter(|_| self.request.version() == Version::HTTP_11),
            head_timeout,
            upload_end,
            end: arrival + TIMEOUT.max(head_timeout),
            lasts_long: is_streamed || matches!(wait, Wait::Granted { .. }),
            log: self.log.clone(),
        }
    }

    /// Waits for a place in the queue of the service.
    async fn enter(&self) -> Result<Admission, Problem> {
        let entered = self.route.enter(self.request).await;
        entered.map_err(|_| Problem::unavailable(1).flagged(flags::OVERFLOW))
    }

    /// The response to the client, with the body as the replica sends it.
    fn pass_on(&self, answer: Response, mut picked: PickedReplica) -> Result<HttpResponse, Problem> {
        if answer.status.is_success() || answer.status.is_redirection() {
            cached::forget(self.request, self.route, self.gateway);
        }
        let (mut stream, mut stop) = (None, None);
        if answer.is_event_stream && !answer.body.is_over() {
            picked.exempt_from_limit();
            let limits = &self.gateway.concurrency;
            let place = self.take_place("event streams", &limits.streams);
            if place.is_err() {
                limits.refused_streams.remember(self.person(), self.client, self.path, Instant::now());
            }
            stream = Some(place?);
            stop = self.request.app_data::<Data<Stop>>().map(|stop| stop.get_ref().clone());
        }
        let client = headers::Client { exchange: self.exchange.clone(), stop, stream };
        Ok(headers::response(answer, picked, &self.route.entry.service, client))
    }

    /// A place for one more of the client's `what`; 429 if the client has reached `limit`.
    fn take_place(&self, what: &str, limit: &PerClient) -> Result<Place, Problem> {
        limit.enter(self.person(), self.client).ok_or_else(|| too_many(what))
    }

    /// Whether an idempotency key makes the request safe to retry.
    fn has_key(&self) -> bool {
        self.route.entry.honours_keys
            && self.request.method() == Method::POST
            && self.request.headers().contains_key("idempotency-key")
    }

    /// The key for consistent hashing; empty for other strategies.
    fn affinity(&self) -> String {
        if self.route.picker.strategy() != Strategy::ConsistentHash {
            return String::new();
        }
        let value = self.route.entry.hash_header.as_deref().and_then(|name| self.header(name));
        value.map_or_else(|| self.client.to_string(), str::to_owned)
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
        self.request.headers().get(name)?.to_str().ok()
    }
}

fn too_many(what: &str) -> Problem {
    let detail = format!("Too many {what} are open; close one, or wait.");
    Problem::new(codes::RATE_LIMITED, detail).retry_after(RefusedStreams::RETRY_AFTER)
}
