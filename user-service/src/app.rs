//! The only place that wires: store, keys, listener.

use std::sync::Arc;

use actix_web::web;
use shared::auth::KeySet;
use shared::db::{Db, Migrations};
use shared::service::{Listener, Server, Service};
use shared::stack::Stack;

use crate::config::{Admin, Config};
use crate::domain::{EmailAddress, Name, NewUser, Password};
use crate::passwords::Passwords;
use crate::routes::{self, Issuer};
use crate::store::{self, Store};
use crate::{error::UserError, openapi};

/// The name of this service.
pub const SERVICE: &str = "user-service";

/// Opens the database, makes the first admin, and binds the listener.
///
/// # Errors
/// Whatever keeps the service from starting.
pub async fn build(config: Config) -> anyhow::Result<Server> {
    let migrations = Migrations {
        sqlite: sqlx::migrate!("migrations/sqlite"),
        postgres: sqlx::migrate!("migrations/postgres"),
    };
    let listener = Listener::bind(SERVICE, config.http)?;
    let db = Db::open(&config.database, migrations).await?;
    let store = Store::new(db.clone());
    let passwords = Passwords::new(config.stack.service_key.clone());
    if let Some(admin) = config.admin {
        make_admin(&store, &passwords, admin).await?;
    }
    let stack = Stack::new(listener.replica(), config.stack);
    let users = KeySet::of(SERVICE, config.signing_keys.jwks());
    let issuer = Arc::new(Issuer::new(config.signing_keys, config.access_token_ttl));
    let pruned = store.clone();
    let server = Service::new(listener)
        .authenticate(stack.authenticator(users))
        .database(&db)
        .data(store)
        .data(passwords)
        .configure(move |app| {
            app.app_data(web::Data::from(issuer.clone()));
        })
        .openapi(&openapi::document())
        .configure(routes::configure)
        .task("pruning", move |stop| store::prune::run(pruned, stop))
        .register(&stack)
        .build()?;
    Ok(server)
}

/// Makes the first admin, unless the address is taken: by an earlier start, or another replica.
async fn make_admin(store: &Store, passwords: &Passwords, admin: Admin) -> anyhow::Result<()> {
    let email = EmailAddress::try_from(admin.email).map_err(|why| anyhow::anyhow!("ADMIN_EMAIL {why}"))?;
    let password = Password::try_from(admin.password.expose().to_owned())
        .map_err(|why| anyhow::anyhow!("ADMIN_PASSWORD {why}"))?;
    if store.is_taken(&email).await? {
        return Ok(());
    }
    let name = Name::try_from("Admin".to_owned()).map_err(anyhow::Error::msg)?;
    let password_hash = passwords.hash(password).await?;
    match store.make_admin(NewUser { email, name, password_hash }).await {
        Ok(()) | Err(UserError::EmailTaken) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
