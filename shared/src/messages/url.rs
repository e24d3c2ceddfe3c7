//! `MESSAGES_URL` chooses the transport.

use std::rc::Rc;

use super::{ConnectError, HttpTransport, Nats, NatsUrl, Outbox, Relay, Transport};
use crate::config::{Variable, Vars};
use crate::db::Db;
use crate::platform::Platform;

/// The transport, by the URL's scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessagesUrl {
    /// Pushes events to a healthy replica of the receiver.
    Http,
    /// Publishes events to NATS JetStream.
    Nats(NatsUrl),
}

impl MessagesUrl {
    /// Reads `MESSAGES_URL`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        vars.or(
            "MESSAGES_URL",
            "http://",
            "what carries messages: http://, or nats://[user:password@]host:port[/stream]",
        )
    }

    /// An outbox in `db`, and the relay that sends its events to `receivers`. Fails if the URL cannot be used. A
    /// broker that does not respond is not an error, because it may start later.
    pub async fn open(
        &self,
        platform: &Platform,
        db: &Db,
        receivers: &[&str],
    ) -> Result<(Outbox, Relay), ConnectError> {
        let transport: Rc<dyn Transport> = match self {
            Self::Http => Rc::new(HttpTransport::new(platform, receivers)),
            Self::Nats(url) => Rc::new(Nats::connect(url, platform.calls().clone()).await?),
        };
        Ok(Relay::new(db.clone(), transport, receivers))
    }
}

impl Variable for MessagesUrl {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "http://" {
            return Ok(Self::Http);
        }
        // The message does not repeat the text, because it may contain a password.
        NatsUrl::parse(text).map(Self::Nats).ok_or_else(|| {
            "write http://, or nats://[user:password@]host:port[/stream], the stream in letters, digits, - and _"
                .to_owned()
        })
    }
}

#[cfg(all(test, feature = "nats"))]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn the_url_selects_the_transport() {
        assert_eq!(MessagesUrl::parse("http://"), Ok(MessagesUrl::Http));
        let plain = NatsUrl { address: "h:4222".to_owned(), login: None, stream: "messages".to_owned() };
        assert_eq!(MessagesUrl::parse("nats://h:4222"), Ok(MessagesUrl::Nats(plain.clone())));
        let login = Some(("me".to_owned(), Secret::new("p@ss")));
        let named = NatsUrl { login, stream: "shop-1".to_owned(), ..plain };
        assert_eq!(MessagesUrl::parse("nats://me:p%40ss@h:4222/shop-1"), Ok(MessagesUrl::Nats(named)));
    }

    #[test]
    fn a_bad_url_is_refused_and_its_password_not_repeated() {
        for bad in [
            "",
            "http://h:1",
            "https://",
            "amqp://me:hidden@h:1",
            "nats://me:hidden@h",
            "nats://me:hidden@:4222",
            "nats://me@h:4222",
            "nats://me:hidden@h:4222/a/b",
            "nats://me:hidden@h:4222/a.b",
            "nats://me:hidden@h:4222?tls=on",
        ] {
            let why = MessagesUrl::parse(bad).unwrap_err();
            assert!(!why.contains("hidden"), "{bad}: {why}");
        }
        let good = MessagesUrl::parse("nats://me:hidden@h:4222").unwrap();
        assert!(!format!("{good:?}").contains("hidden"));
    }
}
