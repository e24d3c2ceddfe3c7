//! Where the stack is, and who runs it.

use std::path::Path;

use e2e::Api;
use serde_json::{Value, json};
use shared::config::Vars;

use crate::customer::{Customer, Errand};
use crate::database::Database;
use crate::ground::{Ground, SERVICES};

/// A running stack, on this machine.
pub struct Site {
    /// The gateway's public port.
    pub gateway: Api,
    /// The gateway's admin port.
    pub dashboard: Api,
    /// The first admin, logged in.
    pub admin: Customer,
    /// What it runs on.
    pub ground: Ground,
    /// The database of payment-service, whose ledger nobody shows entry by entry.
    pub payments: Database,
}

/// Which stack.
pub struct SiteConfig {
    compose: bool,
    admin_email: String,
    admin_password: String,
}

impl SiteConfig {
    /// Reads what `scripts/up` wrote to `.secrets/admin.env`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        Self {
            compose: vars.or("COMPOSE", "false", "whether it runs in docker compose, or as processes here"),
            admin_email: vars.required("ADMIN_EMAIL", "the admin's address"),
            admin_password: vars.required("ADMIN_PASSWORD", "the admin's password"),
        }
    }
}

impl Site {
    /// Finds the stack, and logs in.
    ///
    /// # Errors
    /// In words, what is missing.
    pub async fn open(config: SiteConfig) -> Result<Self, String> {
        let SiteConfig { compose, admin_email, admin_password } = config;
        let ground = if compose { Ground::Compose } else { Ground::Embedded };
        if !compose && !Path::new("data/run/gateway.child").exists() {
            return Err("It does not run here: start it with scripts/up.".to_owned());
        }
        let gateway = Api::local(8080);
        if gateway.try_get("/health/live").await.is_none() {
            return Err("The gateway does not answer: start it with scripts/up.".to_owned());
        }
        let admin = Customer::log_in(&gateway, &admin_email, &admin_password);
        let admin = admin.await.ok_or("The admin of .secrets/admin.env cannot log in.")?;
        let payments = Database::open(ground, "payments").await?;
        Ok(Self { gateway, dashboard: Api::local(9090), admin, ground, payments })
    }

    /// What a service says on its own port, to an admin where it must be one.
    pub async fn asked(&self, service: &str, path: &str) -> Option<Value> {
        for _ in 0..2 {
            for program in self.ground.programs().await {
                if program.service == service
                    && let Some(body) = self.ground.ask(&program, path, &self.admin.token()).await
                {
                    return Some(body);
                }
            }
            // The token may have run out: whoever needs one gets a new one.
            self.admin.try_once(&Errand::get("/api/users/me")).await?;
        }
        None
    }

    /// A new product with so much in stock. `None` if it cannot be made.
    pub async fn product(&self, stock: u32) -> Option<String> {
        let body = json!({
            "sku": format!("bench-{}", uuid::Uuid::now_v7()),
            "name": "Something to buy",
            "description": "Made by the bench.",
            "price": { "amount": 1_250, "currency": "EUR" },
            "stock": stock,
        });
        let made = self.admin.insist(&Errand::post("/api/products", Some(body))).await.reply?;
        Some(made.body["id"].as_str()?.to_owned())
    }

    /// So many new customers. `None` if the stack does not answer.
    pub async fn customers(&self, count: usize) -> Option<Vec<Customer>> {
        let mut customers = Vec::new();
        for _ in 0..count {
            customers.push(Customer::register(&self.gateway).await?);
        }
        Some(customers)
    }

    /// Whether the gateway counts two healthy replicas of each service, and serves.
    pub async fn is_healthy(&self) -> bool {
        let seen = self.dashboard.try_get("/registry/services").await;
        let services = seen.as_ref().and_then(|seen| seen.body["services"].as_array()).into_iter().flatten();
        let whole = services.filter(|service| e2e::healthy_instances(service) >= 2).count();
        let ready = self.gateway.try_get("/health/ready").await;
        whole == SERVICES.len() && ready.is_some_and(|reply| reply.status == 200)
    }
}
