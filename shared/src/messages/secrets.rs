//! Payloads may contain secrets, such as payment tokens. They are masked before an admin sees them.

use serde_json::Value;

/// Parts of the names of fields whose values are not shown.
const SECRET: [&str; 3] = ["token", "password", "secret"];

/// Hides the values of secret fields, at any depth.
pub(super) fn masked(mut value: Value) -> Value {
    mask(&mut value);
    value
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.to_lowercase();
                match SECRET.iter().any(|secret| name.contains(secret)) {
                    true => *value = "•••".into(),
                    false => mask(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(mask),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_in_a_payload_are_hidden_at_any_depth() {
        let data =
            json!({ "payment_token": "tok_visa", "list": [{ "Password": "x", "name": "Ann" }], "amount": 7 });
        let shown =
            json!({ "payment_token": "•••", "list": [{ "Password": "•••", "name": "Ann" }], "amount": 7 });
        assert_eq!(masked(data), shown);
    }
}
