//! Strict JSON bodies: one 422 response lists every invalid field with its path.
//!
//! serde stops at the first error, so a client would have to fix one field at a time. Here a request type
//! reads its fields from [`Fields`]. serde parses each field into a domain type that exists only if it is
//! valid, and the errors are collected. Unknown fields are errors too.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use actix_web::{FromRequest, HttpMessage as _, HttpRequest, web};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::problem::{FieldError, Problem, codes};

/// The largest JSON body in bytes; larger ones get 413.
pub const BODY_LIMIT: usize = 256 * 1024;

/// The deepest nesting; deeper bodies get 400.
const DEPTH_LIMIT: usize = 32;

/// A request type that is read from a JSON object.
pub trait FromBody: Sized {
    /// Must read every field before it returns an error, so that all errors are collected.
    fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid>;
}

/// Implements [`FromBody`](crate::body::FromBody) for a type whose fields have the names of those of the body.
///
/// ```text
/// shared::from_body! { AddThing { required: name, size; optional: note; } }
/// ```
#[macro_export]
macro_rules! from_body {
    ($kind:ident { $($read:ident: $($field:ident),+;)+ }) => {
        impl $crate::body::FromBody for $kind {
            fn from_body(fields: &mut $crate::body::Fields<'_>) -> Result<Self, $crate::body::Invalid> {
                $($(let $field = fields.$read(stringify!($field));)+)+
                Ok(Self { $($($field: $field?),+),+ })
            }
        }
    };
}

/// A field is missing or invalid; [`Fields`] holds the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// Extractor: a parsed and valid JSON body, with its original bytes.
#[derive(Debug, Clone)]
pub struct Body<T> {
    pub value: T,
    /// The bytes as received, for the fingerprint of an idempotent request.
    pub bytes: web::Bytes,
}

/// The fields of one JSON object, and their errors.
pub struct Fields<'a> {
    path: String,
    object: &'a Map<String, Value>,
    known: BTreeSet<&'static str>,
    errors: &'a mut Vec<FieldError>,
}

impl<'a> Fields<'a> {
    pub fn required<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<T, Invalid> {
        self.optional(name)?.map_or_else(|| self.missing(name), Ok)
    }

    /// `None` if the field is absent.
    pub fn optional<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<Option<T>, Invalid> {
        self.take(name).map(|value| self.parse(name, value)).transpose()
    }

    pub fn object<T: FromBody>(&mut self, name: &'static str) -> Result<T, Invalid> {
        self.optional_object(name)?.map_or_else(|| self.missing(name), Ok)
    }

    /// `None` if the field is absent.
    pub fn optional_object<T: FromBody>(&mut self, name: &'static str) -> Result<Option<T>, Invalid> {
        self.take(name).map(|value| read(value, self.path_of(name), self.errors)).transpose()
    }

    /// A list of objects, with as many items as `count` allows.
    pub fn list<T: FromBody>(
        &mut self,
        name: &'static str,
        count: RangeInclusive<usize>,
    ) -> Result<Vec<T>, Invalid> {
        let path = self.path_of(name);
        let items = match self.take(name) {
            None => return self.missing(name),
            Some(Value::Array(items)) if count.contains(&items.len()) => items,
            Some(Value::Array(_)) => {
                return self.reject(name, format!("must have {} to {} items", count.start(), count.end()));
            }
            Some(_) => return self.reject(name, "must be a list"),
        };
        let read: Vec<Result<T, Invalid>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| read(item, format!("{path}[{index}]"), self.errors))
            .collect();
        read.into_iter().collect()
    }

    /// Adds an error for a field.
    pub fn reject<T>(&mut self, name: &str, message: impl Into<String>) -> Result<T, Invalid> {
        self.errors.push(FieldError { field: self.path_of(name), message: message.into() });
        Err(Invalid)
    }

    fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.insert(name);
        self.object.get(name)
    }

    fn parse<T: DeserializeOwned>(&mut self, name: &'static str, value: &Value) -> Result<T, Invalid> {
        T::deserialize(value).or_else(|fault| self.reject(name, fault.to_string()))
    }

    fn missing<T>(&mut self, name: &str) -> Result<T, Invalid> {
        self.reject(name, "is missing")
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn reject_unknown(&mut self) {
        let unknown: Vec<_> =
            self.object.keys().filter(|name| !self.known.contains(name.as_str())).cloned().collect();
        for name in unknown {
            let _ = self.reject::<()>(&name, "is not a field of this");
        }
    }
}

fn read<T: FromBody>(value: &Value, path: String, errors: &mut Vec<FieldError>) -> Result<T, Invalid> {
    let Value::Object(object) = value else {
        errors.push(FieldError { field: path, message: "must be an object".to_owned() });
        return Err(Invalid);
    };
    let before = errors.len();
    let mut fields = Fields { path, object, known: BTreeSet::new(), errors };
    let read = T::from_body(&mut fields);
    fields.reject_unknown();
    let faults = errors.len() - before;
    read.and_then(|read| if faults == 0 { Ok(read) } else { Err(Invalid) })
}

/// Parses a JSON body. Fails with 400 `malformed_json` if it is not JSON, or with 422 and every invalid field.
pub fn parse<T: FromBody>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = || Problem::new(codes::MALFORMED_JSON, "The body is not a JSON document.");
    if too_deep(bytes) {
        return Err(malformed());
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|_| malformed())?;
    let mut errors = Vec::new();
    read(&value, String::new(), &mut errors).map_err(|Invalid| Problem::validation(errors))
}

/// Whether brackets, outside of strings, nest deeper than the limit.
fn too_deep(bytes: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_LIMIT {
            return true;
        }
    }
    false
}

impl<T: FromBody + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let kind = request.content_type().to_ascii_lowercase();
        let json = kind.is_empty() || kind == "application/json" || kind.ends_with("+json");
        let encoded = request.headers().get_all(CONTENT_ENCODING).any(|coding| coding != "identity");
        let bytes = web::Bytes::from_request(request, payload);
        Box::pin(async move {
            let bytes = bytes.await.map_err(|error| Problem::of_status(error.error_response().status()))?;
            let unsupported = || Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            if encoded {
                return Err(unsupported().header(ACCEPT_ENCODING, "identity"));
            }
            if !json {
                return Err(unsupported());
            }
            let value = parse(&bytes)?;
            Ok(Self { value, bytes })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Item {
        name: String,
        count: u8,
    }

    impl FromBody for Item {
        fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
            let (name, count) = (fields.required("name"), fields.required("count"));
            Ok(Self { name: name?, count: count? })
        }
    }

    #[derive(Debug, PartialEq)]
    struct Cart(Vec<Item>);

    impl FromBody for Cart {
        fn from_body(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
            fields.list("items", 1..=3).map(Self)
        }
    }

    fn faults(json: &str) -> Vec<String> {
        let Value::Object(document) = serde_json::from_slice(
            &parse::<Cart>(json.as_bytes()).unwrap_err().document("s", "r", time::OffsetDateTime::UNIX_EPOCH),
        )
        .unwrap() else {
            unreachable!()
        };
        let errors: Vec<FieldError> = serde_json::from_value(document["errors"].clone()).unwrap();
        errors.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn every_invalid_field_is_listed_with_its_path() {
        let json = r#"{"items":[{"name":"a","count":1},{"count":-1,"x":0},7],"note":null}"#;
        assert_eq!(faults(json), ["items[1].name", "items[1].count", "items[1].x", "items[2]", "note"]);
        assert_eq!(faults(r#"{"items":[]}"#), ["items"]);
        assert_eq!(faults("[]"), [""]);
    }

    #[test]
    fn a_good_body_is_read() {
        let cart: Cart = parse(br#"{"items":[{"name":"a","count":1}]}"#).unwrap();
        assert_eq!(cart, Cart(vec![Item { name: "a".to_owned(), count: 1 }]));
    }

    #[test]
    fn anything_but_one_json_document_is_malformed() {
        let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
        for body in [&b"{"[..], b"{} {}", b"\"\xff\"", b"", deep.as_bytes()] {
            assert_eq!(parse::<Cart>(body).unwrap_err().code(), "malformed_json");
        }
        assert!(!too_deep(br#"{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}"#));
    }
}
