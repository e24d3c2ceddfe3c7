//! A store on each engine, and what handlers do with it, each in its transaction.

use shared::db::testing::urls;
use shared::db::{Db, DbConfig, now, query};
use user_service::domain::{Change, EmailAddress, Name, NewUser, Role, Session, User};
use user_service::error::Error;
use user_service::store::{Login, LoginAttempt, RETENTION, Refreshed, Store, migrations};
use user_service::tokens::RefreshToken;
use uuid::Uuid;

pub(crate) async fn stores() -> Vec<Store> {
    let mut stores = Vec::new();
    for url in urls().await {
        stores.push(Store::new(Db::open(&DbConfig::at(&url), migrations()).await.unwrap()));
    }
    stores
}

pub(crate) fn email(text: &str) -> EmailAddress {
    EmailAddress::try_from(text.to_owned()).unwrap()
}

pub(crate) fn new_user(address: &str) -> NewUser {
    let name = Name::try_from("Somebody".to_owned()).unwrap();
    NewUser { email: email(address), name, password_hash: "hash".to_owned(), role: Role::Customer }
}

pub(crate) fn new_password() -> Change {
    Change { password_hash: Some("new".to_owned()), ..Change::default() }
}

pub(crate) fn attempt(email: &str, client: &str) -> LoginAttempt {
    LoginAttempt::new(email, client.to_owned())
}

pub(crate) async fn register(store: &Store, email: &str) -> Result<User, Error> {
    store.db().transaction(async |tx| store.register(tx, new_user(email)).await).await
}

pub(crate) async fn change(
    store: &Store,
    id: Uuid,
    change: Change,
    kept: Option<Uuid>,
) -> Result<User, Error> {
    store.db().transaction(async |tx| store.change(tx, id, change, kept).await).await
}

pub(crate) async fn deactivate(store: &Store, id: Uuid) -> Result<(), Error> {
    store.db().transaction(async |tx| store.deactivate(tx, id).await).await
}

pub(crate) async fn begin_session(
    store: &Store,
    attempt: &LoginAttempt,
    login: &Login,
) -> Result<(Session, RefreshToken), Error> {
    let token = RefreshToken::random();
    let begun = store.db().transaction(async |tx| store.begin_session(tx, attempt, login, &token).await);
    Ok((begun.await?, token))
}

/// The session of ann@example.com; the password counts as checked.
pub(crate) async fn log_in(store: &Store, client: &str) -> (Session, RefreshToken) {
    let attempt = attempt("ann@example.com", client);
    let login = store.login(&attempt).await.unwrap().unwrap();
    begin_session(store, &attempt, &login).await.unwrap()
}

pub(crate) async fn count_failure(store: &Store, attempt: &LoginAttempt) -> Result<(), Error> {
    store.db().transaction(async |tx| store.count_failure(tx, attempt).await).await
}

pub(crate) async fn refresh(store: &Store, token: &RefreshToken) -> Result<Refreshed, Error> {
    store.db().transaction(async |tx| store.refresh(tx, token).await).await
}

/// The token that takes the place of `token`.
pub(crate) async fn renew(store: &Store, token: &RefreshToken) -> RefreshToken {
    match refresh(store, token).await {
        Ok(Refreshed::Renewed { next, .. }) => next,
        refused => panic!("{refused:?}"),
    }
}

pub(crate) async fn prune(store: &Store) {
    for rows in &RETENTION {
        store.db().prune(rows).await.unwrap();
    }
}

/// Moves the time of the column back.
pub(crate) async fn long_ago(store: &Store, table: &str, column: &str, time: time::Duration) {
    let sql = format!("UPDATE {table} SET {column} = $1 WHERE {column} IS NOT NULL");
    query(sql).bind(now() - time).execute(store.db()).await.unwrap();
}

pub(crate) async fn rows(store: &Store, table: &str) -> i64 {
    let row = query(format!("SELECT COUNT(*) AS rows FROM {table}")).fetch_one(store.db()).await.unwrap();
    row.get("rows").unwrap()
}
