//! Converts events of old versions to the newest version (the upcaster pattern).
//!
//! A sender may add fields to the data of a type at any time. Any other change needs a new version of the
//! type, and receivers must be able to read it before senders use it. Handlers know only the newest version. Older
//! events, in transit or stored as dead letters, are converted step by step.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Event;

/// Converts one version of a type to the next.
#[derive(Debug, Clone, Copy)]
pub struct Upcast {
    /// The old version: `thing.done.v1`.
    pub from: &'static str,
    /// The next version: `thing.done.v2`.
    pub to: &'static str,
    /// Changes the data in place.
    pub data: fn(&mut Map<String, Value>),
}

impl Event {
    /// Applies the matching `steps` in order. Id, subject and time stay the same.
    pub(super) fn upcast(&self, steps: &[Upcast]) -> Cow<'_, Self> {
        let mut newest = Cow::Borrowed(self);
        for step in steps {
            if newest.kind == step.from {
                let event = newest.to_mut();
                step.to.clone_into(&mut event.kind);
                if let Value::Object(data) = &mut event.data {
                    (step.data)(data);
                }
            }
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STEPS: [Upcast; 2] = [
        Upcast {
            from: "thing.done.v1",
            to: "thing.done.v2",
            data: |data| drop(data.insert("by".to_owned(), json!("somebody"))),
        },
        Upcast {
            from: "thing.done.v2",
            to: "thing.done.v3",
            data: |data| {
                let by = data.remove("by").unwrap();
                data.insert("people".to_owned(), json!([by]));
            },
        },
    ];

    fn upcast(kind: &str, data: Value) -> (Event, Event) {
        let event = Event::new("a-service", kind, "7", data);
        let newest = event.upcast(&STEPS).into_owned();
        (event, newest)
    }

    #[test]
    fn an_old_version_is_converted_step_by_step_and_keeps_its_id() {
        let (event, newest) = upcast("thing.done.v1", json!({ "size": 1 }));
        assert_eq!(newest.kind, "thing.done.v3");
        assert_eq!(newest.data, json!({ "size": 1, "people": ["somebody"] }));
        assert_eq!((newest.id, newest.subject), (event.id, event.subject));
    }

    #[test]
    fn the_newest_version_and_other_types_stay_as_they_are() {
        for kind in ["thing.done.v3", "thing.done.v4", "thing.lost.v1"] {
            let (event, newest) = upcast(kind, json!({ "size": 1 }));
            assert_eq!(newest, event);
        }
    }
}
