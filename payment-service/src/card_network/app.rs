//! Wires the card network.

use shared::db::{Db, Migrations};
use shared::service::{Listener, Server, Service};

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
    let listener = Listener::bind("card-network", config.http)?;
    let db = Db::open(&config.database, migrations()).await?;
    let book = Book::new(db.clone());
    Ok(Service::new(listener).data(book).configure(routes::configure).database(&db).build()?)
}
