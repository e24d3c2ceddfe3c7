//! Method, path, handler of the card network.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError, web};
use serde_json::json;
use shared::body::{Body, Fields, FromBody};
use shared::idempotency;
use shared::problem::Problem;
use shared::request::Params;
use shared::service::resource;
use shared::stop::Stop;
use uuid::Uuid;

use super::book::{Authorization, Book, Refused, Request};
use super::cards::{Card, Manner, Operation};

/// The routes.
pub fn configure(app: &mut web::ServiceConfig) {
    app.service(resource("/authorizations").post(authorize))
        .service(resource("/authorizations/{key}").get(authorization))
        .service(resource("/authorizations/{key}/capture").post(capture))
        .service(resource("/authorizations/{key}/void").post(void))
        .service(resource("/authorizations/{key}/refunds").post(refund))
        .service(resource("/statement").get(statement));
}

struct RefundRequest {
    key: String,
    amount: i64,
}

async fn authorize(
    body: Body<Request>,
    book: web::Data<Book>,
    stop: web::Data<Stop>,
) -> Result<HttpResponse, Refused> {
    let request = body.value;
    let card = Card::behind(&request.token);
    let call = book.count(card, Operation::Authorize, &request.key).await?;
    let manner = card.manner(Operation::Authorize, call);
    answer(manner, &stop, StatusCode::CREATED, async { book.authorize(&request).await }).await
}

async fn authorization(key: web::Path<String>, book: web::Data<Book>) -> Result<HttpResponse, Refused> {
    Ok(HttpResponse::Ok().json(book.authorization(&key).await?))
}

async fn capture(
    key: web::Path<String>,
    request: actix_web::HttpRequest,
    book: web::Data<Book>,
    stop: web::Data<Stop>,
) -> Result<HttpResponse, Refused> {
    // Without a key of its own every call is another capture, as with a real processor.
    let given = request.headers().get(idempotency::HEADER).and_then(|value| value.to_str().ok());
    let capture_key = given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let manner = manner(&book, Operation::Capture, &key, &key).await?;
    answer(manner, &stop, StatusCode::OK, async { book.capture(&key, &capture_key).await }).await
}

async fn void(
    key: web::Path<String>,
    book: web::Data<Book>,
    stop: web::Data<Stop>,
) -> Result<HttpResponse, Refused> {
    let manner = manner(&book, Operation::Void, &key, &key).await?;
    answer(manner, &stop, StatusCode::OK, async { book.void(&key).await }).await
}

async fn refund(
    key: web::Path<String>,
    body: Body<RefundRequest>,
    book: web::Data<Book>,
    stop: web::Data<Stop>,
) -> Result<HttpResponse, Refused> {
    let RefundRequest { key: refund_key, amount } = body.value;
    let manner = manner(&book, Operation::Refund, &key, &refund_key).await?;
    answer(manner, &stop, StatusCode::CREATED, async { book.refund(&key, &refund_key, amount).await }).await
}

async fn statement(params: Params, book: web::Data<Book>) -> Result<HttpResponse, actix_web::Error> {
    let order_id = params.optional::<String>("order_id", "the id of an order")?;
    let charges = book.statement(order_id.as_deref()).await.map_err(Refused::from)?;
    Ok(HttpResponse::Ok().json(json!({ "charges": charges })))
}

/// How the card behind `authorization` takes this call of the operation with `key`.
async fn manner(
    book: &Book,
    operation: Operation,
    authorization: &str,
    key: &str,
) -> Result<Manner, Refused> {
    let Some(card) = book.card(authorization).await? else { return Ok(Manner::Promptly) };
    Ok(card.manner(operation, book.count(card, operation, key).await?))
}

/// Does the work and answers, in the card's manner.
async fn answer(
    manner: Manner,
    stop: &Stop,
    status: StatusCode,
    work: impl Future<Output = Result<Authorization, Refused>>,
) -> Result<HttpResponse, Refused> {
    if let Manner::Failing(status) = manner {
        return Ok(Problem::of_status(status).error_response());
    }
    let done = work.await?;
    match manner {
        Manner::Promptly | Manner::Failing(_) => {}
        Manner::Late(after) => stop.sleep(after).await,
        Manner::Never => stop.requested().await,
    }
    Ok(HttpResponse::build(status).json(done))
}

impl FromBody for Request {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
        let (key, order_id) = (fields.required("key"), fields.required("order_id"));
        let (amount, currency) = (amount(fields, 0), fields.required("currency"));
        let token = fields.required("token");
        Some(Self { key: key?, order_id: order_id?, amount: amount?, currency: currency?, token: token? })
    }
}

impl FromBody for RefundRequest {
    fn from_body(fields: &mut Fields<'_>) -> Option<Self> {
        let (key, amount) = (fields.required("key"), amount(fields, 1));
        Some(Self { key: key?, amount: amount? })
    }
}

fn amount(fields: &mut Fields<'_>, least: i64) -> Option<i64> {
    match fields.required("amount") {
        Some(amount) if amount < least => fields.reject("amount", format!("must be at least {least}")),
        amount => amount,
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        self.problem().status()
    }

    fn error_response(&self) -> HttpResponse {
        self.problem().error_response()
    }
}

impl Refused {
    fn problem(&self) -> Problem {
        let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, detail);
        match self {
            Self::Unknown => Problem::not_found(),
            Self::KeyReused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key_reused",
                "The key was used for something else.",
            ),
            Self::Declined(code) => {
                let code = if code == "insufficient_funds" { "insufficient_funds" } else { "card_declined" };
                Problem::new(StatusCode::PAYMENT_REQUIRED, code, "The card was declined.")
            }
            Self::Voided => conflict("voided", "The authorization was voided."),
            Self::Captured => conflict("captured", "The money was taken."),
            Self::ExceedsCaptured => conflict("exceeds_captured", "That is more than was captured."),
            Self::Db(error) => error.problem(),
        }
    }
}
