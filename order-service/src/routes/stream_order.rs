//! `GET /api/orders/{id}/events`: the changes of an order's status as server-sent events.
//!
//! The id of an event is the order's version. A client that reconnects sends the last id as `Last-Event-ID`. It gets
//! all later events from any replica, because they are read from the timeline in the database. A stream ends when the
//! replica drains, when the token expires, or after 15 minutes. Then its client reconnects, with a valid token.

use std::time::{Duration, SystemTime};

use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::Stream;
use futures_util::stream::try_unfold;
use shared::auth::Caller;
use shared::request::PathId;
use shared::stop::Stop;
use tokio::time::Instant;

use super::show_order::visible;
use crate::domain::Order;
use crate::error::Error;
use crate::store::{Store, Subscription, TimelineEntry};
use crate::views::OrderView;

/// How often a silent stream sends a comment, so that no proxy closes it as idle.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The maximum duration of a stream. A stream may outlive its client's session, but not for longer than this.
const MAX_LIFE: Duration = Duration::from_secs(15 * 60);
/// The first line of every stream: the client's pause before it reconnects, in milliseconds.
const RETRY: &str = "retry: 2000\n";
const SILENT_RETRY: &str = "retry: 2000\n\n";

#[utoipa::path(get, path = "/api/orders/{id}/events", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path), ("Last-Event-ID" = Option<String>, Header)),
    responses(
        (status = 200, content_type = "text/event-stream", body = String,
            description = "`event: order.<status>`, `data:` the order; ends at a final status, with the token, and after 15 minutes"),
        (status = 404, description = "`not_found`"),
    ))]
pub(crate) async fn stream_order(
    request: HttpRequest,
    caller: Caller,
    id: PathId,
    store: Data<Store>,
    stop: Data<Stop>,
) -> Result<HttpResponse, Error> {
    let order = visible(&store, id, &caller).await?;
    let subscription = store.notifier().subscribe(&order);
    let seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let stop = stop.get_ref().clone();
    let events = Events {
        store: store.get_ref().clone(),
        subscription,
        order,
        seen: seen.unwrap_or(0),
        is_new: true,
        ended: false,
        quiet_since: Instant::now(),
        end: Instant::now() + life(caller.remaining(SystemTime::now())),
        stop,
    };
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, "text/event-stream")).insert_header((CACHE_CONTROL, "no-store"));
    // The client of a HEAD request does not read a stream.
    Ok(if request.method() == Method::HEAD { response.finish() } else { response.streaming(events.stream()) })
}

/// The events of one order after version `seen`.
struct Events {
    store: Store,
    subscription: Subscription,
    order: Order,
    seen: i64,
    /// Whether nothing has been sent yet.
    is_new: bool,
    ended: bool,
    quiet_since: Instant,
    /// The time when the stream ends, even if the order's status is not final.
    end: Instant,
    stop: Stop,
}

/// The maximum duration of a stream whose token expires after `token`.
fn life(token: Option<Duration>) -> Duration {
    token.map_or(MAX_LIFE, |token| token.min(MAX_LIFE))
}

impl Events {
    fn stream(self) -> impl Stream<Item = Result<Bytes, Error>> {
        try_unfold(self, |mut events| async move { Ok(events.next().await?.map(|text| (text, events))) })
    }

    /// The next part of the stream; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.ended && !self.stop.is_requested() && Instant::now() < self.end {
            let mut text = self.read().await?;
            if std::mem::take(&mut self.is_new) && !self.ended {
                text.insert_str(0, if text.is_empty() { SILENT_RETRY } else { RETRY });
            }
            if !text.is_empty() {
                self.quiet_since = Instant::now();
                return Ok(Some(text.into()));
            }
            if self.ended {
                break;
            }
            tokio::select! {
                _ = self.subscription.changed() => {}
                () = self.stop.requested() => {}
                () = tokio::time::sleep_until(self.end) => {}
                () = tokio::time::sleep_until(self.quiet_since + KEEP_ALIVE) => {
                    self.quiet_since = Instant::now();
                    return Ok(Some(Bytes::from_static(b": still here\n\n")));
                }
            }
        }
        Ok(None)
    }

    /// The changes of status after `seen`, as text.
    async fn read(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        for change in self.store.changes_after(self.order.id, self.seen).await? {
            self.seen = change.version;
            self.ended |= change.to.is_final();
            // A step of the saga may leave the status unchanged. It is in the timeline, but is not an event.
            if change.from.as_deref() != Some(change.to.as_str()) {
                text.push_str(&event(&self.order, &change));
            }
        }
        // An earlier stream may have sent the final status.
        self.ended |= self.order.status().is_final();
        Ok(text)
    }
}

/// One event, with the order as it was after the change.
fn event(order: &Order, change: &TimelineEntry) -> String {
    let order = order.as_of(change.to, change.version, change.at);
    let data = serde_json::to_string(&OrderView::from(&order)).unwrap_or_else(|error| {
        log::error!(error:%; "an order cannot be written as JSON");
        "null".to_owned()
    });
    format!("id: {}\nevent: order.{}\ndata: {data}\n\n", change.version, change.to.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_lives_a_quarter_of_an_hour_at_most_and_no_longer_than_its_token() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(life(None), minutes(15));
        assert_eq!(life(Some(minutes(60))), minutes(15));
        assert_eq!(life(Some(minutes(5))), minutes(5));
    }
}
