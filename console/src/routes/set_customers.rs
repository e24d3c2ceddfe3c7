//! `PUT /api/lab/customers`: how many customers of the lab order and cancel.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Data;
use shared::body::{Body, Fields, FromBody, Invalid};
use utoipa::ToSchema;

use super::answer;
use super::operator::Operator;
use super::show_lab::on;
use crate::error::Error;
use crate::tasks::customers::{Customers, MOST};

#[derive(ToSchema)]
pub(crate) struct SetCustomers {
    /// 0 to 50.
    count: usize,
}

impl FromBody for SetCustomers {
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        match fields.required("count")? {
            count if count <= MOST => Ok(Self { count }),
            _ => fields.reject("count", format!("must be a number from 0 to {MOST}")),
        }
    }
}

#[utoipa::path(put, path = "/api/lab/customers", tag = "lab", request_body = SetCustomers,
    responses(
        (status = 200),
        (status = 404, description = "`not_found`"),
        (status = 422, description = "`validation_failed`"),
    ))]
pub(crate) async fn set_customers(
    operator: Operator,
    body: Body<SetCustomers>,
    customers: Data<Option<Arc<Customers>>>,
) -> Result<HttpResponse, Error> {
    let customers = on(&customers)?;
    customers.let_in(body.value.count, &operator.asker.token).await?;
    Ok(answer::json(serde_json::to_value(customers.summary())?))
}
