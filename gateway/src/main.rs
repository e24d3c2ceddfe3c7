//! The gateway program.

use gateway::{app, config::Config};

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    shared::telemetry::init("gateway")?;
    let config = shared::config::load(Config::from_vars);
    Ok(app::build(config).await?.run().await?)
}
