//! `POST /api/lab/faults`: a replica gets a fault for some seconds.

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::body::Body;
use utoipa::ToSchema;

use super::answer;
use super::operator::Operator;
use super::show_lab::on;
use crate::clients::lab::Lab;
use crate::clients::overview::Overview;
use crate::error::Error;

#[derive(ToSchema)]
pub(crate) struct StartFault {
    program: String,
    replica: String,
    fault: String,
    seconds: u64,
}

shared::from_body! { StartFault { required: program, replica, fault, seconds; } }

#[utoipa::path(post, path = "/api/lab/faults", tag = "lab", request_body = StartFault,
    responses(
        (status = 200),
        (status = 404, description = "`not_found`"),
        (status = 422, description = "`validation_failed`"),
    ))]
pub(crate) async fn start_fault(
    operator: Operator,
    body: Body<StartFault>,
    lab: Data<Option<Lab>>,
    overview: Data<Overview>,
) -> Result<HttpResponse, Error> {
    let StartFault { program, replica, fault, seconds } = body.value;
    let answer = on(&lab)?.start(&program, &replica, &fault, seconds, &operator.asker).await?;
    overview.look_again().await;
    Ok(answer::passed(&answer))
}
