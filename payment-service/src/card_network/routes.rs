//! Method, path and handler. A request is one transaction, which asks for the [behaviour](Behaviour) of the card first.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError as _, web};
use serde_json::json;
use shared::body::{Body, Fields, FromBody, Invalid};
use shared::db::{DbError, Tx};
use shared::idempotency;
use shared::problem::Problem;
use shared::request::Params;
use shared::service::resource;
use shared::stop::Stop;
use uuid::Uuid;

use super::cards::{Behaviour, Card, Operation};
use super::error::Error;
use super::store::{Authorization, AuthorizationRequest, StatementRange, Store};

pub fn configure(app: &mut web::ServiceConfig) {
    app.service(resource("/authorizations").post(authorize))
        .service(resource("/authorizations/{key}").get(show_authorization))
        .service(resource("/authorizations/{key}/capture").post(capture))
        .service(resource("/authorizations/{key}/void").post(void))
        .service(resource("/authorizations/{key}/refunds").post(refund))
        .service(resource("/statement").get(show_statement));
}

struct RefundRequest {
    key: String,
    amount: i64,
}

async fn authorize(
    body: Body<AuthorizationRequest>,
    store: web::Data<Store>,
    stop: web::Data<Stop>,
) -> Result<HttpResponse, Error> {
    let request = body.value;
    let done = store.db().transaction(async |tx| {
        let card = Card::from_token(&request.token);
        let behaviour = behaviour(&store, tx, card, Operation::Authorize, &request.key).await?;
        unless_failing(behaviour, store.authorize(tx, &request)).await
    });
    respond(done.await?, &stop, StatusCode::CREATED).await
}

async fn show_authorization(key: web::Path<String>, store: web::Data<Store>) -> Result<HttpResponse, Error> {
    Ok(HttpResponse::Ok().json(store.authorization(store.db(), &key).await?))
}

async fn capture(
    key: web::Path<String>,
    request: actix_web::HttpRequest,
    store: web::Data<Store>,
    stop: web::Data<Stop>,
) -> Result<HttpResponse, Error> {
    // As with a real processor, every call without a key is another capture.
    let given = request.headers().get(idempotency::HEADER).and_then(|value| value.to_str().ok());
    let capture_key = given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let done = store.db().transaction(async |tx| {
        let held = store.authorization(&mut *tx, &key).await?;
        let behaviour = behaviour(&store, tx, held.card(), Operation::Capture, &key).await?;
        unless_failing(behaviour, store.capture(tx, held, &capture_key)).await
    });
    respond(done.await?, &stop, StatusCode::OK).await
}

async fn void(
    key: web::Path<String>,
    store: web::Data<Store>,
    stop: web::Data<Stop>,
) -> Result<HttpResponse, Error> {
    let done = store.db().transaction(async |tx| {
        let behaviour = match store.authorization(&mut *tx, &key).await {
            Ok(held) => behaviour(&store, tx, held.card(), Operation::Void, &key).await?,
            Err(Error::NotFound) => Behaviour::Prompt,
            Err(error) => return Err(error),
        };
        unless_failing(behaviour, store.void(tx, &key)).await
    });
    respond(done.await?, &stop, StatusCode::OK).await
}

async fn refund(
    key: web::Path<String>,
    body: Body<RefundRequest>,
    store: web::Data<Store>,
    stop: web::Data<Stop>,
) -> Result<HttpResponse, Error> {
    let RefundRequest { key: refund_key, amount } = body.value;
    let done = store.db().transaction(async |tx| {
        let held = store.authorization(&mut *tx, &key).await?;
        let behaviour = behaviour(&store, tx, held.card(), Operation::Refund, &refund_key).await?;
        unless_failing(behaviour, store.refund(tx, held, &refund_key, amount)).await
    });
    respond(done.await?, &stop, StatusCode::CREATED).await
}

async fn show_statement(params: Params, store: web::Data<Store>) -> Result<HttpResponse, actix_web::Error> {
    let range = StatementRange {
        order_id: params.optional("order_id", "the id of an order")?,
        after: params.optional("after", "a key")?,
        up_to: params.optional("up_to", "a key")?,
        limit: params.optional("limit", "a number")?,
    };
    let charges = store.statement(&range).await.map_err(Error::from)?;
    Ok(HttpResponse::Ok().json(json!({ "charges": charges })))
}

async fn behaviour(
    store: &Store,
    tx: &mut Tx,
    card: Card,
    operation: Operation,
    key: &str,
) -> Result<Behaviour, DbError> {
    let call = if card.counts_calls() { store.count_call(tx, operation, key).await? } else { 1 };
    Ok(card.behaviour(operation, call))
}

/// Does the `work`, unless the card fails before. Returns its result with the behaviour.
async fn unless_failing(
    behaviour: Behaviour,
    work: impl Future<Output = Result<Authorization, Error>>,
) -> Result<(Behaviour, Option<Authorization>), Error> {
    match behaviour {
        Behaviour::Failing(_) | Behaviour::InProgress => Ok((behaviour, None)),
        Behaviour::Prompt | Behaviour::Delayed(_) | Behaviour::Silent => Ok((behaviour, Some(work.await?))),
    }
}

async fn respond(
    (behaviour, done): (Behaviour, Option<Authorization>),
    stop: &Stop,
    status: StatusCode,
) -> Result<HttpResponse, Error> {
    match behaviour {
        Behaviour::Failing(status) => return Ok(Problem::of_status(status).error_response()),
        Behaviour::InProgress => return Err(Error::InProgress),
        Behaviour::Prompt => {}
        Behaviour::Delayed(delay) => stop.sleep(delay).await,
        Behaviour::Silent => stop.requested().await,
    }
    Ok(HttpResponse::build(status).json(done))
}

impl FromBody for AuthorizationRequest {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let (key, order_id) = (fields.required("key"), fields.required("order_id"));
        let (amount, currency) = (amount(fields, 0), fields.required("currency"));
        let token = fields.required("token");
        Ok(Self { key: key?, order_id: order_id?, amount: amount?, currency: currency?, token: token? })
    }
}

impl FromBody for RefundRequest {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let (key, amount) = (fields.required("key"), amount(fields, 1));
        Ok(Self { key: key?, amount: amount? })
    }
}

fn amount(fields: &mut Fields<'_>, least: i64) -> Result<i64, Invalid> {
    match fields.required("amount") {
        Ok(amount) if amount < least => fields.reject("amount", format!("must be at least {least}")),
        amount => amount,
    }
}
