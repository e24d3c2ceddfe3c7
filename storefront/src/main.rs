//! The storefront program.

use storefront::{app, config::Config};

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    shared::telemetry::init("storefront")?;
    let config = shared::config::load(Config::from_vars);
    Ok(app::build(config).await?.run().await?)
}
