//! The payment-service program.

use payment_service::{app, config::Config};

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    shared::telemetry::init("payment-service")?;
    let config = shared::config::load(Config::from_vars);
    Ok(app::build(config).await?.run().await?)
}
