//! What this service asks user-service: whether a customer is active.

use serde::Deserialize;
use shared::client::{Context, ServiceClient};
use uuid::Uuid;

use crate::error::Error;

/// The service that owns people.
pub const USERS: &str = "user-service";

/// Asks about customers.
#[derive(Clone)]
pub struct Customers {
    users: ServiceClient,
}

/// All that matters here of a user.
#[derive(Deserialize)]
struct User {
    status: String,
}

impl Customers {
    /// Asks by this client.
    pub fn new(users: ServiceClient) -> Self {
        Self { users }
    }

    /// Whether the customer may order.
    ///
    /// # Errors
    /// [`Error::CustomerInactive`] if not, [`Error::CustomerUnknown`] if nobody can say.
    pub async fn must_be_active(&self, id: Uuid, context: &Context) -> Result<(), Error> {
        let asked = self.users.get(format!("/api/users/{id}")).person(id).context(context).send().await;
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
