//! The [lab](crate::lab) in the server of a program: `/lab/faults` starts and ends faults, and [`misbehave`] does those
//! of requests. Neither is there without `LAB=on`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::ORIGIN;
use actix_web::middleware::Next;
use actix_web::web::{self, Bytes, Data, Path};
use actix_web::{Error, FromRequest, HttpRequest, HttpResponse};
use futures_util::stream;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::middleware::is_quiet;
use super::resource::resource;
use crate::auth::{Admin, Authenticator};
use crate::body::{Body, Fields, FromBody, Invalid};
use crate::lab::{Fault, LONGEST, Lab, SLOW};
use crate::problem::Problem;

/// The time between the response to the admin and the end of the process.
const LAST_WORD: Duration = Duration::from_millis(100);
/// The exit status with which a shell reports SIGKILL.
const KILLED: i32 = 137;

/// `with_calls` adds the calls of admins.
pub(super) fn configure(app: &mut web::ServiceConfig, lab: &Data<Lab>, with_calls: bool) {
    app.app_data(lab.clone());
    if with_calls {
        app.service(resource("/lab/faults").get(list).post(start))
            .service(resource("/lab/faults/{fault}").delete(end));
    }
}

/// An admin. A program that verifies no tokens ([`super::Service::open_lab`]) refuses only pages in a browser, because
/// every page can send requests to the machine of its reader.
struct Operator(Option<Admin>);

impl FromRequest for Operator {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if request.app_data::<Data<Authenticator>>().is_none() {
            let headers = request.headers();
            let is_page = headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site");
            return Box::pin(async move {
                match is_page {
                    true => Err(Problem::of_status(StatusCode::FORBIDDEN)),
                    false => Ok(Self(None)),
                }
            });
        }
        let admin = Admin::from_request(request, payload);
        Box::pin(async move { Ok(Self(Some(admin.await?))) })
    }
}

impl Operator {
    fn id(&self) -> String {
        self.0.as_ref().map_or_else(|| "-".to_owned(), |admin| admin.0.id.to_string())
    }
}

struct Start {
    fault: Fault,
    seconds: u64,
}

impl FromBody for Start {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let fault = fields.required("fault");
        let seconds: Result<u64, Invalid> = match fields.required("seconds") {
            Ok(seconds) if !(1..=LONGEST).contains(&seconds) => {
                fields.reject("seconds", format!("must be a number from 1 to {LONGEST}"))
            }
            seconds => seconds,
        };
        Ok(Self { fault: fault?, seconds: seconds? })
    }
}

async fn list(_: Operator, lab: Data<Lab>) -> HttpResponse {
    HttpResponse::Ok().json(described(&lab))
}

async fn start(operator: Operator, body: Body<Start>, lab: Data<Lab>) -> Result<HttpResponse, Problem> {
    let Start { fault, seconds } = body.value;
    if !lab.offers().contains(&fault) {
        let problem = Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY);
        return Err(problem.field("fault", "is none that this program can have"));
    }
    log::warn!(fault:?, left_s = seconds, person = operator.id(); "an admin starts a fault");
    match fault {
        Fault::Kill => drop(actix_web::rt::spawn(async {
            tokio::time::sleep(LAST_WORD).await;
            std::process::exit(KILLED);
        })),
        fault => lab.start(fault, Duration::from_secs(seconds)),
    }
    Ok(HttpResponse::Ok().json(described(&lab)))
}

async fn end(operator: Operator, fault: Path<Fault>, lab: Data<Lab>) -> HttpResponse {
    log::warn!(fault:? = *fault, person = operator.id(); "an admin ends a fault");
    lab.end(*fault);
    HttpResponse::Ok().json(described(&lab))
}

fn described(lab: &Lab) -> Value {
    let running: Vec<_> = lab
        .running()
        .into_iter()
        .map(|(fault, left)| json!({ "fault": fault, "left_s": left.as_secs_f64() }))
        .collect();
    json!({
        "offers": lab.offers(),
        "running": running,
        "injected": lab.injected(),
        "started_at": lab.started_at().format(&Rfc3339).ok(),
    })
}

/// Does the running faults to a request. Never to those of the lab, so that each fault can be ended; and only a pause
/// or a refusal to health checks, metrics and the registry, so that a faulty replica is not just taken out of use.
pub(super) async fn misbehave(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let lab = request.app_data::<Data<Lab>>().cloned();
    let Some(lab) = lab.filter(|_| !request.path().starts_with("/lab/")) else {
        return next.call(request).await;
    };
    if lab.acts(Fault::Pause) {
        lab.over(Fault::Pause).await;
    }
    if lab.acts(Fault::Refuse) {
        return Ok(request.into_response(no_answer()));
    }
    if is_quiet(request.path()) {
        return next.call(request).await;
    }
    if lab.acts(Fault::Slow) {
        tokio::time::sleep(SLOW).await;
    }
    if rand::random() && lab.acts(Fault::Errors) {
        return Err(Problem::unavailable(1).into());
    }
    let answered = next.call(request).await?;
    match rand::random() && lab.acts(Fault::LostAnswers) {
        true => Ok(answered.into_response(no_answer())),
        false => Ok(answered),
    }
}

/// Closes the connection: actix drops a head that it has not sent when the body fails. Log and metrics say 500. The
/// middleware would replace the body of an error that is no JSON.
fn no_answer() -> HttpResponse {
    let failing = stream::once(async { Err::<Bytes, _>(Error::from(Problem::internal())) });
    HttpResponse::InternalServerError().content_type("application/json").streaming(failing)
}
