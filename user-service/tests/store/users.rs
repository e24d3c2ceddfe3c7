use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use actix_web::{FromRequest as _, ResponseError as _};
use futures_util::future::{join, join_all};
use shared::db::query;
use shared::idempotency::{Claim, IdempotencyKey, StoredResponse};
use shared::request::{IfMatch, Paging};
use user_service::domain::{Change, Name, NewUser, Role, Status, User};
use user_service::error::Error;
use uuid::Uuid;

use crate::harness::{attempt, change, deactivate, email, log_in, new_user, refresh, register, stores};

#[actix_web::test]
async fn an_address_is_taken_once_whatever_its_case() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        assert!(matches!(register(&store, "ANN@example.com").await, Err(Error::EmailTaken)));
    }
}

#[actix_web::test]
async fn the_same_registration_happens_once_and_is_answered_alike() {
    fn claim() -> Claim {
        let request = TestRequest::post().uri("/api/users").insert_header(("idempotency-key", "k"));
        let key = IdempotencyKey::extract(&request.to_http_request()).into_inner().unwrap();
        key.claim(None, b"{}").unwrap()
    }
    for store in stores().await {
        let register = async || {
            let answer = |user: &User| StoredResponse::json(StatusCode::CREATED, &user.id);
            let new = new_user("ann@example.com");
            claim().once(store.db(), answer, async |tx| store.register(tx, new).await).await
        };
        let first = register().await.unwrap().into_stored();
        let again = register().await.unwrap().into_stored();
        assert!(!first.is_replayed() && again.is_replayed());
    }
}

#[actix_web::test]
async fn two_replicas_that_start_together_register_one_admin() {
    for store in stores().await {
        let make = async || {
            let new = NewUser { role: Role::Admin, ..new_user("admin@example.com") };
            store.db().transaction(async |tx| store.register(tx, new).await).await
        };
        let (one, two) = join(make(), make()).await;
        assert_eq!(one.is_ok() as u8 + two.is_ok() as u8, 1, "{one:?} {two:?}");
        let row = query("SELECT COUNT(*) AS admins FROM users WHERE is_admin");
        assert_eq!(row.fetch_one(store.db()).await.unwrap().get::<i64>("admins").unwrap(), 1);
    }
}

#[actix_web::test]
async fn a_change_raises_the_version_and_cannot_take_the_address_of_another_user() {
    for store in stores().await {
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let other = register(&store, "bob@example.com").await.unwrap().id;
        let renamed = Change { name: Name::try_from("Anna".to_owned()).ok(), ..Change::default() };
        let changed = change(&store, id, renamed, None).await.unwrap();
        assert_eq!((changed.name.as_str(), changed.version), ("Anna", 2));
        let taken = Change { email: Some(email("Bob@example.com")), ..Change::default() };
        assert!(matches!(change(&store, id, taken.clone(), None).await, Err(Error::EmailTaken)));
        assert!(change(&store, other, taken, None).await.is_ok(), "one's own, in another case");
    }
}

#[actix_web::test]
async fn of_two_changes_to_the_same_version_one_is_refused() {
    for store in stores().await {
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let first_version = TestRequest::default().insert_header(("if-match", "\"1\"")).to_http_request();
        let if_match = IfMatch::extract(&first_version).into_inner().unwrap();
        let rename = async |name: &str| {
            let change = Change { name: Name::try_from(name.to_owned()).ok(), ..Change::default() };
            let changed = store.db().transaction(async |tx| {
                if_match.check(store.lock(tx, id).await?.version)?;
                store.change(tx, id, change, None).await
            });
            changed.await
        };
        let (one, two) = join(rename("Anna"), rename("Anne")).await;
        for refused in [&one, &two].into_iter().filter_map(|renamed| renamed.as_ref().err()) {
            assert!(matches!(refused, Error::Problem(_)), "{refused:?}");
        }
        assert_eq!(one.is_ok() as u8 + two.is_ok() as u8, 1, "{one:?} {two:?}");
        assert_eq!(store.user(id).await.unwrap().version, 2);
    }
}

#[actix_web::test]
async fn all_users_are_listed_newest_first_page_by_page() {
    for store in stores().await {
        let mut ids = Vec::new();
        for number in 0..5 {
            ids.push(register(&store, &format!("{number}@example.com")).await.unwrap().id);
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
async fn a_deactivated_user_cannot_log_in_and_keeps_the_address() {
    for store in stores().await {
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let (_, token) = log_in(&store, "here").await;
        deactivate(&store, id).await.unwrap();
        deactivate(&store, id).await.unwrap();
        let user = store.user(id).await.unwrap();
        assert_eq!((user.status, user.version), (Status::Deactivated, 2));
        assert!(store.login(&attempt("ann@example.com", "here")).await.unwrap().is_none());
        assert!(matches!(refresh(&store, &token).await, Err(Error::InvalidToken)));
        assert!(store.is_taken(&email("ann@example.com")).await.unwrap());
    }
}

#[actix_web::test]
async fn a_user_who_is_deactivated_while_others_are_read_is_seen_deactivated_by_the_next_read() {
    for store in stores().await {
        for number in 0..20 {
            let id = register(&store, &format!("{number}@example.com")).await.unwrap().id;
            let read_often = async |_| {
                for _ in 0..20 {
                    store.user(id).await.unwrap();
                }
            };
            let deactivated = async {
                deactivate(&store, id).await.unwrap();
                store.user(id).await.unwrap()
            };
            let (_, user) = join(join_all((0..8).map(read_often)), deactivated).await;
            assert_eq!(user.status, Status::Deactivated);
        }
    }
}

#[actix_web::test]
async fn reads_of_users_fail_together_without_the_database_and_an_unknown_user_is_not_found() {
    for store in stores().await {
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let (known, unknown) = join(store.user(id), store.user(Uuid::now_v7())).await;
        assert!(known.is_ok() && matches!(unknown, Err(Error::NotFound)));
        store.db().close().await;
        for failed in join_all((0..8).map(|_| store.user(id))).await {
            let status = failed.unwrap_err().error_response().status();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}
