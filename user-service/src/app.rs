//! Wires the service, top to bottom: each part uses only the parts above it.

use std::sync::Arc;

use shared::auth::KeySet;
use shared::db::Db;
use shared::platform::Platform;
use shared::service::{BuildFuture, Listener, Server, Service};

use crate::config::{Admin, Config, SERVICE};
use crate::domain::{EmailAddress, Name, NewUser, Password, Role};
use crate::error::Error;
use crate::passwords::{Lane, Passwords};
use crate::routes;
use crate::store::{self, Store};
use crate::tasks::publish_keys;
use crate::tokens::Issuer;

pub fn build(config: Config) -> BuildFuture<anyhow::Error> {
    Box::pin(wire(config))
}

async fn wire(config: Config) -> anyhow::Result<Server> {
    let listener = Listener::bind(SERVICE, config.http)?;
    let db = Db::open(&config.database, store::migrations()).await?;
    let passwords = Passwords::new(config.seal_key);
    let platform = Platform::new(listener.replica(), config.platform);
    let signing_keys = Arc::new(config.signing_keys);
    let users = KeySet::of(SERVICE, signing_keys.get().jwks());

    let store = Store::new(db.clone());
    if let Some(admin) = config.admin {
        register_admin(&store, &passwords, admin).await?;
    }

    let service = Service::new(listener)
        .data(store)
        .data(passwords)
        .data(Issuer::new(signing_keys.clone(), config.access_token_ttl))
        .routes(routes::routes())
        .authenticate(platform.authenticator(users.clone()))
        .database(&db)
        .prune(&db, &store::RETENTION)
        .task("publish_keys", move |stop| publish_keys::run(signing_keys, users, stop))
        .register(&platform);
    Ok(service.build()?)
}

/// Registers the first admin, unless the address is taken: by an earlier start, or by another replica.
async fn register_admin(store: &Store, passwords: &Passwords, admin: Admin) -> anyhow::Result<()> {
    let email = EmailAddress::try_from(admin.email).map_err(|why| anyhow::anyhow!("ADMIN_EMAIL {why}"))?;
    let password = Password::try_from(admin.password.expose().to_owned())
        .map_err(|why| anyhow::anyhow!("ADMIN_PASSWORD {why}"))?;
    if store.is_taken(&email).await? {
        return Ok(());
    }
    let name = Name::try_from("Admin".to_owned()).map_err(anyhow::Error::msg)?;
    let password_hash = passwords.hash(password, Lane::Known).await?;
    let new = NewUser { email, name, password_hash, role: Role::Admin };
    match store.db().transaction(async |tx| store.register(tx, new).await).await {
        Ok(_) | Err(Error::EmailTaken) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
