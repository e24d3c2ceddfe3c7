//! Writes protobuf (<https://protobuf.dev/programming-guides/encoding>) into the bytes that are sent. A library such as
//! prost would need an owned copy of every text first.

use std::time::SystemTime;

use opentelemetry::Value as AttributeValue;

/// Longer texts are cut, in bytes: a client chooses some of them.
const MAX_TEXT: usize = 1024;

/// Types of fields on the wire. All fields here have numbers up to 15, so number and type fit into one byte.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;

/// `AnyValue`.
pub(super) enum Value<'a> {
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
}

pub(super) fn uint(out: &mut Vec<u8>, field: u8, number: u64) {
    out.push(field << 3 | VARINT);
    varint(out, number);
}

fn fixed64(out: &mut Vec<u8>, field: u8, number: u64) {
    let mut written = [field << 3 | FIXED_64, 0, 0, 0, 0, 0, 0, 0, 0];
    written[1..].copy_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&written);
}

/// Nanoseconds since 1970.
pub(super) fn time(out: &mut Vec<u8>, field: u8, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fixed64(out, field, 1_000_000_000 * since.as_secs() + u64::from(since.subsec_nanos()));
}

pub(super) fn bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

pub(super) fn text(out: &mut Vec<u8>, field: u8, text: &str) {
    bytes(out, field, &text.as_bytes()[..text.floor_char_boundary(MAX_TEXT)]);
}

/// A message within the message.
pub(super) fn message(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    // Most are so short that their length is one byte.
    head(out, field, 0);
    let start = out.len();
    write(out);
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
    } else {
        let mut written = Vec::new();
        varint(&mut written, length as u64);
        out.splice(start - 1..start, written);
    }
}

/// The head of a field of `length` bytes, which follow.
pub(super) fn head(out: &mut Vec<u8>, field: u8, length: usize) {
    out.push(field << 3 | LENGTH_DELIMITED);
    varint(out, length as u64);
}

/// One `KeyValue` of the repeated field.
pub(super) fn attribute(out: &mut Vec<u8>, field: u8, key: &str, value: &Value<'_>) {
    message(out, field, |out| {
        text(out, 1, key);
        any(out, 2, value);
    });
}

/// An attribute of the SDK. Lists are written as text.
pub(super) fn sdk_attribute(out: &mut Vec<u8>, field: u8, key: &str, value: &AttributeValue) {
    let value = match value {
        AttributeValue::Bool(value) => Value::Bool(*value),
        AttributeValue::I64(value) => Value::Int(*value),
        AttributeValue::F64(value) => Value::Double(*value),
        AttributeValue::String(value) => Value::Text(value.as_str()),
        other => return attribute(out, field, key, &Value::Text(&other.as_str())),
    };
    attribute(out, field, key, &value);
}

pub(super) fn any(out: &mut Vec<u8>, field: u8, value: &Value<'_>) {
    message(out, field, |out| match value {
        Value::Text(value) => text(out, 1, value),
        Value::Bool(value) => uint(out, 2, u64::from(*value)),
        // Two's complement: a negative number has ten bytes.
        Value::Int(value) => uint(out, 3, value.cast_unsigned()),
        Value::Double(value) => fixed64(out, 4, value.to_bits()),
    });
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use prost::Message as _;

    use super::*;

    /// A resource is attributes in field 1.
    fn read(attributes: &[KeyValue]) -> Vec<(String, Option<any_value::Value>)> {
        let mut written = Vec::new();
        for pair in attributes {
            sdk_attribute(&mut written, 1, pair.key.as_str(), &pair.value);
        }
        let read = Resource::decode(&written[..]).unwrap().attributes;
        read.into_iter().map(|pair| (pair.key, pair.value.and_then(|AnyValue { value }| value))).collect()
    }

    #[test]
    fn attributes_keep_their_types() {
        use any_value::Value as Read;
        let expected = [
            ("text", AttributeValue::from("äöü 漢字 🙂"), Read::StringValue("äöü 漢字 🙂".to_owned())),
            ("empty", "".into(), Read::StringValue(String::new())),
            ("least", i64::MIN.into(), Read::IntValue(i64::MIN)),
            ("int", 300.into(), Read::IntValue(300)),
            ("double", 1.5.into(), Read::DoubleValue(1.5)),
            ("bool", true.into(), Read::BoolValue(true)),
        ];
        let pairs = expected.clone().map(|(key, value, _)| KeyValue::new(key, value));
        let expected = expected.map(|(key, _, read)| (key.to_owned(), Some(read)));
        assert_eq!(read(&pairs), expected);
    }

    #[test]
    fn a_text_of_any_length_is_written_and_a_long_one_is_cut_between_two_characters() {
        for length in [0, 100, 127, 128, 129, MAX_TEXT, MAX_TEXT + 1] {
            let written = KeyValue::new("k".repeat(length), "äöü".repeat(length));
            let (key, value) = read(&[written]).remove(0);
            assert_eq!(key, "k".repeat(length.min(MAX_TEXT)));
            let text = "äöü".repeat(length);
            let cut = text[..text.floor_char_boundary(MAX_TEXT)].to_owned();
            assert_eq!(value, Some(any_value::Value::StringValue(cut)));
        }
    }
}
