//! Values by path, for scripts.

use std::io;

use serde_json::Value;

/// `json [--each PATH] PATH…`: the values at these paths in the JSON on standard input, separated by tabs.
/// `--each` prints a line for every element of the array at that path; the other paths begin there. A path
/// is a list of names and indices: `lines.0.price.amount`; `.` is the whole. A value that is missing or empty
/// is printed as `-`, since a shell skips empty columns.
pub fn print(arguments: &[String]) -> io::Result<()> {
    let input: Value = serde_json::from_reader(io::stdin())?;
    match arguments {
        [flag, array, paths @ ..] if flag == "--each" => {
            let elements = at(&input, array).as_array().into_iter().flatten();
            elements.for_each(|element| println!("{}", row(element, paths)));
        }
        paths => println!("{}", row(&input, paths)),
    }
    Ok(())
}

fn row(value: &Value, paths: &[String]) -> String {
    let text = |path: &String| match at(value, path) {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    paths.iter().map(text).collect::<Vec<_>>().join("\t")
}

fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    let names = path.split('.').filter(|name| !name.is_empty());
    names.fold(value, |value, name| match name.parse::<usize>() {
        Ok(index) if value.is_array() => &value[index],
        _ => &value[name],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_names_fields_and_elements_and_what_is_missing_is_a_dash() {
        let value = json!({ "a": [{ "b": "text", "c": 1, "0": true }], "n": null });
        let paths = ["a.0.b", "a.0.c", "a.0.0", "a.1.b", "n", "a.b"].map(str::to_owned);
        assert_eq!(row(&value, &paths), "text\t1\ttrue\t-\t-\t-");
        assert_eq!(at(&value, "."), &value);
    }
}
