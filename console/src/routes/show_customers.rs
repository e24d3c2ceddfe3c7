//! `GET /api/lab/customers`: how many order now, and what they have done.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Data;

use super::answer;
use super::operator::Operator;
use super::show_lab::on;
use crate::error::Error;
use crate::tasks::customers::Customers;

#[utoipa::path(get, path = "/api/lab/customers", tag = "lab",
    responses((status = 200), (status = 404, description = "`not_found`: without LAB=on")))]
pub(crate) async fn show_customers(
    _: Operator,
    customers: Data<Option<Arc<Customers>>>,
) -> Result<HttpResponse, Error> {
    Ok(answer::json(serde_json::to_value(on(&customers)?.summary())?))
}
