//! Transport over NATS JetStream: the broker stores events until the receiver has handled them.
//!
//! ```text
//! relay ──► stream (subject STREAM.<service>.<partition>) ──► consumer <service>-<partition> ──► inbox
//!       ◄── ack, then the row is marked as sent           ◄── ack, after the commit
//! ```
//!
//! | guarantee | mechanism |
//! |---|---|
//! | no event is lost | the relay retries until the stream acknowledges; the stream redelivers until the receiver acknowledges |
//! | one effect per event | the receiver's inbox; the stream also drops duplicates within two minutes |
//! | order per subject | a subject maps to one partition, a partition to one consumer, and a consumer delivers one event at a time |
//! | replicas share the work | they pull from the same durable consumers |
//! | a bad event blocks its partition for a limited time | it becomes a dead letter of the receiver, after ten failures (`nats/consumer.rs`) |
//!
//! A replayed dead letter arrives after later events of its subject. So receivers must check their own
//! state, and not rely on the order alone.
//!
//! While the broker is unavailable the outbox grows and the service reports `degraded`. The broker's own
//! users and passwords decide who may send; service tokens are used over HTTP only.

mod consumer; // receives
mod failures; // counted by the database

pub use async_nats::ConnectError;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, CreateStreamError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectOptions, Event as ConnectionEvent};
use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use percent_encoding::percent_decode_str;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use url::Url;

use super::http::CLOUD_EVENT;
use super::waiting::{Stored, Waiting};
use super::{Outgoing, SendError, Transport, outbox, prune};
use crate::auth::Calls;
use crate::config::Secret;
use crate::db::now;
use crate::resilience::Backoff;
use crate::trace::{Current, Traceparent};

/// Consumers per receiving service. They work in parallel; each handles the subjects of one partition. The
/// number must not shrink while events are stored.
const PARTITIONS: u8 = 16;
/// The time limit for a response of the broker; shorter than the relay's [`LEASE`](outbox::LEASE).
const TIMEOUT: Duration = Duration::from_secs(2);
/// After two pings without a response the connection counts as lost.
const PING: Duration = Duration::from_secs(5);
const RECONNECT: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(2) };
/// A full stream refuses events; they then wait in the outbox.
const MAX_EVENTS: i64 = 1_000_000;
/// The stream drops a second copy of an event within this time.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
const DEFAULT_STREAM: &str = "messages";

/// A parsed `nats://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsUrl {
    /// `host:port`.
    pub(super) address: String,
    /// User and password.
    pub(super) login: Option<(String, Secret)>,
    /// Name of the stream, and first token of every subject.
    pub(super) stream: String,
}

impl NatsUrl {
    /// Parses `nats://[user:password@]host:port[/stream]`.
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
            "" => DEFAULT_STREAM,
            stream if stream.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) => stream,
            _ => return None,
        };
        let more = url.query().is_some() || url.fragment().is_some();
        (!more).then(|| Self { address, login, stream: stream.to_owned() })
    }
}

/// A connection to a NATS server, shared by clones.
#[derive(Clone)]
pub struct Nats {
    jetstream: Context,
    stream: String,
    /// Changes with each connect and disconnect.
    connected: watch::Receiver<bool>,
    retry: Backoff,
    /// The table of calls: which service may send which events.
    calls: Calls,
}

impl Nats {
    /// Connects in the background, and reconnects without limit. Fails only if the URL cannot be used.
    pub async fn connect(url: &NatsUrl, calls: Calls) -> Result<Self, ConnectError> {
        let (connection_state, connected) = watch::channel(false);
        let connection_state = Arc::new(connection_state);
        let mut options = ConnectOptions::new()
            .retry_on_initial_connect()
            .ping_interval(PING)
            .reconnect_delay_callback(|attempts| RECONNECT.delay(attempts.try_into().unwrap_or(u32::MAX)))
            .event_callback(move |change| {
                let connection_state = connection_state.clone();
                async move { connection_changed(&connection_state, &change) }
            });
        if let Some((user, password)) = &url.login {
            // The broker lets each user read only its own replies.
            let inbox = format!("_INBOX_{user}");
            options = options
                .user_and_password(user.clone(), password.expose().to_owned())
                .custom_inbox_prefix(inbox);
        }
        let client = options.connect(&url.address).await?;
        let jetstream = ContextBuilder::new().timeout(TIMEOUT).build(client);
        Ok(Self { jetstream, stream: url.stream.clone(), connected, retry: outbox::RETRY, calls })
    }

    /// Replaces the backoff between redeliveries of failed events.
    #[cfg(any(test, feature = "testing"))]
    pub fn retrying(self, retry: Backoff) -> Self {
        Self { retry, ..self }
    }

    /// Checks that the stream can be used now.
    pub(super) async fn ping(&self) -> Result<(), String> {
        self.is_connected()?;
        self.jetstream.get_stream(&self.stream).await.map(drop).map_err(|error| error.to_string())
    }

    /// The events that the stream stores for `service`; it deletes handled events. The age is that of the oldest event
    /// of all services, or 0 if `service` has no events. The exact age is unknown, because a service may not read the
    /// times of single events.
    pub(super) async fn stored_for(&self, service: &str) -> Result<Stored, String> {
        self.is_connected()?;
        let all = self.subject(service, "*");
        let stream = self.jetstream.get_stream(&self.stream).await.map_err(|error| error.to_string())?;
        let max_age =
            Some(stream.cached_info().config.max_age).filter(|age| !age.is_zero()).unwrap_or(Duration::MAX);
        let subjects = stream.info_with_subjects(&all).await.map_err(|error| error.to_string())?;
        let counts: Vec<(String, usize)> = subjects.try_collect().await.map_err(|error| error.to_string())?;
        let count: i64 = counts.iter().map(|(_, count)| *count as i64).sum();
        let oldest = stream.cached_info().state.first_timestamp;
        let age = if count == 0 { Duration::ZERO } else { (now() - oldest).try_into().unwrap_or_default() };
        let oldest_age_s = age.as_secs().try_into().unwrap_or(i64::MAX);
        Ok(Stored { waiting: Waiting { count, oldest_age_s }, expires_in: max_age.saturating_sub(age) })
    }

    fn is_connected(&self) -> Result<(), String> {
        if *self.connected.borrow() { Ok(()) } else { Err("NATS is away".to_owned()) }
    }

    /// Creates the stream if it is missing. An existing stream keeps its configuration.
    async fn stream(&self) -> Result<Stream, CreateStreamError> {
        let config = Config {
            name: self.stream.clone(),
            subjects: vec![format!("{}.>", self.stream)],
            // Acknowledged events are deleted.
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            // An event must not be stored longer than the inbox remembers its id.
            max_age: prune::INBOX_RETENTION.unsigned_abs(),
            max_messages: MAX_EVENTS,
            discard: DiscardPolicy::New,
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        };
        self.jetstream.get_or_create_stream(config).await
    }

    fn subject(&self, service: &str, partition: impl Display) -> String {
        format!("{}.{service}.{partition}", self.stream)
    }

    async fn publish(&self, outgoing: &Outgoing) -> Result<(), jetstream::context::PublishError> {
        let Outgoing { destination, event, .. } = outgoing;
        let mut message = PublishMessage::build()
            .message_id(event.id.to_string())
            .header("content-type", CLOUD_EVENT)
            .payload(serde_json::to_vec(event).unwrap_or_default().into());
        // This header names the span of the send. The event itself names the span in which it was written.
        if let Some(span) = Current::span() {
            message = message.header("traceparent", Traceparent::of(&span).as_str());
        }
        let subject = self.subject(destination, partition(&event.subject));
        self.jetstream.send_publish(subject, message).await?.await?;
        Ok(())
    }
}

#[async_trait(?Send)]
impl Transport for Nats {
    async fn send(&self, outgoing: &Outgoing) -> Result<(), SendError> {
        // Without a connection the client would buffer the event in memory. The event is safer in the outbox.
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

    fn broker(&self) -> Option<Nats> {
        Some(self.clone())
    }
}

fn connection_changed(connection_state: &watch::Sender<bool>, change: &ConnectionEvent) {
    match change {
        ConnectionEvent::Connected => {
            log::info!("connected to NATS");
            connection_state.send_replace(true);
        }
        ConnectionEvent::Disconnected | ConnectionEvent::Closed => {
            log::warn!("the connection to NATS is lost");
            connection_state.send_replace(false);
        }
        other => log::warn!(state = other.to_string(); "the state of the NATS connection changed"),
    }
}

/// The result for a subject must never change. Otherwise, events of two versions of a program would lose their order.
fn partition(subject: &str) -> u8 {
    Sha256::digest(subject)[0] % PARTITIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_never_changes_its_partition_and_subjects_are_spread() {
        assert_eq!(["", "a", "b"].map(partition), [3, 10, 14]);
        let used: std::collections::BTreeSet<_> = (0..500).map(|n| partition(&n.to_string())).collect();
        assert_eq!(used.len(), usize::from(PARTITIONS));
    }
}
