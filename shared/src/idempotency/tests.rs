//! Tests of idempotency keys on every database. Each claim comes from another replica, unless a test says
//! otherwise.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use actix_web::ResponseError as _;
use actix_web::body::to_bytes;
use actix_web::http::header::{HeaderMap, RETRY_AFTER};
use actix_web::test::TestRequest;
use actix_web::web::Bytes;
use async_trait::async_trait;
use futures_util::future::{FutureExt as _, LocalBoxFuture, join, join_all};
use futures_util::poll;
use tokio::sync::Notify;

use super::*;
use crate::db::{DbConfig, Migrations, testing};

fn claim(key: &str, body: &str) -> Claim {
    claim_of(None, TestRequest::post().uri("/api/things"), key, body)
}

fn claim_of(caller: Option<Uuid>, request: TestRequest, key: &str, body: &str) -> Claim {
    let request = request.insert_header((HEADER, key)).to_http_request();
    let key = IdempotencyKey::extract(&request).into_inner().unwrap();
    key.required().unwrap().claim(caller, body.as_bytes()).unwrap()
}

/// A database that parses JSON would change this text.
#[derive(Serialize)]
struct Made {
    size: f64,
    colours: [&'static str; 3],
    age: Option<i64>,
}

fn answer() -> StoredResponse {
    let made = Made { size: 1.0, colours: ["é", "\0", "\\"], age: None };
    StoredResponse::json(StatusCode::CREATED, &made).header(crate::request::etag(1))
}

/// New databases, each opened by two replicas.
async fn pairs() -> Vec<[Db; 2]> {
    let mut pairs = Vec::new();
    for url in testing::urls().await {
        let config = DbConfig::at(&url);
        let pair = [open(&config).await, open(&config).await];
        query("CREATE TABLE effects (key text)").execute(&pair[0]).await.unwrap();
        pairs.push(pair);
    }
    pairs
}

async fn databases() -> Vec<Db> {
    pairs().await.into_iter().map(|[db, _]| db).collect()
}

async fn open(config: &DbConfig) -> Db {
    Db::open(config, Migrations::none()).await.unwrap()
}

async fn happen(db: &Db, claim: Claim) -> Result<StoredResponse, Problem> {
    let done = claim.once(db, |()| answer(), take_effect).await;
    done.map(Outcome::into_stored).map_err(|Failed(problem)| problem)
}

async fn take_effect(tx: &mut Tx) -> Result<(), Failed> {
    query("INSERT INTO effects VALUES ('done')").execute(tx).await?;
    Ok(())
}

async fn effects(db: &Db) -> i64 {
    let counted = query("SELECT COUNT(*) AS effects FROM effects").fetch_one(db).await.unwrap();
    counted.get("effects").unwrap()
}

async fn sent(answer: &StoredResponse) -> (StatusCode, HeaderMap, Bytes) {
    let response = answer.response();
    let (status, headers) = (response.status(), response.headers().clone());
    (status, headers, to_bytes(response.into_body()).await.unwrap())
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(Problem);

impl From<DbError> for Failed {
    fn from(error: DbError) -> Self {
        Self(error.problem())
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

#[actix_web::test]
async fn a_repeated_request_has_one_effect_and_its_answer_is_replayed_byte_for_byte() {
    for db in databases().await {
        let (status, headers, body) = sent(&happen(&db, claim("k", "{}")).await.unwrap()).await;
        let (again, mut replayed, bytes) = sent(&happen(&db, claim("k", "{}")).await.unwrap()).await;
        assert_eq!((again, bytes), (status, body));
        assert_eq!(replayed.remove("idempotency-replayed").next().unwrap(), "true");
        let all =
            |headers: &HeaderMap| headers.iter().map(|header| format!("{header:?}")).collect::<BTreeSet<_>>();
        assert_eq!(all(&replayed), all(&headers));
        assert_eq!(effects(&db).await, 1);
    }
}

#[actix_web::test]
async fn a_key_is_valid_for_one_body_only() {
    for db in databases().await {
        happen(&db, claim("k", "{}")).await.unwrap();
        let refused = happen(&db, claim("k", "{ }")).await.unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.code()), (422, "idempotency_key_reused"));
        assert_eq!(effects(&db).await, 1);
    }
}

#[actix_web::test]
async fn the_key_of_another_caller_method_or_path_is_another_key() {
    let things = || TestRequest::post().uri("/api/things");
    for db in databases().await {
        happen(&db, claim_of(None, things(), "k", "{}")).await.unwrap();
        for other in [
            claim_of(Some(Uuid::now_v7()), things(), "k", "{}"),
            claim_of(Some(Uuid::now_v7()), things(), "k", "{ }"),
            claim_of(None, TestRequest::put().uri("/api/things"), "k", "{ }"),
            claim_of(None, TestRequest::post().uri("/api/things/7"), "k", "{ }"),
            claim_of(None, things(), "K", "{ }"),
        ] {
            let named = format!("{other:?}");
            assert!(!happen(&db, other).await.unwrap().is_replayed(), "{named}");
        }
        assert_eq!(effects(&db).await, 6);
    }
}

#[actix_web::test]
async fn a_refusal_leaves_no_effect_and_the_key_free() {
    for db in databases().await {
        let refused = claim("k", "{}");
        let refusal = refused.once(
            &db,
            |()| answer(),
            async |tx| {
                take_effect(tx).await?;
                Err(Failed(Problem::not_found()))
            },
        );
        assert_eq!(refusal.await.unwrap_err().0.code(), "not_found");
        assert_eq!(effects(&db).await, 0);
        assert!(!happen(&db, claim("k", "other")).await.unwrap().is_replayed());
    }
}

#[actix_web::test]
async fn an_answer_is_kept_for_a_day_and_then_the_key_is_free() {
    let end_in = async |db: &Db, time: Duration| {
        let end = query("UPDATE idempotency_keys SET expires_at = $1").bind(db.now() + time);
        end.execute(db).await.unwrap();
    };
    for db in databases().await {
        let before = db.now();
        happen(&db, claim("k", "{}")).await.unwrap();
        let row = query("SELECT expires_at FROM idempotency_keys").fetch_one(&db).await.unwrap();
        let day = row.get::<time::OffsetDateTime>("expires_at").unwrap() - before;
        assert!((Duration::hours(24)..Duration::hours(25)).contains(&day), "{day}");

        end_in(&db, Duration::minutes(1)).await;
        assert!(happen(&db, claim("k", "{}")).await.unwrap().is_replayed());
        end_in(&db, -Duration::seconds(1)).await;
        assert!(!happen(&db, claim("k", "other")).await.unwrap().is_replayed());
        assert!(happen(&db, claim("k", "other")).await.unwrap().is_replayed(), "kept for another day");
        assert_eq!(effects(&db).await, 2);
    }
}

#[actix_web::test]
async fn concurrent_duplicates_on_two_replicas_have_one_effect() {
    for replicas in pairs().await {
        let many = (0..8).map(|number| {
            let db = &replicas[number % 2];
            async move { happen(db, claim("k", "{}")).await.unwrap() }
        });
        let answers = join_all(many).await;
        assert_eq!(answers.iter().filter(|answer| !answer.is_replayed()).count(), 1);
        assert!(answers.iter().all(|one| one.body == answers[0].body));
        assert_eq!(effects(&replicas[0]).await, 1);
    }
}

#[actix_web::test]
async fn after_a_refused_request_a_concurrent_duplicate_is_executed() {
    for [one, other] in pairs().await {
        let (claimed, asked) = (Notify::new(), Notify::new());
        let first_claim = claim("k", "{}");
        let first = first_claim.once(
            &one,
            |()| answer(),
            async |tx| {
                take_effect(tx).await?;
                claimed.notify_one();
                asked.notified().await;
                Err(Failed(Problem::not_found()))
            },
        );
        let second = async {
            claimed.notified().await;
            asked.notify_one();
            happen(&other, claim("k", "{}")).await
        };
        let (refused, done) = join(first, second).await;
        assert!(refused.is_err() && !done.unwrap().is_replayed());
        assert_eq!(effects(&one).await, 1);
    }
}

/// What the request of a [`Thing`] does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    Succeed,
    FailBeforeEffect,
    FailInDatabase,
    /// After its effect.
    FailInEffect,
    Panic,
}

#[derive(Default)]
struct Things {
    /// Transactions with an effect.
    count: Arc<AtomicUsize>,
    /// Notified in the effect, which then waits for the other one.
    reached: Option<(Arc<Notify>, Arc<Notify>)>,
}

#[async_trait(?Send)]
impl Operation for Things {
    type Request = Does;
    type Plan = Does;
    type Error = Failed;

    async fn plan(&self, tx: &mut Tx, requests: &[&Does]) -> Plans<Self> {
        if requests.contains(&&Does::FailInDatabase) {
            query("SELECT key FROM nowhere").fetch_all(tx).await?;
        }
        let value = |does: &&Does| match does {
            Does::FailBeforeEffect => Err(Failed(Problem::not_found())),
            other => Ok(**other),
        };
        Ok(requests.iter().map(value).collect())
    }

    fn response(&self, _: &Does) -> StoredResponse {
        answer()
    }

    async fn apply(&self, tx: &mut Tx, requests: &[(&Does, &Does)]) -> Result<(), Failed> {
        let stored = query("SELECT key FROM idempotency_keys WHERE answer IS NOT NULL");
        assert!(stored.fetch_optional(&mut *tx).await?.is_some(), "before the effect");
        self.count.fetch_add(1, Ordering::SeqCst);
        if let Some((reached, go_on)) = &self.reached {
            reached.notify_one();
            go_on.notified().await;
        }
        let rows = vec!["('done')"; requests.len()].join(", ");
        query(format!("INSERT INTO effects VALUES {rows}")).execute(tx).await?;
        for (does, _) in requests {
            match does {
                Does::FailInEffect => return Err(Failed(Problem::not_found())),
                Does::Panic => panic!("as the test asks"),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The request of [`happen`], with the answer known before the effect.
async fn happen_in(
    things: &GroupCommit<Things>,
    claim: Claim,
    does: Does,
) -> Result<StoredResponse, Problem> {
    let done = things.once(claim, does).await;
    done.map(Outcome::into_stored).map_err(|Failed(problem)| problem)
}

async fn groups() -> Vec<(Db, GroupCommit<Things>)> {
    let group = |db: Db| (db.clone(), GroupCommit::new(db, Things::default()));
    databases().await.into_iter().map(group).collect()
}

#[actix_web::test]
async fn an_answer_that_is_known_before_the_effect_is_stored_by_the_claim_and_replayed() {
    for (db, things) in groups().await {
        let first = sent(&happen_in(&things, claim("k", "{}"), Does::Succeed).await.unwrap()).await;
        let replayed = happen_in(&things, claim("k", "{}"), Does::FailBeforeEffect).await.unwrap();
        assert!(replayed.is_replayed());
        assert_eq!(sent(&replayed).await.2, first.2);
        let replayed = things.replay_or(claim("k", "{}"), Failed(Problem::not_found())).await.unwrap();
        assert!(replayed.into_stored().is_replayed());
        let refused = happen_in(&things, claim("k", "other"), Does::FailBeforeEffect).await.unwrap_err();
        assert_eq!(refused.code(), "idempotency_key_reused");
        assert_eq!(effects(&db).await, 1);
    }
}

#[actix_web::test]
async fn a_database_error_before_the_claim_is_the_error_of_the_request() {
    for (_, things) in groups().await {
        let problem = happen_in(&things, claim("k", "{}"), Does::FailInDatabase).await.unwrap_err();
        let missing = problem.cause().unwrap_or_default().to_owned();
        assert!(missing.contains("nowhere"), "{missing}");
    }
}

#[actix_web::test]
async fn an_error_before_or_in_the_effect_leaves_the_key_free_and_stores_no_answer() {
    for (db, things) in groups().await {
        for does in [Does::FailBeforeEffect, Does::FailInEffect] {
            let refused = happen_in(&things, claim("k", "{}"), does).await.unwrap_err();
            assert_eq!(refused.code(), "not_found");
        }
        let refused = things.replay_or(claim("k", "{}"), Failed(Problem::internal())).await.unwrap_err();
        assert_eq!(refused.0.code(), Problem::internal().code());
        assert_eq!(effects(&db).await, 0);
        assert!(!happen_in(&things, claim("k", "other"), Does::Succeed).await.unwrap().is_replayed());
    }
}

#[actix_web::test]
async fn sixty_four_requests_that_arrive_together_take_fewer_than_twenty_transactions_with_one_effect_each() {
    for db in databases().await {
        let count = Arc::new(AtomicUsize::new(0));
        let things = GroupCommit::new(db.clone(), Things { count: count.clone(), ..Things::default() });
        let requests =
            (0..64).map(|number| happen_in(&things, claim(&number.to_string(), "{}"), Does::Succeed));
        for response in join_all(requests).await {
            assert!(!response.unwrap().is_replayed());
        }
        let transactions = count.load(Ordering::SeqCst);
        assert!((1..20).contains(&transactions), "{}: {transactions}", db.kind());
        assert_eq!(effects(&db).await, 64);
        let again = (0..64).map(|number| happen_in(&things, claim(&number.to_string(), "{}"), Does::Succeed));
        assert!(join_all(again).await.into_iter().all(|response| response.unwrap().is_replayed()));
        assert_eq!(effects(&db).await, 64);
    }
}

#[actix_web::test]
async fn a_request_that_fails_or_is_repeated_does_not_fail_those_that_share_its_transaction() {
    for does in [Does::FailBeforeEffect, Does::FailInDatabase, Does::FailInEffect, Does::Panic] {
        for (db, things) in groups().await {
            happen_in(&things, claim("old", "{}"), Does::Succeed).await.unwrap();
            let bad = happen_in(&things, claim("bad", "{}"), does);
            let repeated = happen_in(&things, claim("old", "{}"), Does::Succeed);
            let reused = happen_in(&things, claim("old", "{ }"), Does::Succeed);
            let good = |key| happen_in(&things, claim(key, "{}"), Does::Succeed);
            let requests: [LocalBoxFuture<'_, _>; 6] = [
                good("1").boxed_local(),
                good("2").boxed_local(),
                bad.boxed_local(),
                repeated.boxed_local(),
                reused.boxed_local(),
                good("3").boxed_local(),
            ];
            let responses = join_all(requests).await;
            let [one, two, bad, repeated, reused, three] = responses.try_into().unwrap();
            for done in [one, two, three] {
                assert!(!done.unwrap().is_replayed(), "{does:?}");
            }
            let status = match does {
                Does::FailBeforeEffect | Does::FailInEffect => 404,
                _ => 500,
            };
            assert_eq!(bad.unwrap_err().status().as_u16(), status, "{does:?}");
            assert!(repeated.unwrap().is_replayed());
            assert_eq!(reused.unwrap_err().code(), "idempotency_key_reused");
            assert_eq!(effects(&db).await, 4, "{does:?}");
        }
    }
}

#[actix_web::test]
async fn a_request_whose_client_leaves_before_its_batch_does_not_run_and_one_whose_client_leaves_later_does()
{
    for db in databases().await {
        let (running, reached, go_on) = (Arc::new(Running::default()), Arc::default(), Arc::default());
        let things =
            Things { reached: Some((Arc::clone(&reached), Arc::clone(&go_on))), ..Things::default() };
        let things = GroupCommit::new(db.clone(), things);
        let once = |name: &str| {
            let key = Some(name.to_owned());
            let key = IdempotencyKey { key, target: "POST /api/things".to_owned(), running: running.clone() };
            happen_in(&things, key.claim(None, b"").unwrap(), Does::Succeed)
        };
        let mut taking_effect = Box::pin(once("1"));
        tokio::select! {
            _ = &mut taking_effect => panic!("it waits in its effect"),
            () = Notify::notified(&reached) => {}
        }
        let mut waiting = Box::pin(once("2"));
        assert!(poll!(&mut waiting).is_pending());
        drop((taking_effect, waiting));
        Notify::notify_one(&go_on);
        let repeated =
            crate::testing::eventually("the key is free", std::time::Duration::from_secs(10), async || {
                (!running.0.lock().unwrap().iter().any(|(_, key)| key == "1")).then_some(())
            });
        repeated.await;
        assert!(once("1").await.unwrap().is_replayed());
        let second = once("2");
        Notify::notify_one(&go_on);
        assert!(!second.await.unwrap().is_replayed());
        assert_eq!(effects(&db).await, 2);
    }
}

#[actix_web::test]
async fn in_a_batch_an_expired_key_is_free_and_of_two_equal_keys_only_one_is() {
    for db in databases().await {
        let things = GroupCommit::new(db.clone(), Things::default());
        happen_in(&things, claim("old", "{}"), Does::Succeed).await.unwrap();
        query("UPDATE idempotency_keys SET expires_at = $1").bind(db.now()).execute(&db).await.unwrap();
        let request = |key| happen_in(&things, claim(key, "{}"), Does::Succeed);
        let responses = join_all([request("old"), request("same"), request("same"), request("new")]).await;
        let replayed = responses.into_iter().filter(|response| response.as_ref().unwrap().is_replayed());
        assert_eq!(replayed.count(), 1, "{}", db.kind());
        assert_eq!(effects(&db).await, 4);
    }
}

#[actix_web::test]
async fn a_request_that_another_replica_is_processing_does_not_fail_those_that_share_its_transaction() {
    // SQLite locks the whole database.
    let Some(url) = testing::postgres_url().await else { return };
    let busy = open(&DbConfig::at(&url)).await;
    query("CREATE TABLE effects (key text)").execute(&busy).await.unwrap();
    let soon = std::time::Duration::from_secs(1);
    let impatient = open(&DbConfig { acquire_timeout: soon, ..DbConfig::at(&url) }).await;
    let things = GroupCommit::new(impatient, Things::default());
    let mut tx = busy.begin().await.unwrap();
    assert_eq!(claim("busy", "{}").begin(&mut tx, None).await.unwrap(), Claimed::First);
    let request = |key| happen_in(&things, claim(key, "{}"), Does::Succeed);
    let (free, refused) = join(request("free"), request("busy")).await;
    assert!(!free.unwrap().is_replayed());
    assert_eq!(refused.unwrap_err().code(), "idempotency_in_progress");
}

#[actix_web::test]
async fn without_the_database_the_requests_of_a_batch_wait_only_once() {
    let Some(url) = testing::postgres_url().await else { return };
    let gate = crate::testing::Gate::before(&url).await;
    let wait = std::time::Duration::from_secs(2);
    let db = open(&DbConfig { acquire_timeout: wait, ..DbConfig::at(&gate.url(&url)) }).await;
    let things = GroupCommit::new(db, Things::default());
    gate.stall();
    let begun = Instant::now();
    let keys = ["1", "2", "3"];
    for failed in join_all(keys.map(|key| happen_in(&things, claim(key, "{}"), Does::Succeed))).await {
        assert_eq!(failed.unwrap_err().status().as_u16(), 503);
    }
    assert!(begun.elapsed() < wait * 7 / 4, "after {:?}", begun.elapsed());
}

/// Dropping the future simulates a crash.
#[actix_web::test]
async fn a_crash_between_the_claim_and_the_commit_leaves_no_effect_and_the_key_free() {
    for db in databases().await {
        let (crashing, reached) = (claim("k", "{}"), Notify::new());
        let request = crashing.once(
            &db,
            |()| answer(),
            async |tx| {
                take_effect(tx).await?;
                reached.notify_one();
                std::future::pending::<Result<(), Failed>>().await
            },
        );
        tokio::select! {
            done = request => panic!("it ended: {done:?}"),
            () = reached.notified() => {}
        }
        let (mut tx, crashing) = (db.begin().await.unwrap(), claim("k", "{}"));
        assert_eq!(crashing.begin(&mut tx, None).await.unwrap(), Claimed::First);
        crashing.save(&mut tx, &answer()).await.unwrap();
        drop(tx);

        assert_eq!(effects(&db).await, 0);
        assert!(!happen(&db, claim("k", "{}")).await.unwrap().is_replayed());
        assert_eq!(effects(&db).await, 1);
    }
}

#[actix_web::test]
async fn a_request_that_another_replica_is_processing_is_refused_with_retry_after() {
    for url in testing::urls().await {
        let busy = open(&DbConfig::at(&url)).await;
        let soon = std::time::Duration::from_millis(200);
        let impatient = open(&DbConfig { acquire_timeout: soon, ..DbConfig::at(&url) }).await;
        let mut tx = busy.begin().await.unwrap();
        assert_eq!(claim("k", "{}").begin(&mut tx, None).await.unwrap(), Claimed::First);

        let refused = happen(&impatient, claim("k", "{}")).await.unwrap_err();
        // SQLite locks the whole database, and does not report which row.
        let expected =
            if busy.kind() == "sqlite" { (503, "unavailable") } else { (409, "idempotency_in_progress") };
        assert_eq!((refused.status().as_u16(), refused.code()), expected);
        assert_eq!(refused.error_response().headers().get(RETRY_AFTER).unwrap(), "1");
    }
}

#[test]
fn a_key_that_is_in_use_in_this_process_is_refused_until_its_request_ends() {
    let running = Arc::new(Running::default());
    let key = || IdempotencyKey {
        key: Some("k".to_owned()),
        target: "POST /api/things".to_owned(),
        running: running.clone(),
    };
    let first = key().claim(None, b"").unwrap();
    let refused = key().claim(None, b"").unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.code()), (409, "idempotency_in_progress"));
    assert_eq!(refused.error_response().headers().get(RETRY_AFTER).unwrap(), "1");
    assert!(key().claim(Some(Uuid::now_v7()), b"").is_ok(), "another caller's key is another key");
    drop(first);
    assert!(key().claim(None, b"").is_ok());
}

#[test]
fn a_key_of_other_characters_or_length_is_refused() {
    for bad in [String::new(), "a b".to_owned(), "é".to_owned(), "k".repeat(256)] {
        let request = TestRequest::post().insert_header((HEADER, bad)).to_http_request();
        assert_eq!(IdempotencyKey::extract(&request).into_inner().unwrap_err().status(), 400);
    }
}
