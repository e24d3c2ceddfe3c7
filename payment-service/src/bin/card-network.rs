//! The card-network program.

use payment_service::card_network::{app, config::Config};

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    shared::telemetry::init("card-network")?;
    let config = shared::config::load(Config::from_vars);
    Ok(app::build(config).await?.run().await?)
}
