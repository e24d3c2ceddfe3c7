//! Commands that come twice, out of order, too late, or while the card network is away.

use std::time::Duration;

use actix_web::HttpResponse;
use futures_util::future::join;
use payment_service::config::Timing;
use payment_service::domain::Timeouts;
use serde_json::json;
use shared::resilience::Backoff;
use shared::service::{HttpConfig, Service, resource};

use crate::harness::{Ordered, Setup, TRACE, World, authorize_command, command, eventually, worlds};

/// The usual timing, only faster.
fn soon() -> Timing {
    Timing {
        request_timeout: Duration::from_millis(500),
        lease: Duration::from_secs(2),
        poll: Duration::from_millis(50),
        backoff: Backoff { first: Duration::from_millis(50), longest: Duration::from_millis(200) },
        timeouts: Timeouts { authorize: Duration::from_secs(1), others: Duration::from_secs(1) },
    }
}

#[actix_web::test]
async fn a_message_that_comes_again_has_one_effect_and_no_second_answer() {
    for world in worlds().await {
        let ordered = Ordered::new();
        let message = authorize_command(&ordered, "tok_visa");
        for _ in 0..2 {
            let (one, other) = join(world.deliver(&message), world.deliver(&message)).await;
            assert_eq!((one.status, other.status), (204, 204));
            world.event(&ordered, "payment.authorized.v1").await;
        }
        world.capture(&ordered).await;
        // Answers of one order stay in order: there was none between these.
        world.event(&ordered, "payment.captured.v2").await;
        let events: Vec<_> =
            world.others.events(ordered.order_id).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(events, ["payment.authorized.v1", "payment.captured.v2"]);
        assert_eq!(world.statement(&ordered).await.len(), 1);
    }
}

#[actix_web::test]
async fn a_command_that_is_sent_again_is_answered_again_and_charges_nothing() {
    for world in worlds().await {
        let ordered = world.captured().await;
        world.authorize(&ordered, "tok_visa").await;
        world.capture(&ordered).await;
        eventually("both are answered", async || {
            let events = world.others.events(ordered.order_id);
            (events.iter().filter(|(kind, _)| kind == "payment.captured.v2").count() == 3).then_some(())
        })
        .await;
        assert_eq!(world.statement(&ordered).await[0]["times_captured"], 1);
    }
}

#[actix_web::test]
async fn a_void_that_comes_before_its_authorization_wins() {
    for world in worlds().await {
        let ordered = Ordered::new();
        world.void(&ordered).await;
        world.event(&ordered, "payment.voided.v1").await;
        world.authorize(&ordered, "tok_visa").await;
        assert_eq!(world.payment(&ordered).await["status"], "voided");
        assert!(world.statement(&ordered).await.is_empty());
    }
}

#[actix_web::test]
async fn a_void_during_a_pending_authorization_ends_voided_and_holds_no_money() {
    for world in worlds().await {
        let ordered = Ordered::new();
        world.authorize(&ordered, "tok_slow").await;
        eventually("the card network has been asked", async || {
            (!world.statement(&ordered).await.is_empty()).then_some(())
        })
        .await;
        world.void(&ordered).await;
        world.event(&ordered, "payment.voided.v1").await;
        assert_eq!(world.statement(&ordered).await[0]["voided"], true);
        assert_eq!(world.payment(&ordered).await["status"], "voided");
    }
}

#[actix_web::test]
async fn a_void_that_loses_to_the_capture_is_told_that_the_money_was_taken() {
    for world in worlds().await {
        let ordered = world.captured().await;
        world.void(&ordered).await;
        eventually("the void is answered", async || {
            let events = world.others.events(ordered.order_id);
            (events.iter().filter(|(kind, _)| kind == "payment.captured.v2").count() == 2).then_some(())
        })
        .await;
        world.refund_rest(&ordered).await;
        world.event(&ordered, "payment.refunded.v1").await;
        assert_eq!(world.payment(&ordered).await["status"], "refunded");
        world.ledger().await;
    }
}

#[actix_web::test]
async fn an_authorization_is_declined_when_the_card_network_is_away_for_too_long() {
    // Nobody listens there: the port is reserved.
    let setup =
        Setup { timing: soon(), card_network_url: Some("http://127.0.0.1:1".to_owned()), ..Setup::default() };
    let world = World::with(setup).await;
    let ordered = Ordered::new();
    world.authorize(&ordered, "tok_visa").await;
    assert_eq!(world.event(&ordered, "payment.declined.v1").await["code"], "payment_unavailable");
    let payment = world.payment(&ordered).await;
    assert_eq!(
        (&payment["status"], &payment["decline_code"]),
        (&json!("declined"), &json!("payment_unavailable"))
    );
}

#[actix_web::test]
async fn a_capture_that_takes_too_long_is_reported_as_stuck_and_its_late_success_sends_its_event() {
    let timing = Timing {
        // The five failures of this card take longer than that.
        backoff: Backoff { first: Duration::from_millis(400), longest: Duration::from_millis(800) },
        timeouts: Timeouts { others: Duration::ZERO, ..soon().timeouts },
        ..soon()
    };
    let world = World::with(Setup { timing, ..Setup::default() }).await;
    let ordered = Ordered::new();
    world.authorize(&ordered, "tok_capture_flaky").await;
    world.event(&ordered, "payment.authorized.v1").await;
    world.capture(&ordered).await;
    let stuck = world.event(&ordered, "payment.stuck.v1").await;
    assert_eq!((&stuck["operation"], &stuck["reason"]), (&json!("capture"), &json!("capture_unanswered")));
    world.event(&ordered, "payment.captured.v2").await;
    let events: Vec<_> = world.others.events(ordered.order_id).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(events, ["payment.authorized.v1", "payment.stuck.v1", "payment.captured.v2"]);
}

#[actix_web::test]
async fn a_malformed_response_of_the_card_network_is_ignored_and_the_request_retried() {
    let nonsense = Service::bind("card-network", HttpConfig::for_tests())
        .unwrap()
        .configure(|app| {
            let say = || async { HttpResponse::Ok().json(json!({ "status": "paid, I guess" })) };
            app.service(resource("/authorizations").post(say));
        })
        .build()
        .unwrap();
    let url = format!("http://{}", nonsense.address());
    actix_web::rt::spawn(nonsense.run());
    let world = World::with(Setup { timing: soon(), card_network_url: Some(url), ..Setup::default() }).await;
    let ordered = Ordered::new();
    world.authorize(&ordered, "tok_visa").await;
    assert_eq!(world.event(&ordered, "payment.declined.v1").await["code"], "payment_unavailable");
}

#[actix_web::test]
async fn an_impossible_command_is_rejected_and_an_unknown_message_becomes_a_dead_letter() {
    for world in worlds().await {
        let ordered = Ordered::new();
        let capture = command(&ordered, "payment.capture.v1", json!({ "payment_id": ordered.payment_id }));
        world.deliver(&capture).await.expect_problem(422, "message_rejected");
        let bad = command(&ordered, "payment.authorize.v1", json!({ "payment_id": "x" }));
        world.deliver(&bad).await.expect_problem(422, "message_rejected");
        let not_in_the_table = command(&ordered, "payment.dance.v1", json!({}));
        world.deliver(&not_in_the_table).await.expect_problem(403, "forbidden");
        world.deliver(&command(&ordered, "payment.refund.v9", json!({}))).await.expect(204);
        let kept = world.as_admin().get("/admin/dead-letters").await.expect(200);
        assert_eq!(kept["dead_letters"][0]["type"], "payment.refund.v9");
    }
}

#[actix_web::test]
async fn the_trace_of_a_command_goes_on_in_its_answer() {
    let world = World::start().await;
    let ordered = Ordered::new();
    world.authorize(&ordered, "tok_visa").await;
    let event = world.others.event(ordered.order_id, "payment.authorized.v1").await;
    let trace = |text: &str| text.split('-').nth(1).unwrap().to_owned();
    assert_eq!(trace(event["traceparent"].as_str().unwrap()), trace(TRACE));
    assert_eq!(event["source"], "payment-service");
    assert_eq!(event["data"]["payment_id"], json!(ordered.payment_id));
}
