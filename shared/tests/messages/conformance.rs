//! Conformance tests for every transport, on every database.

use std::cell::Cell;
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use actix_web::http::Method;
use async_trait::async_trait;
use futures_util::future::{join, join_all};
use serde_json::json;
use shared::client::Context;
use shared::db::testing::sqlite_url;
use shared::db::{now, query};
use shared::messages::{Outgoing, Relay, SendError, Transport};

use crate::harness::*;

#[actix_web::test]
async fn the_events_of_a_subject_arrive_in_order_and_once() {
    for Case { sender, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, _relay) = relay(&sender, transport(&receiver.url).await);
        for number in 0..20 {
            for subject in ["a", "b", "c"] {
                put(&sender, &outbox, event("thing.done.v1", subject, number)).await;
            }
        }
        drained(&sender).await;
        for subject in ["a", "b", "c"] {
            assert_eq!(effects(&receives, subject, 20).await, (0..20).collect::<Vec<_>>());
        }
    }
}

#[actix_web::test]
async fn two_relays_cause_one_effect_per_event_in_order() {
    for Case { sender, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (one, _one) = relay(&sender, transport(&receiver.url).await);
        let (two, _two) = relay(&sender, transport(&receiver.url).await);
        for number in 0..30 {
            let outbox = if number % 2 == 0 { &one } else { &two };
            put(&sender, outbox, event("thing.done.v1", "a", number)).await;
        }
        drained(&sender).await;
        assert_eq!(effects(&receives, "a", 30).await, (0..30).collect::<Vec<_>>());
    }
}

#[actix_web::test]
async fn two_replicas_share_the_events_with_one_effect_each_in_order() {
    for Case { sender, receives, transport: way } in cases().await {
        let (one, two) = (receiver(&receives, &way).await, receiver(&receives, &way).await);
        let both = if way == "http://" { format!("{},{}", one.url, two.url) } else { way };
        let (outbox, _relay) = relay(&sender, transport(&both).await);
        let subjects = ["a", "b", "c", "d", "e"];
        for number in 0..12 {
            for subject in subjects {
                put(&sender, &outbox, event("thing.done.v1", subject, number)).await;
            }
        }
        drained(&sender).await;
        for subject in subjects {
            assert_eq!(effects(&receives, subject, 12).await, (0..12).collect::<Vec<_>>());
        }
        let [one, two] = [one, two].map(|replica| replica.handled.load(Ordering::Relaxed));
        assert!(one > 0 && two > 0 && one + two == 60, "{one} and {two}");
    }
}

#[actix_web::test]
async fn a_stopping_replica_finishes_its_events_and_the_other_continues() {
    for Case { sender, receives, transport: way } in cases().await {
        let (one, two) = (receiver(&receives, &way).await, receiver(&receives, &way).await);
        let both = if way == "http://" { format!("{},{}", one.url, two.url) } else { way };
        let (outbox, _relay) = relay(&sender, transport(&both).await);
        for number in 0..60 {
            put(&sender, &outbox, event("thing.done.v1", "a", number)).await;
            if number == 20 {
                let handle = one.handle.clone();
                actix_web::rt::spawn(async move { handle.stop().await });
            }
        }
        drained(&sender).await;
        assert_eq!(effects(&receives, "a", 60).await, (0..60).collect::<Vec<_>>());
    }
}

/// Delivers every event, but reports the first send as failed.
struct LosesFirstAnswer {
    transport: Rc<dyn Transport>,
    tries: Cell<u32>,
}

#[async_trait(?Send)]
impl Transport for LosesFirstAnswer {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        self.tries.set(self.tries.get() + 1);
        self.transport.send(outgoing).await?;
        if self.tries.get() == 1 { Err(SendError::Unavailable("lost".to_owned())) } else { Ok(()) }
    }
}

#[actix_web::test]
async fn a_lost_answer_causes_a_second_delivery_and_one_effect() {
    for Case { sender, receives, transport: way } in cases().await {
        let transport = transport(&receiver(&receives, &way).await.url).await;
        let (outbox, _relay) = relay(&sender, Rc::new(LosesFirstAnswer { transport, tries: Cell::new(0) }));
        put(&sender, &outbox, event("thing.done.v1", "a", 1)).await;
        put(&sender, &outbox, event("thing.done.v1", "a", 2)).await;
        drained(&sender).await;
        assert_eq!(effects(&receives, "a", 2).await, [1, 2]);
    }
}

/// Fails at the first send.
struct FailsOnce {
    transport: Rc<dyn Transport>,
    tries: Cell<u32>,
}

#[async_trait(?Send)]
impl Transport for FailsOnce {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        self.tries.set(self.tries.get() + 1);
        match self.tries.get() {
            1 => Err(SendError::Unavailable("nobody".to_owned())),
            _ => self.transport.send(outgoing).await,
        }
    }
}

#[actix_web::test]
async fn a_delayed_event_is_not_overtaken_by_the_next_event_of_its_subject() {
    for Case { sender, receives, transport: way } in cases().await {
        let transport = transport(&receiver(&receives, &way).await.url).await;
        let (outbox, _relay) = relay(&sender, Rc::new(FailsOnce { transport, tries: Cell::new(0) }));
        for number in 0..3 {
            put(&sender, &outbox, event("thing.done.v1", "a", number)).await;
        }
        drained(&sender).await;
        assert_eq!(effects(&receives, "a", 3).await, [0, 1, 2]);
    }
}

#[actix_web::test]
async fn a_rejected_event_or_a_panic_becomes_a_dead_letter_and_later_events_pass() {
    for Case { sender, receives, transport: way } in cases().await {
        let (outbox, _relay) = relay(&sender, transport(&receiver(&receives, &way).await.url).await);
        put(&sender, &outbox, event("thing.spoilt.v1", "a", 1)).await;
        put(&sender, &outbox, event("thing.deadly.v1", "a", 2)).await;
        put(&sender, &outbox, event("thing.done.v1", "a", 3)).await;
        drained(&sender).await;
        assert_eq!(effects(&receives, "a", 1).await, [3]);
        // Over HTTP the sender stores the dead letter, with NATS the receiver.
        let keeper = if way == "http://" { &sender } else { &receives };
        let kept = ["thing.spoilt.v1", "thing.deadly.v1"];
        assert_eq!(dead_letters(keeper).await, kept.map(|kind| (kind.to_owned(), 1, "receiver".to_owned())));
    }
}

#[actix_web::test]
async fn an_event_of_an_unknown_type_becomes_a_dead_letter_of_the_receiver() {
    for Case { sender, receives, transport: way } in cases().await {
        let (outbox, _relay) = relay(&sender, transport(&receiver(&receives, &way).await.url).await);
        put(&sender, &outbox, event("thing.invented.v9", "a", 1)).await;
        put(&sender, &outbox, event("thing.done.v1", "a", 2)).await;
        assert_eq!(effects(&receives, "a", 1).await, [2]);
        let kept = ("thing.invented.v9".to_owned(), 1, "receiver".to_owned());
        assert_eq!(dead_letters(&receives).await, [kept]);
    }
}

#[actix_web::test]
async fn dead_letters_are_in_the_metrics_of_who_keeps_them() {
    for Case { sender, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, _relay) = relay(&sender, transport(&receiver.url).await);
        receiver.metric("dead_letters", |count| count == 0.0).await;
        let invented = event("thing.invented.v9", "a", 1);
        put(&sender, &outbox, invented.clone()).await;
        receiver.metric("dead_letters", |count| count == 1.0).await;
        receiver.metric("dead_letters_oldest_age_seconds", |age| (1.0..60.0).contains(&age)).await;
        assert_eq!(receiver.discard(invented.id).await, 204);
        receiver.metric("dead_letters", |count| count == 0.0).await;
    }
}

#[actix_web::test]
async fn a_dead_letter_is_listed_and_a_failed_replay_keeps_it() {
    for Case { sender: sends, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, sender) = sender(&sends, transport(&receiver.url).await).await;
        let (spoilt, invented) = (event("thing.spoilt.v1", "a", 1), event("thing.invented.v9", "a", 2));
        put(&sends, &outbox, spoilt.clone()).await;
        put(&sends, &outbox, invented.clone()).await;
        drained(&sends).await;
        for (event, keeper) in
            [(&spoilt, if way == "http://" { &sender } else { &receiver }), (&invented, &receiver)]
        {
            let shown = async || {
                let letters = keeper.dead_letters().await;
                letters.into_iter().find(|letter| letter["id"] == event.id.to_string())
            };
            let letter = eventually("it is shown", shown).await;
            assert_eq!((&letter["type"], &letter["subject"]), (&event.kind.as_str().into(), &"a".into()));
            assert_eq!(letter["attempts"], 1);
            assert!(letter["last_error"].is_string() && letter["at"].is_string(), "{letter}");

            // A sender's dead letter is sent again; a receiver's is handled at once.
            let expected = if std::ptr::eq(keeper, &sender) { 204 } else { 422 };
            assert_eq!(keeper.replay(event.id).await, expected);
            assert_eq!(eventually("it is shown again", shown).await["type"], event.kind);
        }
        assert_eq!(receiver.handled.load(Ordering::Relaxed), 0);
    }
}

#[actix_web::test]
async fn a_dead_letter_is_replayed_once_and_by_a_version_that_can_handle_it() {
    for Case { sender: sends, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, sender) = sender(&sends, transport(&receiver.url).await).await;
        let (spoilt, invented) = (event("thing.spoilt.v1", "a", 1), event("thing.invented.v9", "a", 2));
        put(&sends, &outbox, spoilt.clone()).await;
        put(&sends, &outbox, invented.clone()).await;
        put(&sends, &outbox, event("thing.done.v1", "a", 3)).await;
        assert_eq!(effects(&receives, "a", 1).await, [3]);
        drained(&sends).await;

        receiver.next_version.store(true, Ordering::Relaxed);
        let keeper = if way == "http://" { &sender } else { &receiver };
        for (event, keeper, effects_then) in
            [(&invented, &receiver, vec![3, 2]), (&spoilt, keeper, vec![3, 2, 1])]
        {
            let (one, other) = join(keeper.replay(event.id), keeper.replay(event.id)).await;
            assert_eq!([one.min(other), one.max(other)], [204, 404]);
            assert_eq!(effects(&receives, "a", effects_then.len()).await, effects_then);
        }
        assert_eq!(receiver.replay(invented.id).await, 404);
        assert!(sender.dead_letters().await.is_empty() && receiver.dead_letters().await.is_empty());
        put(&sends, &outbox, event("thing.done.v1", "a", 4)).await;
        assert_eq!(effects(&receives, "a", 4).await, [3, 2, 1, 4]);
    }
}

#[actix_web::test]
async fn a_repeated_replay_with_the_same_key_has_one_effect_and_the_same_answer() {
    for Case { sender: sends, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, _relay) = relay(&sends, transport(&receiver.url).await);
        let invented = event("thing.invented.v9", "a", 1);
        put(&sends, &outbox, invented.clone()).await;
        eventually("it is kept", || async { (dead_letters(&receives).await.len() == 1).then_some(()) }).await;
        receiver.next_version.store(true, Ordering::Relaxed);
        for is_replayed in [false, true] {
            let path = format!("/admin/dead-letters/{}/replay", invented.id);
            let answer = receiver.admin.with_key("one").send(Method::POST, &path, None).await;
            assert_eq!(answer.status, 204);
            assert_eq!(answer.headers.contains_key("idempotency-replayed"), is_replayed);
        }
        assert_eq!(receiver.handled.load(Ordering::Relaxed), 1);
    }
}

#[actix_web::test]
async fn a_discarded_dead_letter_is_deleted_and_others_stay() {
    for Case { sender: sends, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, _relay) = relay(&sends, transport(&receiver.url).await);
        let (one, other) = (event("thing.invented.v9", "a", 1), event("thing.invented.v9", "a", 2));
        put(&sends, &outbox, one.clone()).await;
        put(&sends, &outbox, other.clone()).await;
        put(&sends, &outbox, event("thing.done.v1", "a", 3)).await;
        assert_eq!(effects(&receives, "a", 1).await, [3]);

        receiver.next_version.store(true, Ordering::Relaxed);
        assert_eq!(receiver.discard(one.id).await, 204);
        assert_eq!((receiver.discard(one.id).await, receiver.replay(one.id).await), (404, 404));
        let left: Vec<_> = receiver.dead_letters().await.iter().map(|letter| letter["id"].clone()).collect();
        assert_eq!(left, [other.id.to_string()]);
        assert_eq!(effects(&receives, "a", 1).await, [3]);
    }
}

#[actix_web::test]
async fn the_trace_and_the_attempt_come_with_the_event() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for Case { sender, receives, transport: way } in cases().await {
        let (outbox, _relay) = relay(&sender, transport(&receiver(&receives, &way).await.url).await);
        let context = Context::in_trace(Some(trace.to_owned()));
        put(&sender, &outbox, event("thing.done.v1", "a", 1).within(&context)).await;
        effects(&receives, "a", 1).await;
        let row = query("SELECT traceparent, attempt FROM effects").fetch_one(&receives).await.unwrap();
        assert_eq!(row.get::<String>("traceparent").unwrap(), trace);
        assert_eq!(row.get::<i64>("attempt").unwrap(), 1);
    }
}

#[actix_web::test]
async fn while_the_receiver_is_unreachable_events_wait_and_none_is_lost() {
    for Case { sender, receives, transport: way } in cases().await {
        let unreachable = if way == "http://" { "http://127.0.0.1:9" } else { "nats://127.0.0.1:9" };
        let (outbox, first) = relay(&sender, transport(unreachable).await);
        for number in 0..3 {
            put(&sender, &outbox, event("thing.done.v1", "a", number)).await;
        }
        first.stop();
        let (_outbox, _relay) = relay(&sender, transport(&receiver(&receives, &way).await.url).await);
        assert_eq!(effects(&receives, "a", 3).await, [0, 1, 2]);
        drained(&sender).await;
    }
}

const DATABASE: &str = "MESSAGES_TEST_DATABASE";
const RECEIVER: &str = "MESSAGES_TEST_RECEIVER";

/// Kills the process after a send, before the relay can mark it.
struct KilledAfterSend(Rc<dyn Transport>);

#[async_trait(?Send)]
impl Transport for KilledAfterSend {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        self.0.send(outgoing).await?;
        kill_this_process();
        Ok(())
    }
}

fn kill_this_process() {
    Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().unwrap();
}

/// The program that the two tests below start and kill, not a test.
#[actix_web::test]
async fn program_to_be_killed() {
    let (Ok(database), Ok(url)) = (std::env::var(DATABASE), std::env::var(RECEIVER)) else { return };
    let db = open(&database).await;
    if url.is_empty() {
        // No relay runs: the process is killed between commit and send.
        let (outbox, _relay) = Relay::new(db.clone(), Rc::new(UnavailableTransport), &["receiver"]);
        put(&db, &outbox, event("thing.done.v1", "a", 1)).await;
        kill_this_process();
    } else {
        let (outbox, _relay) = relay(&db, Rc::new(KilledAfterSend(transport(&url).await)));
        put(&db, &outbox, event("thing.done.v1", "a", 1)).await;
        std::future::pending::<()>().await;
    }
}

/// Runs the program above until it is killed; then another relay sends its outbox, after the claim has
/// expired.
async fn killed_then_taken_over(after_send: bool) {
    let killed = cases().await.into_iter().map(async |Case { receives, transport: way, .. }| {
        let (database, receiver) = (sqlite_url(), receiver(&receives, &way).await);
        let send_to = if after_send { receiver.url.as_str() } else { "" };
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--exact", "conformance::program_to_be_killed"]);
        program.env(DATABASE, &database).env(RECEIVER, send_to);
        let killed = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
        assert!(!killed.status.success(), "it was not killed");

        let sender = open(&database).await;
        let (_outbox, _relay) = relay(&sender, transport(&receiver.url).await);
        drained(&sender).await;
        assert_eq!(effects(&receives, "a", 1).await, [1]);
    });
    join_all(killed).await;
}

#[actix_web::test]
async fn a_program_killed_between_commit_and_send_leaves_the_event_to_another_relay() {
    killed_then_taken_over(false).await;
}

#[actix_web::test]
async fn a_program_killed_between_send_and_mark_causes_a_second_delivery_and_one_effect() {
    killed_then_taken_over(true).await;
}

#[actix_web::test]
async fn the_rows_of_a_subject_say_what_became_of_each_event_at_both_ends() {
    for Case { sender: sends, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, sender) = sender(&sends, transport(&receiver.url).await).await;
        let kinds = ["thing.done.v1", "thing.spoilt.v1", "thing.invented.v9"];
        let events = kinds.map(|kind| event(kind, "a", 7));
        for event in &events {
            put(&sends, &outbox, event.clone()).await;
        }
        put(&sends, &outbox, event("thing.done.v1", "b", 1)).await;
        drained(&sends).await;
        eventually("both are kept", || async {
            (dead_letters(&sends).await.len() + dead_letters(&receives).await.len() == 2).then_some(())
        })
        .await;

        let asked = sender.admin.get("/admin/messages?subject=a").await.expect(200);
        let rows = asked["outbox"].as_array().unwrap();
        assert_eq!((rows.len(), &asked["inbox"]), (3, &json!([])), "{asked}");
        // Over HTTP the sender gives up what the handler rejects; NATS has it, and the receiver gives it up.
        let pushes = way == "http://";
        for (row, (event, is_dead)) in rows.iter().zip(events.iter().zip([false, pushes, false])) {
            let known = [&row["id"], &row["type"], &row["subject"], &row["destination"], &row["data"]];
            let wanted =
                [json!(event.id), json!(event.kind), json!("a"), json!("receiver"), json!({ "number": 7 })];
            assert_eq!(known.map(Clone::clone), wanted);
            assert!(row["written_at"].is_string() && row["sent_at"].is_string(), "{row}");
            assert_eq!((&row["is_dead_letter"], &row["next_attempt_at"]), (&json!(is_dead), &json!(null)));
            assert!(row["last_error"].is_string() || !is_dead, "{row}");
        }

        let ids = events.iter().map(|event| event.id.to_string()).collect::<Vec<_>>().join(",");
        let asked = receiver.admin.get(&format!("/admin/messages?ids={ids}")).await.expect(200);
        assert_eq!(asked["outbox"], json!([]));
        let row_of = |id: uuid::Uuid| {
            asked["inbox"].as_array().unwrap().iter().find(|row| row["id"] == json!(id)).cloned()
        };
        for (event, is_dead) in events.iter().zip([false, true, true]) {
            let Some(row) = row_of(event.id) else {
                assert!(pushes && event.kind == "thing.spoilt.v1", "{asked}");
                continue;
            };
            assert_eq!((&row["consumer"], &row["is_dead_letter"]), (&json!("receiver"), &json!(is_dead)));
            assert!(row["handled_at"].is_string(), "{row}");
            assert_eq!(row["last_error"].is_string(), is_dead, "{row}");
        }
        let discarded = json!(events[2].id);
        let deleted = receiver.admin.delete(&format!("/admin/dead-letters/{}", events[2].id)).await;
        assert_eq!(deleted.status, 204);
        let asked = receiver.admin.get(&format!("/admin/messages?ids={ids}")).await.expect(200);
        for row in asked["inbox"].as_array().unwrap() {
            assert_eq!(row["is_discarded"], json!(row["id"] == discarded), "{row}");
        }
        receiver.admin.get("/admin/messages?ids=7").await.expect_problem(400, "invalid_parameter");
        let many = vec![uuid::Uuid::nil().to_string(); 101].join(",");
        receiver
            .admin
            .get(&format!("/admin/messages?ids={many}"))
            .await
            .expect_problem(400, "invalid_parameter");
    }
}

#[actix_web::test]
async fn an_unsent_event_is_listed_with_its_next_attempt_and_its_last_error() {
    let sends = open(&sqlite_url()).await;
    let (outbox, sender) = sender(&sends, Rc::new(UnavailableTransport)).await;
    put(&sends, &outbox, event("thing.done.v1", "a", 1)).await;
    let row = eventually("an attempt has failed", || async {
        let asked = sender.admin.get("/admin/messages?subject=a").await.expect(200);
        Some(asked["outbox"][0].clone()).filter(|row| !row["last_error"].is_null())
    })
    .await;
    assert!(row["next_attempt_at"].is_string(), "{row}");
    assert_eq!((&row["sent_at"], &row["failures"]), (&json!(null), &json!(0)), "no failure at the receiver");
    assert_eq!(row["last_error"], "unavailable: nowhere");
}

#[actix_web::test]
async fn a_dead_letter_is_replayed_or_discarded_only_soon_after_a_login_and_leaves_its_trace() {
    for Case { sender: sends, receives, transport: way } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let (outbox, _relay) = relay(&sends, transport(&receiver.url).await);
        let [one, other] = [1, 2].map(|number| event("thing.invented.v9", "a", number));
        for event in [&one, &other] {
            put(&sends, &outbox, event.clone()).await;
        }
        eventually("they are kept", || async { (dead_letters(&receives).await.len() == 2).then_some(()) })
            .await;
        receiver.next_version.store(true, Ordering::Relaxed);

        let old = receiver.admin.with_token(KEYS.user_token_of_old_login(ADMIN, &["admin"]));
        let replay = format!("/admin/dead-letters/{}/replay", one.id);
        let discard = format!("/admin/dead-letters/{}", other.id);
        old.send(Method::POST, &replay, None).await.expect_problem(403, "recent_login_required");
        old.delete(&discard).await.expect_problem(403, "recent_login_required");
        assert_eq!(old.get("/admin/audit").await.expect(200)["acts"], json!([]));

        let admin = receiver.admin.with("x-request-id", "a-request");
        assert_eq!(admin.send(Method::POST, &replay, None).await.status, 204);
        assert_eq!(admin.send(Method::POST, &replay, None).await.status, 404);
        assert_eq!(admin.delete(&discard).await.status, 204);
        let page = admin.get("/admin/audit?limit=1").await.expect(200);
        let next = format!("/admin/audit?cursor={}", page["next_cursor"].as_str().unwrap());
        let rest = admin.get(&next).await.expect(200);
        assert_eq!((rest["acts"].as_array().map(Vec::len), &rest["next_cursor"]), (Some(1), &json!(null)));
        for (act, action, event) in [
            (&page["acts"][0], "dead_letter.discard", &other),
            (&rest["acts"][0], "dead_letter.replay", &one),
        ] {
            assert_eq!((&act["action"], &act["subject_id"]), (&json!(action), &json!(event.id)));
            assert_eq!((&act["admin_id"], &act["request_id"]), (&json!(ADMIN), &json!("a-request")));
            let details =
                json!({ "destination": "receiver", "source": "sender", "type": event.kind, "subject": "a" });
            assert_eq!(act["details"], details);
        }
        for statement in ["UPDATE admin_acts SET action = ''", "DELETE FROM admin_acts"] {
            assert!(query(statement).execute(&receives).await.is_err(), "{statement}");
        }
    }
}

#[actix_web::test]
async fn a_dead_letter_that_its_source_may_not_send_is_not_replayed() {
    for Case { receives, transport: way, .. } in cases().await {
        let receiver = receiver(&receives, &way).await;
        let mut stranger = event("thing.done.v1", "a", 1);
        stranger.source = "another".to_owned();
        query(
            "INSERT INTO dead_letters (id, destination, type, subject, event, attempts, last_error, at) \
             VALUES ($1, 'receiver', $2, 'a', $3, 1, 'may not send this', $4)",
        )
        .bind(stranger.id)
        .bind(stranger.kind.as_str())
        .bind(stranger.to_json())
        .bind(now())
        .execute(&receives)
        .await
        .unwrap();
        let path = format!("/admin/dead-letters/{}/replay", stranger.id);
        let refused = receiver.admin.send(Method::POST, &path, None).await;
        refused.expect_problem(403, "forbidden");
        let why = refused.body["detail"].as_str().unwrap();
        assert!(why.contains("another send thing.done.v1"), "{why}");
        assert_eq!(receiver.dead_letters().await.len(), 1);
        assert_eq!(receiver.begun.load(Ordering::Relaxed), 0);
        assert_eq!(receiver.admin.get("/admin/audit").await.expect(200)["acts"], json!([]));
    }
}
