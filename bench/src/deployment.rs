//! The stack under test: a running one, on this machine.

use e2e::Api;
use serde_json::{Value, json};
use shared::config::Vars;
use xtask::{Program, stack};

use crate::customer::{Customer, Request};
use crate::database::Database;
use crate::environment::Environment;

pub struct Deployment {
    /// The gateway's public port.
    pub gateway: Api,
    /// The gateway's admin port.
    pub dashboard: Api,
    /// The port of the console's pages.
    pub console: Api,
    /// The first admin, logged in.
    pub admin: Customer,
    pub environment: Environment,
    /// The database of payment-service, because no endpoint shows the ledger's entries.
    pub payments: Database,
    databases: String,
}

pub struct DeploymentConfig {
    compose: bool,
    databases: String,
    admin_email: String,
    admin_password: String,
}

impl DeploymentConfig {
    /// The login is in `.secrets/admin.env`, which the scripts read.
    pub fn from_vars(vars: &mut Vars) -> Option<Self> {
        let compose = vars.or("COMPOSE", "false", "whether it runs in docker compose, or as processes here");
        let databases =
            vars.or("DATABASES", "sqlite://data/{name}.db", "URL of each database of processes here");
        let admin_email = vars.required("ADMIN_EMAIL", "the admin's address");
        let admin_password = vars.required("ADMIN_PASSWORD", "the admin's password");
        Some(Self { compose, databases, admin_email: admin_email?, admin_password: admin_password? })
    }
}

impl Deployment {
    /// Finds the stack, and logs in.
    pub async fn open(config: DeploymentConfig) -> Result<Self, String> {
        let DeploymentConfig { compose, databases, admin_email, admin_password } = config;
        let environment = if compose { Environment::Compose } else { Environment::Embedded };
        if !compose && !stack::is_up() {
            return Err("It does not run here: start it with scripts/up.".to_owned());
        }
        let gateway = Api::local(xtask::gateway().port);
        if gateway.try_get("/health/live").await.is_none() {
            return Err("The gateway does not answer: start it with scripts/up.".to_owned());
        }
        let admin = Customer::log_in(&gateway, &admin_email, &admin_password);
        let admin = admin.await.ok_or("The admin of .secrets/admin.env cannot log in.")?;
        let payments = Database::open(environment, &databases, "payments").await?;
        Ok(Self {
            gateway,
            dashboard: Api::local(stack::ADMIN_PORT),
            console: Api::local(Program::named("console").port),
            admin,
            environment,
            payments,
            databases,
        })
    }

    pub async fn database(&self, name: &'static str) -> Result<Database, String> {
        Database::open(self.environment, &self.databases, name).await
    }

    /// GET on a service's own port, as the admin, at any replica that answers.
    pub async fn get(&self, service: &str, path: &str) -> Option<Value> {
        for _ in 0..2 {
            for replica in self.environment.replicas().await {
                if replica.service == service
                    && let Some(body) = self.environment.get(&replica, path, &self.admin.token()).await
                {
                    return Some(body);
                }
            }
            // The token may have expired: this request renews it.
            self.admin.send_once(&Request::get("/api/users/me")).await?;
        }
        None
    }

    /// Makes a product with so much in stock. `None` if it cannot be made.
    pub async fn product(&self, stock: u32) -> Option<String> {
        let body = json!({
            "sku": format!("bench-{}", uuid::Uuid::now_v7()),
            "name": "Something to buy",
            "description": "Made by the bench.",
            "price": { "amount": 1_250, "currency": "EUR" },
            "stock": stock,
        });
        let made = self.admin.send(&Request::post("/api/products", Some(body))).await.reply?;
        Some(made.body["id"].as_str()?.to_owned())
    }

    /// Registers `count` customers. `None` if the stack does not respond.
    pub async fn customers(&self, count: usize) -> Option<Vec<Customer>> {
        let mut customers = Vec::new();
        for _ in 0..count {
            customers.push(Customer::register(&self.gateway).await?);
        }
        Some(customers)
    }

    /// Whether the gateway is ready, and counts all replicas of every service as healthy.
    pub async fn is_healthy(&self) -> bool {
        let registry = self.dashboard.try_get("/registry/services").await;
        let ready = self.gateway.try_get("/health/ready").await;
        registry.is_some_and(|reply| stack::are_all_healthy(&reply.body))
            && ready.is_some_and(|reply| reply.status == 200)
    }
}
