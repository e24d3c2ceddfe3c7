//! A customer or admin who uses the shop, with one method for each request.

use std::time::Duration;

use actix_web::http::Method;
use serde_json::{Value, json};
use shared::testing::{Api, Reply, eventually};
use uuid::Uuid;

/// A user who is logged in.
pub struct Person {
    pub id: String,
    pub email: String,
    /// Sends requests to the gateway with this person's token.
    pub api: Api,
}

/// The password of every user that [`Person::register`] creates.
pub const PASSWORD: &str = "a long enough one";

impl Person {
    /// Registers a new user and logs in.
    pub async fn register(api: &Api) -> Self {
        let email = format!("{}@example.com", Uuid::now_v7());
        let body = json!({ "email": email, "name": "A customer", "password": PASSWORD });
        api.post("/api/users", body).await.expect(201);
        Self::log_in(api, &email, PASSWORD).await
    }

    pub async fn log_in(api: &Api, email: &str, password: &str) -> Self {
        let tokens =
            api.post("/api/sessions", json!({ "email": email, "password": password })).await.expect(201);
        let api = api.with_token(tokens["access_token"].as_str().unwrap_or_default());
        let me = api.get("/api/users/me").await.expect(200);
        Self { id: me["id"].as_str().unwrap_or_default().to_owned(), email: email.to_owned(), api }
    }

    /// The first product in the catalogue.
    pub async fn product(&self) -> Value {
        self.api.get("/api/products?limit=1").await.expect(200)["products"][0].clone()
    }

    /// Orders `quantity` of the product and pays with `token`. Returns the order as first answered.
    pub async fn place(&self, product: &Value, quantity: u32, token: &str) -> Value {
        let lines = json!([{ "product_id": product["id"], "quantity": quantity }]);
        self.api.post("/api/orders", json!({ "lines": lines, "payment_token": token })).await.expect(201)
    }

    pub async fn order(&self, order: &Value) -> Value {
        self.api.get(&order_path(order)).await.expect(200)
    }

    pub async fn cancel(&self, order: &Value) -> Reply {
        self.api.send(Method::POST, &format!("{}/cancel", order_path(order)), None).await
    }

    /// Waits until the order has `status`.
    pub async fn order_reaches(&self, order: &Value, status: &str) -> Value {
        let what = format!("order {} is {status}", order["id"]);
        eventually(&what, Duration::from_secs(60), || async {
            let order = self.api.try_get(&order_path(order)).await?.body;
            assert!(
                order["status"] != "rejected" || status == "rejected",
                "it can never be {status}: {order}"
            );
            (order["status"] == status).then_some(order)
        })
        .await
    }
}

fn order_path(order: &Value) -> String {
    format!("/api/orders/{}", order["id"].as_str().unwrap_or_default())
}
