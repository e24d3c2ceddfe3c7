//! `GET /api/orders/{id}/events`: an order's statuses as they change (server-sent events).
//!
//! An event's id is the order's version. Whoever loses the connection sends it back as
//! `Last-Event-ID` and misses nothing, on any replica: the events are read from the timeline, not from
//! the memory of whoever made the change. A drain ends every stream, so that its client goes on
//! elsewhere.

use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::Stream;
use futures_util::stream::unfold;
use shared::auth::Caller;
use shared::request::PathId;
use shared::stop::Stop;
use tokio::time::Instant;

use super::show_order::visible;
use crate::domain::Order;
use crate::error::Error;
use crate::store::{Store, Subscription, TimelineEntry};
use crate::views::OrderView;

/// A silent stream says something so often, lest somebody between takes it for dead.
const COMMENT: Duration = Duration::from_secs(15);

#[utoipa::path(get, path = "/api/orders/{id}/events", tag = "orders", security(("user" = [])),
    params(("id" = uuid::Uuid, Path), ("Last-Event-ID" = Option<String>, Header)),
    responses(
        (status = 200, content_type = "text/event-stream", body = String,
            description = "`event: order.<status>`, `data:` the order; ends at a final status"),
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
        ended: false,
        quiet_since: Instant::now(),
        stop,
    };
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_TYPE, "text/event-stream")).insert_header((CACHE_CONTROL, "no-store"));
    // Nobody reads the stream after a HEAD, which would keep the connection busy until the order's end.
    Ok(if request.method() == Method::HEAD { response.finish() } else { response.streaming(events.stream()) })
}

/// The events of one order, from `seen` on.
struct Events {
    store: Store,
    subscription: Subscription,
    order: Order,
    seen: i64,
    ended: bool,
    quiet_since: Instant,
    stop: Stop,
}

impl Events {
    fn stream(self) -> impl Stream<Item = Result<Bytes, Error>> {
        unfold(self, |mut events| async move {
            let item = events.next().await?;
            Some((item, events))
        })
    }

    /// What to send next; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        while !self.ended && !self.stop.is_requested() {
            match self.news().await {
                Ok(text) if !text.is_empty() => {
                    self.quiet_since = Instant::now();
                    return Some(Ok(text.into()));
                }
                Ok(_) => {}
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                _ = self.subscription.changed() => {}
                () = self.stop.requested() => {}
                () = tokio::time::sleep_until(self.quiet_since + COMMENT) => {
                    self.quiet_since = Instant::now();
                    return Some(Ok(Bytes::from_static(b": still here\n\n")));
                }
            }
        }
        None
    }

    /// The changes of status since the last look, as text.
    async fn news(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        for change in self.store.changes_after(self.order.id, self.seen).await? {
            self.seen = change.version;
            self.ended |= change.to.is_final();
            // Steps of the saga that change no status are for the timeline only.
            if change.from.as_deref() != Some(change.to.as_str()) {
                text.push_str(&event(&self.order, &change));
            }
        }
        // The end may have been seen in an earlier stream.
        self.ended |= self.order.status().is_final();
        Ok(text)
    }
}

/// One event: the order as of the change.
fn event(order: &Order, change: &TimelineEntry) -> String {
    let order = order.as_of(change.to, change.version, change.at);
    let data = serde_json::to_string(&OrderView::from(&order)).unwrap_or_else(|error| {
        log::error!(error:%; "an order cannot be written as JSON");
        "null".to_owned()
    });
    format!("id: {}\nevent: order.{}\ndata: {data}\n\n", change.version, change.to.as_str())
}
