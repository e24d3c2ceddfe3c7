//! The sessions of user-service.

use serde_json::json;
use shared::client::{Context, ServiceClient};
use shared::http::Response;

use crate::error::Error;

/// Header with the client's address, by which user-service counts failed logins. The gateway sets it.
pub const CLIENT_ADDRESS: &str = "x-real-ip";

#[derive(Clone)]
pub struct Sessions {
    client: ServiceClient,
}

/// What the customer's browser said of itself.
pub struct Client {
    pub address: Option<String>,
    pub context: Context,
}

impl Sessions {
    pub fn new(client: ServiceClient) -> Self {
        Self { client }
    }

    pub async fn log_in(&self, email: &str, password: &str, client: &Client) -> Result<Response, Error> {
        let request =
            self.client.post("/api/sessions").json(&json!({ "email": email, "password": password }));
        let request = request.context(&client.context);
        let request = match &client.address {
            Some(address) => request.header(CLIENT_ADDRESS, address),
            None => request,
        };
        Ok(request.send().await?)
    }

    /// New tokens for `refresh_token`. It may be sent again: for 20 s a spent token gives the same successor.
    pub async fn refresh(&self, refresh_token: &str, context: &Context) -> Result<Response, Error> {
        let request =
            self.client.post("/api/sessions/refresh").json(&json!({ "refresh_token": refresh_token }));
        Ok(request.idempotent().context(context).send().await?)
    }
}
