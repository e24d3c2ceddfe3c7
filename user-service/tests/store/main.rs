//! What the store promises, on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test")]

use actix_web::FromRequest as _;
use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use shared::db::testing::urls;
use shared::db::{Db, DbConfig, Migrations, now, query};
use shared::idempotency::{Answer, Claim, IdempotencyKey};
use shared::request::{IfMatch, Paging};
use user_service::domain::{Change, EmailAddress, Name, NewUser, Status, User};
use user_service::error::UserError;
use user_service::store::{LoginTry, Store};
use uuid::Uuid;

/// A store on each engine, and its database.
async fn stores() -> Vec<(Store, Db)> {
    let mut stores = Vec::new();
    for url in urls().await {
        let migrations = Migrations {
            sqlite: sqlx::migrate!("migrations/sqlite"),
            postgres: sqlx::migrate!("migrations/postgres"),
        };
        let db = Db::open(&DbConfig::at(&url), migrations).await.unwrap();
        stores.push((Store::new(db.clone()), db));
    }
    stores
}

fn new_user(email: &str) -> NewUser {
    NewUser {
        email: EmailAddress::try_from(email.to_owned()).unwrap(),
        name: Name::try_from("Somebody".to_owned()).unwrap(),
        password_hash: "hash".to_owned(),
    }
}

fn claim(key: Option<&str>) -> Claim {
    let mut request = TestRequest::post().uri("/api/users");
    if let Some(key) = key {
        request = request.insert_header(("idempotency-key", key));
    }
    let key = IdempotencyKey::extract(&request.to_http_request()).into_inner().unwrap();
    key.claim(None, b"{}").unwrap()
}

async fn register(store: &Store, email: &str) -> Uuid {
    let mut id = Uuid::nil();
    let answer = |user: &User| {
        id = user.id;
        Answer::json(StatusCode::CREATED, user)
    };
    store.register(claim(None), new_user(email), answer).await.unwrap();
    id
}

fn any_version() -> IfMatch {
    IfMatch::extract(&TestRequest::default().to_http_request()).into_inner().unwrap()
}

fn login(email: &str, client: &str) -> LoginTry {
    LoginTry::new(email, client.to_owned())
}

/// Logs in, with the password taken as checked; the session.
async fn log_in(store: &Store, client: &str, token: &str) -> Uuid {
    let login_try = login("ann@example.com", client);
    let found = store.login(&login_try).await.unwrap().unwrap();
    store.begin_session(&login_try, &found, token).await.unwrap()
}

#[actix_web::test]
async fn an_address_is_taken_once_whatever_its_case() {
    for (store, _) in stores().await {
        register(&store, "ann@example.com").await;
        let answer = |user: &User| Answer::json(StatusCode::CREATED, user);
        let again = store.register(claim(None), new_user("ANN@example.com"), answer).await;
        assert!(matches!(again, Err(UserError::EmailTaken)));
    }
}

#[actix_web::test]
async fn the_same_registration_happens_once_and_is_answered_alike() {
    for (store, _) in stores().await {
        let answer = |user: &User| Answer::json(StatusCode::CREATED, user);
        let first = store.register(claim(Some("k")), new_user("ann@example.com"), answer).await.unwrap();
        let again = store.register(claim(Some("k")), new_user("ann@example.com"), answer).await.unwrap();
        assert!(!first.is_replayed() && again.is_replayed());
    }
}

#[actix_web::test]
async fn two_replicas_that_start_at_once_make_one_admin() {
    for (store, db) in stores().await {
        let make = || store.make_admin(new_user("admin@example.com"));
        let (one, two) = futures_util::future::join(make(), make()).await;
        assert_eq!(one.is_ok() as u8 + two.is_ok() as u8, 1, "{one:?} {two:?}");
        let row = query("SELECT COUNT(*) AS admins FROM users WHERE is_admin").fetch_one(&db).await.unwrap();
        assert_eq!(row.get::<i64>("admins").unwrap(), 1);
    }
}

#[actix_web::test]
async fn a_change_raises_the_version_and_a_stale_one_is_refused() {
    for (store, _) in stores().await {
        let id = register(&store, "ann@example.com").await;
        let other = register(&store, "bob@example.com").await;
        let name = Name::try_from("Anna".to_owned()).ok();
        let change = Change { name, ..Change::default() };
        let changed = store.change(id, &any_version(), change.clone(), None).await.unwrap();
        assert_eq!((changed.name.as_str(), changed.version), ("Anna", 2));
        let stale = TestRequest::default().insert_header(("if-match", "\"1\"")).to_http_request();
        let stale = IfMatch::extract(&stale).into_inner().unwrap();
        assert!(matches!(store.change(id, &stale, change, None).await, Err(UserError::Refused(_))));
        let email = EmailAddress::try_from("Bob@example.com".to_owned()).ok();
        let taken = Change { email, ..Change::default() };
        assert!(matches!(
            store.change(id, &any_version(), taken.clone(), None).await,
            Err(UserError::EmailTaken)
        ));
        assert!(store.change(other, &any_version(), taken, None).await.is_ok(), "one's own, in another case");
    }
}

#[actix_web::test]
async fn everybody_is_listed_newest_first_page_by_page() {
    for (store, _) in stores().await {
        let mut ids = Vec::new();
        for number in 0..5 {
            ids.push(register(&store, &format!("{number}@example.com")).await);
        }
        ids.reverse();
        let first = store.users(&Paging { limit: 3, cursor: None }).await.unwrap();
        assert_eq!(first.items.iter().map(|user| user.id).collect::<Vec<_>>(), ids[..3]);
        assert!(first.next_cursor.is_some());
        let rest = store.users(&Paging { limit: 3, cursor: Some(ids[2]) }).await.unwrap();
        assert_eq!(rest.items.iter().map(|user| user.id).collect::<Vec<_>>(), ids[3..]);
        assert_eq!(rest.next_cursor, None);
    }
}

#[actix_web::test]
async fn a_refresh_token_is_good_once_and_its_reuse_ends_the_session() {
    for (store, _) in stores().await {
        let id = register(&store, "ann@example.com").await;
        let session = log_in(&store, "here", "one").await;
        let refreshed = store.refresh("one", "two").await.unwrap();
        assert_eq!((refreshed.session, refreshed.user.id), (session, id));
        assert!(matches!(store.refresh("never", "x").await, Err(UserError::InvalidToken)));
        assert!(matches!(store.refresh("one", "three").await, Err(UserError::TokenReused)));
        assert!(
            matches!(store.refresh("two", "four").await, Err(UserError::InvalidToken)),
            "the family is revoked"
        );
    }
}

#[actix_web::test]
async fn of_two_refreshes_at_once_one_wins() {
    for (store, _) in stores().await {
        register(&store, "ann@example.com").await;
        log_in(&store, "here", "one").await;
        let (a, b) = futures_util::future::join(store.refresh("one", "a"), store.refresh("one", "b")).await;
        assert_eq!(a.is_ok() as u8 + b.is_ok() as u8, 1);
    }
}

#[actix_web::test]
async fn a_new_password_ends_every_session_but_ones_own() {
    for (store, _) in stores().await {
        let id = register(&store, "ann@example.com").await;
        let mine = log_in(&store, "here", "mine").await;
        log_in(&store, "there", "other").await;
        let change = Change { password_hash: Some("new".to_owned()), ..Change::default() };
        store.change(id, &any_version(), change, Some(mine)).await.unwrap();
        assert!(store.refresh("mine", "mine2").await.is_ok());
        assert!(matches!(store.refresh("other", "other2").await, Err(UserError::InvalidToken)));
    }
}

#[actix_web::test]
async fn who_leaves_cannot_log_in_and_keeps_the_address() {
    for (store, _) in stores().await {
        let id = register(&store, "ann@example.com").await;
        log_in(&store, "here", "one").await;
        store.deactivate(id, &any_version()).await.unwrap();
        store.deactivate(id, &any_version()).await.unwrap();
        let user = store.user(id).await.unwrap();
        assert_eq!((user.status, user.version), (Status::Deactivated, 2));
        assert!(store.login(&login("ann@example.com", "here")).await.unwrap().is_none());
        assert!(matches!(store.refresh("one", "two").await, Err(UserError::InvalidToken)));
        assert!(
            store.is_taken(&EmailAddress::try_from("ann@example.com".to_owned()).unwrap()).await.unwrap()
        );
    }
}

#[actix_web::test]
async fn who_leaves_or_changes_the_password_while_it_is_checked_is_not_logged_in() {
    for (store, _) in stores().await {
        let here = login("ann@example.com", "here");
        let id = register(&store, "ann@example.com").await;
        let found = store.login(&here).await.unwrap().unwrap();
        let change = Change { password_hash: Some("new".to_owned()), ..Change::default() };
        store.change(id, &any_version(), change, None).await.unwrap();
        let late = store.begin_session(&here, &found, "one").await;
        assert!(matches!(late, Err(UserError::InvalidCredentials)), "{late:?}");

        let found = store.login(&here).await.unwrap().unwrap();
        store.deactivate(id, &any_version()).await.unwrap();
        let late = store.begin_session(&here, &found, "two").await;
        assert!(matches!(late, Err(UserError::InvalidCredentials)), "{late:?}");
    }
}

#[actix_web::test]
async fn after_ten_failures_a_client_is_refused_known_address_or_not() {
    for (store, db) in stores().await {
        register(&store, "ann@example.com").await;
        for email in ["ann@example.com", "nobody@example.com"] {
            for _ in 0..10 {
                store.login(&login(email, "here")).await.unwrap();
                store.count_failure(&login(&email.to_uppercase(), "here")).await.unwrap();
            }
            let late = store.count_failure(&login(email, "here")).await;
            assert!(matches!(late, Err(UserError::Throttled(1..=900))), "{late:?}");
            let refused = store.login(&login(email, "here")).await;
            assert!(matches!(refused, Err(UserError::Throttled(1..=900))), "{refused:?}");
            assert!(store.login(&login(email, "elsewhere")).await.is_ok());
        }
        // Sixteen minutes later.
        let began = now() - time::Duration::minutes(16);
        query("UPDATE login_failures SET began_at = $1").bind(began).execute(&db).await.unwrap();
        assert!(store.login(&login("ann@example.com", "here")).await.unwrap().is_some());
    }
}

#[actix_web::test]
async fn tries_that_are_under_way_or_right_are_not_failures() {
    for (store, _) in stores().await {
        let id = register(&store, "ann@example.com").await;
        let here = login("ann@example.com", "here");
        let mut found = Vec::new();
        for _ in 0..20 {
            found.push(store.login(&here).await.unwrap().unwrap());
        }
        for (number, login) in found.iter().enumerate() {
            assert_eq!(login.user.id, id);
            store.begin_session(&here, login, &format!("token {number}")).await.unwrap();
        }
        // But a right one after ten wrong ones comes too late, though it began before them.
        for _ in 0..10 {
            store.count_failure(&here).await.unwrap();
        }
        let late = store.begin_session(&here, &found[0], "late").await;
        assert!(matches!(late, Err(UserError::Throttled(_))), "{late:?}");
    }
}

#[actix_web::test]
async fn whatever_is_given_as_an_address_is_counted_and_found_to_be_nobodys() {
    for (store, _) in stores().await {
        for odd in ["", "a\0b@example.com", &"x".repeat(200_000)] {
            assert!(store.login(&login(odd, "here")).await.unwrap().is_none());
            store.count_failure(&login(odd, "here")).await.unwrap();
        }
    }
}

#[actix_web::test]
async fn a_success_forgets_the_tries_before() {
    for (store, _) in stores().await {
        register(&store, "ann@example.com").await;
        let here = login("ann@example.com", "here");
        for round in 0..3 {
            for _ in 0..9 {
                store.count_failure(&here).await.unwrap();
            }
            log_in(&store, "here", &format!("token {round}")).await;
        }
    }
}

#[actix_web::test]
async fn sessions_that_are_over_and_old_tries_are_pruned() {
    for (store, db) in stores().await {
        register(&store, "ann@example.com").await;
        log_in(&store, "here", "old").await;
        store.count_failure(&login("ann@example.com", "here")).await.unwrap();
        let long_ago = now() - time::Duration::days(31);
        query("UPDATE sessions SET expires_at = $1").bind(long_ago).execute(&db).await.unwrap();
        query("UPDATE login_failures SET began_at = $1").bind(long_ago).execute(&db).await.unwrap();
        log_in(&store, "there", "new").await;
        store.prune().await.unwrap();
        for (table, left) in [("sessions", 1), ("refresh_tokens", 1), ("login_failures", 0)] {
            let row = query(format!("SELECT COUNT(*) AS rows FROM {table}")).fetch_one(&db).await.unwrap();
            assert_eq!(row.get::<i64>("rows").unwrap(), left, "{table}");
        }
    }
}
