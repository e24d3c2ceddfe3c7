//! `DELETE /api/lab/faults/{program}/{replica}/{fault}`: a fault ends before its time.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};

use super::answer;
use super::operator::Operator;
use super::show_lab::on;
use crate::clients::lab::Lab;
use crate::clients::overview::Overview;
use crate::error::Error;

#[utoipa::path(delete, path = "/api/lab/faults/{program}/{replica}/{fault}", tag = "lab",
    params(("program" = String, Path), ("replica" = String, Path), ("fault" = String, Path)),
    responses((status = 200), (status = 404, description = "`not_found`")))]
pub(crate) async fn end_fault(
    operator: Operator,
    path: Path<(String, String, String)>,
    lab: Data<Option<Lab>>,
    overview: Data<Overview>,
) -> Result<HttpResponse, Error> {
    let (program, replica, fault) = path.into_inner();
    let answer = on(&lab)?.end(&program, &replica, &fault, &operator.asker).await?;
    overview.look_again().await;
    Ok(answer::passed(&answer))
}
