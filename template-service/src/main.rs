//! The template-service program.

use template_service::{app, config::Config};

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    shared::telemetry::init("template-service")?;
    let config = shared::config::load(Config::from_vars);
    Ok(app::build(config).await?.run().await?)
}
