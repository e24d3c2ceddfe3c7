//! The JSON schema of `gateway.toml`, with which editors complete and check it. `gateway --config-schema` prints it.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::GatewayConfig;

/// docs/gateway.schema.json.
pub fn text() -> String {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<GatewayConfig>();
    let mut schema = schema.to_value();
    without_null(&mut schema);
    format!("{schema:#}\n")
}

/// TOML has no null: an optional key is absent.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [kind] = &types[..] {
                    let kind = kind.clone();
                    object.insert("type".to_owned(), kind);
                }
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            if let Some(Value::Array(any)) = object.get_mut("anyOf") {
                any.retain(|schema| schema["type"] != "null");
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(array) => array.iter_mut().for_each(without_null),
        _ => {}
    }
}
