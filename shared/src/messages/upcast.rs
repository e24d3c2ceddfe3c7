//! Old versions of events, read as new ones (the upcaster pattern).
//!
//! A sender may add fields to a type's data at any time. What changes more is a new version of the
//! type, which receivers learn to read before anybody sends it. Handlers know the newest version only:
//! an event of an older one, still on its way or kept as a dead letter, is raised to it step by step.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Event;

/// How one version of a type becomes the next.
#[derive(Debug, Clone, Copy)]
pub struct Upcast {
    /// The old version: `thing.done.v1`.
    pub from: &'static str,
    /// The next: `thing.done.v2`.
    pub to: &'static str,
    /// Makes the data of the old version that of the next.
    pub data: fn(&mut Map<String, Value>),
}

impl Event {
    /// This event in the newest version that `steps`, oldest first, lead to.
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
    fn an_old_version_is_raised_step_by_step_to_the_newest_and_stays_the_same_event() {
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
