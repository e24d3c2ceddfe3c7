use shared::db::{now, query};
use user_service::error::Error;
use user_service::passwords::Lane;

use crate::harness::{
    attempt, begin_session, count_failure, log_in, long_ago, prune, register, rows, stores,
};

#[actix_web::test]
async fn after_ten_failures_a_client_is_refused_known_address_or_not() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        for email in ["ann@example.com", "nobody@example.com"] {
            for _ in 0..10 {
                store.login(&attempt(email, "here")).await.unwrap();
                count_failure(&store, &attempt(&email.to_uppercase(), "here")).await.unwrap();
            }
            let late = count_failure(&store, &attempt(email, "here")).await;
            assert!(matches!(late, Err(Error::Throttled(1..=900))), "{late:?}");
            let refused = store.login(&attempt(email, "here")).await;
            assert!(matches!(refused, Err(Error::Throttled(1..=900))), "{refused:?}");
            assert!(store.login(&attempt(email, "elsewhere")).await.is_ok());
        }
        // Sixteen minutes later.
        let began = now() - time::Duration::minutes(16);
        query("UPDATE login_failures SET began_at = $1").bind(began).execute(store.db()).await.unwrap();
        assert!(store.login(&attempt("ann@example.com", "here")).await.unwrap().is_some());
    }
}

#[actix_web::test]
async fn attempts_under_way_and_successes_are_not_failures() {
    for store in stores().await {
        let id = register(&store, "ann@example.com").await.unwrap().id;
        let here = attempt("ann@example.com", "here");
        let mut logins = Vec::new();
        for _ in 0..20 {
            logins.push(store.login(&here).await.unwrap().unwrap());
        }
        for login in &logins {
            assert_eq!(login.user.id, id);
            begin_session(&store, &here, login).await.unwrap();
        }
        // But a right password after ten wrong ones comes too late, though its check began before them.
        for _ in 0..10 {
            count_failure(&store, &here).await.unwrap();
        }
        let late = begin_session(&store, &here, &logins[0]).await;
        assert!(matches!(late, Err(Error::Throttled(_))), "{late:?}");
    }
}

#[actix_web::test]
async fn any_text_that_is_sent_as_an_address_is_counted_and_belongs_to_no_user() {
    for store in stores().await {
        for odd in ["", "a\0b@example.com", &"x".repeat(200_000)] {
            assert!(store.login(&attempt(odd, "here")).await.unwrap().is_none());
            count_failure(&store, &attempt(odd, "here")).await.unwrap();
        }
    }
}

#[actix_web::test]
async fn a_success_forgets_the_failures_before() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        let here = attempt("ann@example.com", "here");
        for _ in 0..3 {
            for _ in 0..9 {
                count_failure(&store, &here).await.unwrap();
            }
            log_in(&store, "here").await;
        }
    }
}

#[actix_web::test]
async fn guessing_one_password_from_many_places_is_limited_too() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        for number in 0..100 {
            let guess = attempt("ann@example.com", &format!("place {}", number / 9));
            count_failure(&store, &guess).await.unwrap();
        }
        let refused = store.login(&attempt("ann@example.com", "elsewhere")).await;
        assert!(matches!(refused, Err(Error::Throttled(1..=900))), "{refused:?}");
        assert!(store.login(&attempt("bob@example.com", "elsewhere")).await.is_ok());
    }
}

#[actix_web::test]
async fn trying_many_accounts_from_one_place_is_limited_too_and_a_success_there_does_not_help() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        for number in 0..100 {
            count_failure(&store, &attempt(&format!("{number}@example.com"), "here")).await.unwrap();
            if number == 50 {
                log_in(&store, "here").await;
            }
        }
        let refused = store.login(&attempt("bob@example.com", "here")).await;
        assert!(matches!(refused, Err(Error::Throttled(1..=900))), "{refused:?}");
        assert!(store.login(&attempt("7@example.com", "elsewhere")).await.is_ok());
    }
}

#[actix_web::test]
async fn strangers_do_not_lock_out_the_owner_of_an_account() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        log_in(&store, "home").await;
        let home = attempt("ann@example.com", "home");
        for number in 0..100 {
            let guess = attempt("ann@example.com", &format!("place {number}"));
            count_failure(&store, &guess).await.unwrap();
        }
        let elsewhere = store.login(&attempt("ann@example.com", "elsewhere")).await;
        assert!(matches!(elsewhere, Err(Error::Throttled(_))), "{elsewhere:?}");
        log_in(&store, "home").await;

        // A guess from there counts, too.
        for _ in 0..10 {
            count_failure(&store, &home).await.unwrap();
        }
        let guessed = store.login(&home).await;
        assert!(matches!(guessed, Err(Error::Throttled(_))), "{guessed:?}");
        // Three months later.
        query("DELETE FROM login_failures WHERE client = 'home'").execute(store.db()).await.unwrap();
        long_ago(&store, "known_clients", "seen_at", time::Duration::days(91)).await;
        let forgotten = store.login(&home).await;
        assert!(matches!(forgotten, Err(Error::Throttled(_))), "{forgotten:?}");
    }
}

#[actix_web::test]
async fn a_client_is_new_until_it_logs_in_and_slow_after_a_failure() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        assert_eq!(store.lane("home").await.unwrap(), Lane::New);
        log_in(&store, "home").await;
        assert_eq!(store.lane("home").await.unwrap(), Lane::Known);
        count_failure(&store, &attempt("bob@example.com", "home")).await.unwrap();
        assert_eq!(store.lane("home").await.unwrap(), Lane::Slow);
        assert_eq!(store.lane("elsewhere").await.unwrap(), Lane::New);
    }
}

#[actix_web::test]
async fn the_last_twenty_clients_of_an_account_are_known_and_old_ones_are_pruned() {
    for store in stores().await {
        register(&store, "ann@example.com").await.unwrap();
        for number in 0..25 {
            log_in(&store, &format!("place {number}")).await;
        }
        assert_eq!(rows(&store, "known_clients").await, 20);
        let found = query("SELECT client FROM known_clients WHERE client IN ('place 4', 'place 5')");
        let found = found.fetch_all(store.db()).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].get::<String>("client").unwrap(), "place 5");
        long_ago(&store, "known_clients", "seen_at", time::Duration::days(91)).await;
        prune(&store).await;
        assert_eq!(rows(&store, "known_clients").await, 0);
    }
}
