//! The senders whose events a receiver accepts over HTTP.

use shared::db::testing::sqlite_url;
use shared::testing::Api;

use crate::harness::*;

#[actix_web::test]
async fn a_service_cannot_push_an_event_of_another_source() {
    let receiver = receiver(&open(&sqlite_url()).await, "http://").await;
    let push = async |caller: &str, source: &str, kind: &str| {
        let mut pushed = event(kind, "a", 1);
        pushed.source = source.to_owned();
        let api = Api::at(&receiver.url).with_token(KEYS.service_token(caller, "receiver", None));
        api.post("/messages", pushed.to_json()).await.status
    };
    assert_eq!(push("sender", "another", "thing.found.v1").await, 403);
    assert_eq!(push("sender", "sender", "thing.found.v1").await, 403);
    assert_eq!(push("another", "sender", "thing.done.v1").await, 403);
    assert_eq!(push("sender", "sender", "thing.done.v1").await, 204);
    // Kept as a dead letter, since the receiver does not know the type.
    assert_eq!(push("another", "another", "thing.found.v1").await, 204);
}
