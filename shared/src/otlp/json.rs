//! Writes OTLP as JSON into a string. Every request of a sampled trace makes a kilobyte of it, so there are no
//! intermediate values.

use std::time::SystemTime;

use opentelemetry::Value;
use opentelemetry_sdk::Resource;

use crate::trace::{nanos, write_hex};

/// The attributes of the process, as an array.
pub(super) fn resource(resource: &Resource) -> String {
    let mut text = String::new();
    attributes(&mut text, resource.iter().map(|(key, value)| (key.as_str(), value)));
    text
}

/// Longer texts are cut, in bytes: a client chooses some of them, and a batch of 512 must not become too large.
const MAX_TEXT: usize = 1024;

/// Appends `text` between quotes.
pub(super) fn string(out: &mut String, text: &str) {
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    out.push('"');
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain..index]);
        match escape {
            "" => out.push_str(&format!("\\u{byte:04x}")),
            escape => out.push_str(escape),
        }
        plain = index + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Appends an id between quotes: two digits for each byte.
pub(super) fn id(out: &mut String, bytes: &[u8]) {
    let mut digits = [0; 32];
    let digits = &mut digits[..2 * bytes.len()];
    write_hex(digits, bytes);
    out.push('"');
    out.push_str(std::str::from_utf8(digits).unwrap_or_default());
    out.push('"');
}

/// Appends a time. OTLP writes 64-bit numbers as text.
pub(super) fn time(out: &mut String, time: SystemTime) {
    let nanos = u64::try_from(nanos(time)).unwrap_or(u64::MAX);
    out.push('"');
    number(out, nanos);
    out.push('"');
}

pub(super) fn number(out: &mut String, number: u64) {
    out.push_str(itoa::Buffer::new().format(number));
}

pub(super) fn attributes<'a>(out: &mut String, pairs: impl Iterator<Item = (&'a str, &'a Value)>) {
    out.push('[');
    for (index, (key, value)) in pairs.enumerate() {
        if index > 0 {
            out.push(',');
        }
        // Keys are written in this program: they need no escapes.
        out.push_str("{\"key\":\"");
        out.push_str(key);
        out.push_str("\",\"value\":");
        any(out, value);
        out.push('}');
    }
    out.push(']');
}

fn any(out: &mut String, value: &Value) {
    match value {
        Value::Bool(value) => {
            out.push_str("{\"boolValue\":");
            out.push_str(if *value { "true" } else { "false" });
        }
        Value::I64(value) => {
            out.push_str("{\"intValue\":\"");
            if *value < 0 {
                out.push('-');
            }
            number(out, value.unsigned_abs());
            out.push('"');
        }
        Value::F64(value) if value.is_finite() => out.push_str(&format!("{{\"doubleValue\":{value}")),
        other => {
            out.push_str("{\"stringValue\":");
            string(out, &other.as_str());
        }
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;

    use super::*;

    #[test]
    fn any_text_is_one_json_string() {
        for text in ["", "plain", "a \"b\" \\ c", "line\nbreak\r\t\u{1}\u{1f}", "äöü 漢字 🙂", "\u{7f}"]
        {
            let mut written = String::new();
            string(&mut written, text);
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let mut written = String::new();
        string(&mut written, &"äöü".repeat(MAX_TEXT));
        let read = serde_json::from_str::<String>(&written).unwrap();
        assert_eq!(read, "äöü".repeat(MAX_TEXT)[..MAX_TEXT]);
    }

    #[test]
    fn attributes_keep_their_types() {
        let pairs = [
            KeyValue::new("text", "a\"b"),
            KeyValue::new("int", i64::MIN),
            KeyValue::new("double", 1.5),
            KeyValue::new("not_a_number", f64::NAN),
            KeyValue::new("bool", true),
        ];
        let mut written = String::new();
        attributes(&mut written, pairs.iter().map(|pair| (pair.key.as_str(), &pair.value)));
        let expected = serde_json::json!([
            { "key": "text", "value": { "stringValue": "a\"b" } },
            { "key": "int", "value": { "intValue": "-9223372036854775808" } },
            { "key": "double", "value": { "doubleValue": 1.5 } },
            { "key": "not_a_number", "value": { "stringValue": "NaN" } },
            { "key": "bool", "value": { "boolValue": true } },
        ]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), expected);
    }
}
