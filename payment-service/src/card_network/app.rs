//! Wires the card network.

use actix_web::web;
use shared::db::{Db, Migrations};
use shared::service::{Server, Service};

use super::book::Book;
use super::config::Config;
use super::routes;

/// The tables of the card network.
pub fn migrations() -> Migrations {
    Migrations { sqlite: sqlx::migrate!("migrations/card-network"), ..Migrations::none() }
}

/// Opens the state file and binds the listener.
///
/// # Errors
/// When either cannot be done.
pub async fn build(config: Config) -> anyhow::Result<Server> {
    let db = Db::open(&config.database, migrations()).await?;
    let book = web::Data::new(Book::new(db.clone()));
    let server = Service::new("card-network", config.http)
        .routes(move |app| {
            app.app_data(book.clone());
            routes::configure(app);
        })
        .database(&db)
        .build()
        .await?;
    Ok(server)
}
