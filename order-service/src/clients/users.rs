//! Calls to user-service: is a customer active?

use serde::Deserialize;
use shared::client::{Context, ServiceClient};
use uuid::Uuid;

use crate::error::Error;

/// Owns people, and the keys of their tokens.
pub const USERS: &str = "user-service";

#[derive(Clone)]
pub struct Users {
    client: ServiceClient,
}

/// The fields of a user that matter here.
#[derive(Deserialize)]
struct User {
    status: String,
}

impl Users {
    pub fn new(client: ServiceClient) -> Self {
        Self { client }
    }

    /// Whether the customer may order.
    ///
    /// # Errors
    /// [`Error::CustomerInactive`] if not, [`Error::CustomerUnknown`] if nobody can say.
    pub async fn must_be_active(&self, id: Uuid, context: &Context) -> Result<(), Error> {
        let asked = self.client.get(format!("/api/users/{id}")).person(id).context(context).send().await;
        let unknown = |why: &dyn std::fmt::Display| Error::CustomerUnknown(why.to_string());
        let answer = asked.map_err(|error| unknown(&error))?;
        match answer.status.as_u16() {
            200 => match answer.json::<User>().map_err(|error| unknown(&error))?.status.as_str() {
                "active" => Ok(()),
                _ => Err(Error::CustomerInactive),
            },
            404 => Err(Error::CustomerInactive),
            _ => Err(unknown(&answer.status)),
        }
    }
}
