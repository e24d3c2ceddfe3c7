//! Calls to user-service.

use std::fmt::Display;

use serde::Deserialize;
use shared::client::{Context, ServiceClient};
use uuid::Uuid;

use crate::error::Error;

#[derive(Clone)]
pub struct Users {
    client: ServiceClient,
}

#[derive(Deserialize)]
struct User {
    status: String,
}

impl Users {
    pub fn new(client: ServiceClient) -> Self {
        Self { client }
    }

    /// # Errors
    /// [`Error::CustomerInactive`], or [`Error::CustomerNotChecked`] without a usable answer.
    pub async fn must_be_active(&self, id: Uuid, context: &Context) -> Result<(), Error> {
        let not_checked = |error: &dyn Display| Error::CustomerNotChecked(error.to_string());
        let request = self.client.get(format!("/api/users/{id}")).person(id).context(context);
        let answer = request.send().await.map_err(|error| not_checked(&error))?;
        match answer.status.as_u16() {
            200 => match answer.json::<User>().map_err(|error| not_checked(&error))?.status.as_str() {
                "active" => Ok(()),
                _ => Err(Error::CustomerInactive),
            },
            404 => Err(Error::CustomerInactive),
            _ => Err(not_checked(&answer.status)),
        }
    }
}
