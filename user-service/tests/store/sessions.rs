use futures_util::future::join;
use user_service::error::Error;
use user_service::store::Refreshed;

use crate::harness::{
    attempt, begin_session, change, deactivate, log_in, new_password, refresh, register, stores,
};

#[actix_web::test]
async fn a_refresh_token_is_good_once_and_its_reuse_ends_the_session() {
    for store in stores().await {
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let begun = log_in(&store, "here", "one").await;
        let Refreshed::Renewed { session, user } = refresh(&store, "one", "two").await.unwrap() else {
            panic!("it was used for the first time")
        };
        assert_eq!((session, user.id), (begun, id));
        assert!(matches!(refresh(&store, "never", "x").await, Err(Error::InvalidToken)));
        assert!(matches!(refresh(&store, "one", "three").await, Ok(Refreshed::Reused)));
        let newest = refresh(&store, "two", "four").await;
        assert!(matches!(newest, Err(Error::InvalidToken)), "the family is revoked");
    }
}

#[actix_web::test]
async fn of_two_refreshes_at_once_one_wins() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        log_in(&store, "here", "one").await;
        let (a, b) = join(refresh(&store, "one", "a"), refresh(&store, "one", "b")).await;
        let renewed = [&a, &b].iter().filter(|each| matches!(each, Ok(Refreshed::Renewed { .. }))).count();
        assert_eq!(renewed, 1, "{a:?} {b:?}");
    }
}

#[actix_web::test]
async fn a_new_password_ends_every_session_but_the_one_it_was_set_in() {
    for store in stores().await {
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let mine = log_in(&store, "here", "mine").await;
        log_in(&store, "there", "other").await;
        change(&store, id, new_password(), Some(mine)).await.unwrap();
        assert!(matches!(refresh(&store, "mine", "mine2").await, Ok(Refreshed::Renewed { .. })));
        assert!(matches!(refresh(&store, "other", "other2").await, Err(Error::InvalidToken)));
    }
}

#[actix_web::test]
async fn a_login_fails_if_the_password_changes_or_the_user_is_deactivated_while_it_is_checked() {
    for store in stores().await {
        let here = attempt("ann@example.com", "here");
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let login = store.login(&here).await.unwrap().unwrap();
        change(&store, id, new_password(), None).await.unwrap();
        let late = begin_session(&store, &here, &login, "one").await;
        assert!(matches!(late, Err(Error::InvalidCredentials)), "{late:?}");

        let login = store.login(&here).await.unwrap().unwrap();
        deactivate(&store, id).await.unwrap();
        let late = begin_session(&store, &here, &login, "two").await;
        assert!(matches!(late, Err(Error::InvalidCredentials)), "{late:?}");
    }
}
