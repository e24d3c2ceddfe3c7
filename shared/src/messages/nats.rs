//! The transport by NATS JetStream: a broker keeps the events until the receiver has handled them.
//!
//! ```text
//! relay ──► stream (subject STREAM.<service>.<partition>) ──► consumer <service>-<partition> ──► inbox
//!       ◄── ack, then the row is marked                   ◄── ack, after the commit
//! ```
//!
//! | promise | kept by |
//! |---|---|
//! | nothing is lost | the relay goes on until the stream has acknowledged; the stream until the receiver has |
//! | the effect happens once | the inbox; the stream also drops what it got twice within two minutes |
//! | the events of a subject are handled in order | a subject has one partition, a partition one consumer, a consumer one event at a time, whatever replica has it |
//! | the receiver's replicas share the work | they fetch from the same durable consumers |
//! | what cannot be handled stops nobody | a dead letter of the receiver's, after the tries of `nats/consumer.rs` |
//!
//! A dead letter that is replayed comes after its subject's next events: receivers guard their state,
//! not the order alone.
//!
//! While the broker is away the outbox grows, and drains when it is back; the service is degraded, not
//! down. Who may send is the broker's to decide, by its users: service tokens are for HTTP.

mod consumer; // the receiving end

pub use async_nats::ConnectError;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, CreateStreamError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectOptions, Event as ConnectionEvent};
use futures_util::future::{FutureExt as _, LocalBoxFuture};
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use url::Url;

use super::http::CLOUD_EVENT;
use super::{Outgoing, SendError, Transport, outbox, prune};
use crate::config::Secret;
use crate::resilience::Backoff;

/// Subjects are spread over so many consumers of a service, which work side by side. The number must
/// not shrink while events wait.
const PARTITIONS: u8 = 16;
/// For an answer of the broker; shorter than a claim of the relay.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Two of these without an answer, and the connection counts as lost.
const PING: Duration = Duration::from_secs(5);
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(2) };
/// A stream that holds so many events takes no more: the outbox does.
const MOST_EVENTS: i64 = 1_000_000;
const DUPLICATES: Duration = Duration::from_secs(120);
/// The stream of a URL that names none.
const STREAM: &str = "messages";

/// Where a NATS server is, and the stream to use there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsUrl {
    /// `host:port`.
    pub(super) address: String,
    /// User and password.
    pub(super) login: Option<(String, Secret)>,
    /// The name of the stream, with which every subject begins.
    pub(super) stream: String,
}

impl NatsUrl {
    /// `nats://[user:password@]host:port[/stream]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok().filter(|url| url.scheme() == "nats")?;
        let address = format!("{}:{}", url.host_str().filter(|host| !host.is_empty())?, url.port()?);
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(String::from);
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) => Some((decoded(user)?, Secret::new(decoded(password)?))),
            _ => return None,
        };
        let stream = match url.path().trim_start_matches('/') {
            "" => STREAM,
            stream if stream.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) => stream,
            _ => return None,
        };
        let more = url.query().is_some() || url.fragment().is_some();
        (!more).then(|| Self { address, login, stream: stream.to_owned() })
    }
}

/// A NATS server. Clones share one connection.
#[derive(Clone)]
pub struct Nats {
    jetstream: Context,
    stream: String,
    /// Whether there is a connection; each new one is announced.
    connected: watch::Receiver<bool>,
    retry: Backoff,
}

impl Nats {
    /// A server that is connected to in the background, again and again until it is there.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub async fn connect(url: &NatsUrl) -> Result<Self, ConnectError> {
        let (announce, connected) = watch::channel(false);
        let announce = Arc::new(announce);
        let mut options = ConnectOptions::new()
            .retry_on_initial_connect()
            .ping_interval(PING)
            .reconnect_delay_callback(|attempts| RECONNECT.delay(attempts.try_into().unwrap_or(u32::MAX)))
            .event_callback(move |change| {
                let announce = announce.clone();
                async move { heard(&announce, &change) }
            });
        if let Some((user, password)) = &url.login {
            options = options.user_and_password(user.clone(), password.expose().to_owned());
        }
        let client = options.connect(&url.address).await?;
        let jetstream = ContextBuilder::new().timeout(TIMEOUT).build(client);
        Ok(Self { jetstream, stream: url.stream.clone(), connected, retry: outbox::RETRY })
    }

    /// Tries again after `retry` what failed at the receiver, for tests that will not wait longer.
    pub fn retrying(self, retry: Backoff) -> Self {
        Self { retry, ..self }
    }

    /// Whether the stream can be used now, or what keeps it from that.
    pub(super) async fn ping(&self) -> Result<(), String> {
        self.is_connected()?;
        self.jetstream.get_stream(&self.stream).await.map(drop).map_err(|error| error.to_string())
    }

    fn is_connected(&self) -> Result<(), String> {
        if *self.connected.borrow() { Ok(()) } else { Err("NATS is away".to_owned()) }
    }

    /// The stream, which is made if it is missing. One that somebody else made stays as it is.
    async fn stream(&self) -> Result<Stream, CreateStreamError> {
        let config = Config {
            name: self.stream.clone(),
            subjects: vec![format!("{}.>", self.stream)],
            // What is acknowledged is gone.
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            // An event must not outlive the inbox's memory of it.
            max_age: prune::SEEN.unsigned_abs(),
            max_messages: MOST_EVENTS,
            discard: DiscardPolicy::New,
            duplicate_window: DUPLICATES,
            ..Config::default()
        };
        self.jetstream.get_or_create_stream(config).await
    }

    fn subject(&self, service: &str, partition: u8) -> String {
        format!("{}.{service}.{partition}", self.stream)
    }

    async fn publish(&self, outgoing: &Outgoing) -> Result<(), jetstream::context::PublishError> {
        let Outgoing { destination, event, .. } = outgoing;
        let message = PublishMessage::build()
            .message_id(event.id.to_string())
            .header("content-type", CLOUD_EVENT)
            .payload(event.to_json().to_string().into());
        let subject = self.subject(destination, partition(&event.subject));
        self.jetstream.send_publish(subject, message).await?.await?;
        Ok(())
    }

    async fn deliver(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        // The client would keep what it cannot send; the outbox does that better.
        self.is_connected().map_err(SendError::Unavailable)?;
        let mut result = self.publish(outgoing).await;
        if result.as_ref().is_err_and(|error| error.kind() == PublishErrorKind::StreamNotFound) {
            self.stream().await.map_err(|error| SendError::Unavailable(error.to_string()))?;
            result = self.publish(outgoing).await;
        }
        result.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => SendError::Rejected(error.to_string()),
            _ => SendError::Unavailable(error.to_string()),
        })
    }
}

impl Transport for Nats {
    fn send<'a>(&'a self, outgoing: &'a Outgoing) -> LocalBoxFuture<'a, Result<(), SendError>> {
        self.deliver(outgoing).boxed_local()
    }

    fn broker(&self) -> Option<Nats> {
        Some(self.clone())
    }
}

fn heard(announce: &watch::Sender<bool>, change: &ConnectionEvent) {
    match change {
        ConnectionEvent::Connected => {
            log::info!("connected to NATS");
            announce.send_replace(true);
        }
        ConnectionEvent::Disconnected | ConnectionEvent::Closed => {
            log::warn!("the connection to NATS is lost");
            announce.send_replace(false);
        }
        other => log::warn!(event = other.to_string(); "NATS"),
    }
}

/// The same for a subject in every version of this program.
fn partition(subject: &str) -> u8 {
    Sha256::digest(subject)[0] % PARTITIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_keeps_its_partition_for_ever_and_subjects_are_spread() {
        assert_eq!(["", "a", "b"].map(partition), [3, 10, 14]);
        let used: std::collections::BTreeSet<_> = (0..500).map(|n| partition(&n.to_string())).collect();
        assert_eq!(used.len(), usize::from(PARTITIONS));
    }
}
