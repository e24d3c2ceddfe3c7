//! Names the line and the column of what is wrong with `gateway.toml`.

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

/// An error of the parser, such as an unknown key or a value of another type.
pub(super) fn describe_parse_error(text: &str, error: &Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    format!("{}: {}", position(text, start), error.message())
}

/// An error in the value that the keys and indices of `path` lead to.
pub(super) fn describe_invalid_value(text: &str, path: &[String], why: &str) -> String {
    format!("{}: {}: {why}", position(text, start_of(text, path)), path.join("."))
}

/// Where the last key of `path` that the file has begins.
fn start_of(text: &str, path: &[String]) -> usize {
    let Ok(file) = DeTable::parse(text) else { return 0 };
    let file = DeValue::Table(file.into_inner());
    let (mut found, mut here) = (0..0, Some(&file));
    for key in path {
        let next = here.and_then(|value| child(value, key));
        if let Some((span, _)) = &next {
            found = span.clone();
        }
        here = next.map(|(_, value)| value);
    }
    found.start
}

fn child<'a, 'i>(value: &'a DeValue<'i>, key: &str) -> Option<(Range<usize>, &'a DeValue<'i>)> {
    match value {
        DeValue::Table(table) => table.get_key_value(key).map(|(key, value)| (key.span(), value.get_ref())),
        DeValue::Array(array) => {
            array.get(key.parse::<usize>().ok()?).map(|value| (value.span(), value.get_ref()))
        }
        _ => None,
    }
}

fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let (lines, last) = (before.matches('\n').count(), before.rsplit('\n').next().unwrap_or_default());
    format!("line {}, column {}", lines + 1, last.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "a = 1\n\n[[routes]]\nid = \"ä\"\n\n[[routes]]\nid = \"b\"\n[routes.cors]\nmax_age_s = 5\n";

    #[test]
    fn a_path_leads_to_the_line_of_its_last_key_that_is_there() {
        let place = |path: &[&str]| {
            let path: Vec<_> = path.iter().map(|key| (*key).to_owned()).collect();
            describe_invalid_value(TEXT, &path, "no")
        };
        assert_eq!(place(&["a"]), "line 1, column 1: a: no");
        assert_eq!(place(&["routes", "1", "id"]), "line 7, column 1: routes.1.id: no");
        assert_eq!(
            place(&["routes", "1", "cors", "max_age_s"]),
            "line 9, column 1: routes.1.cors.max_age_s: no"
        );
        assert_eq!(place(&["routes", "0", "prefix"]), "line 3, column 1: routes.0.prefix: no");
    }

    #[test]
    fn a_column_counts_characters() {
        assert_eq!(position("id = \"äöü\" ?", "id = \"äöü\" ".len()), "line 1, column 12");
    }
}
