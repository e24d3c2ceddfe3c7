//! Spans and log records, as OpenTelemetry has them.

use serde_json::{Map, Value};
use uuid::Uuid;

pub type Attributes = Map<String, Value>;

#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub trace_id: String,
    pub id: String,
    pub parent_id: Option<String>,
    pub links: Vec<Link>,
    pub service: String,
    pub instance: Option<String>,
    pub name: String,
    pub kind: Kind,
    /// Microseconds since 1970.
    pub start_us: i64,
    pub duration_us: i64,
    pub is_error: bool,
    /// Why it failed.
    pub message: Option<String>,
    pub attributes: Attributes,
    pub events: Vec<SpanEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub trace_id: String,
    pub span_id: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SpanEvent {
    pub at_us: i64,
    pub name: String,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    pub at_us: i64,
    pub trace_id: Option<String>,
    pub span_id: Option<String>,
    pub service: String,
    pub instance: Option<String>,
    pub level: Level,
    pub message: String,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Internal, Self::Server, Self::Client, Self::Producer, Self::Consumer];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl Level {
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name.to_ascii_lowercase())
    }

    /// The level of a severity number of OpenTelemetry, 1 to 24.
    pub fn of_severity(number: i64) -> Self {
        match number {
            ..=4 => Self::Trace,
            5..=8 => Self::Debug,
            9..=12 => Self::Info,
            13..=16 => Self::Warn,
            17.. => Self::Error,
        }
    }
}

impl Span {
    /// The pattern of the route that a server span served: its attribute, or the end of its name `METHOD ROUTE`.
    pub fn route(&self) -> Option<&str> {
        let attribute = self.attributes.get("http.route").and_then(Value::as_str);
        let named =
            || self.name.split_once(' ').map(|(_, route)| route).filter(|route| route.starts_with('/'));
        attribute.or_else(named)
    }

    pub fn order_id(&self) -> Option<String> {
        order_in(&self.attributes)
    }

    pub fn end_us(&self) -> i64 {
        self.start_us + self.duration_us
    }
}

/// The order that attributes name: by an attribute of that name, or in the path of a URL.
fn order_in(attributes: &Attributes) -> Option<String> {
    attributes.iter().find_map(|(key, value)| {
        let text = value.as_str()?;
        let id = match key.as_str() {
            "url.path" | "http.target" => text.strip_prefix("/api/orders/")?.split('/').next()?,
            key if key.ends_with("order.id") || key.ends_with("order_id") => text,
            _ => return None,
        };
        Uuid::try_parse(id).ok().map(|id| id.to_string())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_order_is_found_in_attributes_and_paths() {
        let id = "0190f4c0-0000-7000-8000-000000000001";
        for (attributes, found) in [
            (json!({ "order.id": id }), true),
            (json!({ "app.order_id": id }), true),
            (json!({ "url.path": format!("/api/orders/{id}/timeline") }), true),
            (json!({ "url.path": format!("/api/products/{id}") }), false),
            (json!({ "order.id": "<img>" }), false),
            (json!({ "order.id": 7 }), false),
        ] {
            let Value::Object(attributes) = attributes else { unreachable!() };
            assert_eq!(order_in(&attributes).as_deref(), found.then_some(id), "{attributes:?}");
        }
    }

    #[test]
    fn a_severity_has_a_level() {
        let levels = [1, 5, 9, 12, 13, 17, 24].map(Level::of_severity);
        use Level::{Debug, Error, Info, Trace, Warn};
        assert_eq!(levels, [Trace, Debug, Info, Info, Warn, Error, Error]);
    }
}
