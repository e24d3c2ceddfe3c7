use futures_util::future::join;
use shared::db::query;
use time::Duration;
use user_service::error::Error;
use user_service::store::Refreshed;
use user_service::tokens::RefreshToken;

use crate::harness::{
    attempt, begin_session, change, deactivate, log_in, long_ago, new_password, refresh, register, renew,
    stores,
};

#[actix_web::test]
async fn a_refresh_token_is_good_once_and_its_reuse_ends_the_session() {
    for store in stores().await {
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let (begun, one) = log_in(&store, "here").await;
        let Refreshed::Renewed { session, user, next: two } = refresh(&store, &one).await.unwrap() else {
            panic!("it was used for the first time")
        };
        assert_eq!((session, user.id), (begun, id));
        assert!(matches!(refresh(&store, &RefreshToken::random()).await, Err(Error::InvalidToken)));
        let three = renew(&store, &two).await;
        assert!(matches!(refresh(&store, &one).await, Ok(Refreshed::Reused)), "its successor was used");
        let newest = refresh(&store, &three).await;
        assert!(matches!(newest, Err(Error::InvalidToken)), "the family is revoked");
        assert!(matches!(refresh(&store, &two).await, Ok(Refreshed::Reused)), "also within the grace");
    }
}

#[actix_web::test]
async fn after_a_lost_answer_the_spent_token_gives_the_same_successor_for_20_seconds() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        let (session, one) = log_in(&store, "here").await;
        let two = renew(&store, &one).await;
        assert_eq!(renew(&store, &one).await, two);
        assert_eq!(two.family_hash(), one.family_hash());
        let three = renew(&store, &two).await;
        long_ago(&store, "refresh_tokens", "spent_at", Duration::seconds(19)).await;
        assert_eq!(renew(&store, &two).await, three);
        long_ago(&store, "refresh_tokens", "spent_at", Duration::seconds(21)).await;
        assert!(matches!(refresh(&store, &two).await, Ok(Refreshed::Reused)), "{session:?}");
        assert!(matches!(refresh(&store, &three).await, Err(Error::InvalidToken)));
    }
}

#[actix_web::test]
async fn two_concurrent_refreshes_get_the_same_successor() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        let (_, one) = log_in(&store, "here").await;
        let (a, b) = join(renew(&store, &one), renew(&store, &one)).await;
        assert_eq!(a, b);
        renew(&store, &a).await;
    }
}

#[actix_web::test]
async fn a_session_ends_90_days_after_its_login_however_often_it_is_refreshed() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        let (_, one) = log_in(&store, "here").await;
        long_ago(&store, "sessions", "created_at", Duration::days(89)).await;
        let two = renew(&store, &one).await;
        let row = query("SELECT created_at, expires_at FROM sessions").fetch_one(store.db()).await.unwrap();
        let time = |column: &str| row.get::<time::OffsetDateTime>(column).unwrap();
        assert_eq!(time("expires_at") - time("created_at"), Duration::days(90));
        long_ago(&store, "sessions", "expires_at", Duration::seconds(1)).await;
        assert!(matches!(refresh(&store, &two).await, Err(Error::InvalidToken)));
    }
}

#[actix_web::test]
async fn a_session_that_an_older_version_let_live_for_more_than_90_days_has_ended() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        let (_, token) = log_in(&store, "here").await;
        long_ago(&store, "sessions", "created_at", Duration::days(91)).await;
        let refreshed = refresh(&store, &token).await;
        assert!(matches!(refreshed, Err(Error::InvalidToken)), "{refreshed:?}");
    }
}

#[actix_web::test]
async fn a_token_of_an_older_version_is_refreshed_into_a_family() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        let (session, _) = log_in(&store, "here").await;
        let old = RefreshToken::from("A".repeat(43));
        query("UPDATE sessions SET family = NULL").execute(store.db()).await.unwrap();
        query("UPDATE refresh_tokens SET hash = $1 WHERE session_id = $2")
            .bind(old.hash())
            .bind(session.id)
            .execute(store.db())
            .await
            .unwrap();
        let two = renew(&store, &old).await;
        assert_eq!(renew(&store, &old).await, two);
        let three = renew(&store, &two).await;
        assert_eq!(three.family_hash(), two.family_hash());
        assert!(matches!(refresh(&store, &old).await, Ok(Refreshed::Reused)));
    }
}

#[actix_web::test]
async fn a_new_password_ends_every_session_but_the_one_it_was_set_in() {
    for store in stores().await {
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let (session, mine) = log_in(&store, "here").await;
        let (_, other) = log_in(&store, "there").await;
        change(&store, id, new_password(), Some(session.id)).await.unwrap();
        renew(&store, &mine).await;
        assert!(matches!(refresh(&store, &other).await, Err(Error::InvalidToken)));
    }
}

#[actix_web::test]
async fn a_login_fails_if_the_password_changes_or_the_user_is_deactivated_while_it_is_checked() {
    for store in stores().await {
        let here = attempt("ann@example.com", "here");
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let login = store.login(&here).await.unwrap().unwrap();
        change(&store, id, new_password(), None).await.unwrap();
        let late = begin_session(&store, &here, &login).await;
        assert!(matches!(late, Err(Error::InvalidCredentials)), "{late:?}");

        let login = store.login(&here).await.unwrap().unwrap();
        deactivate(&store, id).await.unwrap();
        let late = begin_session(&store, &here, &login).await;
        assert!(matches!(late, Err(Error::InvalidCredentials)), "{late:?}");
    }
}
