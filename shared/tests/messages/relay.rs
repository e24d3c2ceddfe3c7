//! How a relay treats the result of a send, also after its claim has expired.

use std::rc::Rc;

use actix_web::http::StatusCode;
use actix_web::{App, HttpResponse, HttpServer, web};
use async_trait::async_trait;
use serde_json::Value;
use shared::db::testing::databases;
use shared::db::{now, query};
use shared::messages::{Outgoing, Relay, SendError, Transport};
use shared::stop::Stop;
use time::Duration;
use tokio::sync::Notify;

use crate::harness::*;

/// Signals `begun`, waits for `reject`, and then rejects the event.
struct RejectsOnSignal {
    begun: Notify,
    reject: Stop,
}

#[async_trait(?Send)]
impl Transport for RejectsOnSignal {
    async fn send(&self, _: &Outgoing) -> Result<(), SendError> {
        self.begun.notify_one();
        self.reject.requested().await;
        Err(SendError::Rejected("no".to_owned()))
    }
}

#[actix_web::test]
async fn a_relay_whose_claim_has_expired_makes_no_dead_letter() {
    for db in databases().await {
        let (rejecter, reject) = Stop::pair();
        let transport = Rc::new(RejectsOnSignal { begun: Notify::new(), reject });
        let (outbox, paused) = Relay::new(db.clone(), transport.clone());
        let (stopper, stop) = Stop::pair();
        let paused = actix_web::rt::spawn(paused.run(stop));
        put(&db, &outbox, event("thing.done.v1", "a", 1)).await;
        transport.begun.notified().await;
        // Like another relay after the claim has expired.
        let claim = query("UPDATE outbox SET claimed_by = 'another', next_at = $1");
        claim.bind(now() + Duration::MINUTE).execute(&db).await.unwrap();

        stopper.stop();
        rejecter.stop();
        paused.await.unwrap();
        assert!(dead_letters(&db).await.is_empty());
        let unsent = query("SELECT claimed_by FROM outbox WHERE sent_at IS NULL").fetch_one(&db).await;
        assert_eq!(unsent.unwrap().get::<String>("claimed_by").unwrap(), "another");
    }
}

#[actix_web::test]
async fn only_a_refusal_by_the_receiver_itself_is_a_rejection() {
    let receiver = HttpServer::new(|| {
        App::new().default_service(web::to(|event: web::Bytes| async move {
            let event: Value = serde_json::from_slice(&event).unwrap();
            let status = event["subject"].as_str().unwrap().parse().unwrap();
            HttpResponse::build(StatusCode::from_u16(status).unwrap()).finish()
        }))
    });
    let receiver = receiver.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let transport = transport(&format!("http://{}", receiver.addrs()[0])).await;
    actix_web::rt::spawn(receiver.run());
    let outcome = async |status: &str| {
        let event = event("thing.done.v1", status, 1);
        let destination = "receiver".to_owned();
        transport.send(&Outgoing { seq: 1, destination, attempts: 0, claimed_until: now(), event }).await
    };
    assert!(outcome("204").await.is_ok());
    for refused in ["400", "413", "422"] {
        assert!(matches!(outcome(refused).await, Err(SendError::Rejected(_))), "{refused}");
    }
    // The response may come from a proxy.
    for failed in ["405", "408", "500"] {
        assert!(matches!(outcome(failed).await, Err(SendError::Failed(_))), "{failed}");
    }
    // Other keys, another clock, another version, or another program at the receiver's address.
    for passing in ["401", "403", "404", "409", "429", "502", "503", "504"] {
        assert!(matches!(outcome(passing).await, Err(SendError::Unavailable(_))), "{passing}");
    }
}
