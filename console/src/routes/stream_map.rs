//! `GET /api/live`: the map every two seconds, as server-sent events.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{Bytes, Data};
use futures_util::Stream;
use futures_util::stream::unfold;
use shared::client::Context;
use shared::stop::Stop;

use super::operator::Operator;
use crate::clients::admin::Asker;
use crate::clients::overview::Overview;
use crate::clients::sessions::Sessions;
use crate::error::Error;

const INTERVAL: Duration = Duration::from_secs(2);
const RETRY: &str = "retry: 2000\n";
/// After it the page has to ask for the password.
const OVER: &str = "event: session\ndata: {}\n\n";

#[utoipa::path(get, path = "/api/live", tag = "map",
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(crate) async fn stream_map(
    operator: Operator,
    overview: Data<Overview>,
    sessions: Data<Sessions>,
    stop: Data<Stop>,
) -> HttpResponse {
    let stop = stop.get_ref().clone();
    let events = Events { overview, sessions, stop, key: operator.key, next: Next::First };
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .streaming(events.stream())
}

struct Events {
    overview: Data<Overview>,
    sessions: Data<Sessions>,
    stop: Stop,
    key: String,
    next: Next,
}

#[derive(PartialEq, Eq)]
enum Next {
    First,
    More,
    End,
}

impl Events {
    fn stream(self) -> impl Stream<Item = Result<Bytes, Error>> {
        unfold(self, |mut events| async move { events.read().await.map(|text| (Ok(text.into()), events)) })
    }

    /// The next event; `None` at the end of the stream.
    async fn read(&mut self) -> Option<String> {
        if self.next == Next::More {
            self.stop.sleep(INTERVAL).await;
        }
        if self.next == Next::End || self.stop.is_requested() {
            return None;
        }
        let retry = if self.next == Next::First { RETRY } else { "" };
        // The calls of a stream belong to no request, whose deadline would pass.
        let context = Context::background();
        match self.sessions.find(&self.key, &context).await {
            Ok((_, token)) => {
                self.next = Next::More;
                let map = self.overview.map(&Asker { token, context }).await;
                let data = serde_json::to_string(&*map).unwrap_or_default();
                Some(format!("{retry}event: map\ndata: {data}\n\n"))
            }
            Err(Error::SessionOver) => {
                self.next = Next::End;
                Some(format!("{retry}{OVER}"))
            }
            // The token could not be refreshed now.
            Err(_) => {
                self.next = Next::More;
                Some(format!("{retry}: later\n\n"))
            }
        }
    }
}
