//! The search languages: `NAME:VALUE` pairs and bare words, with spaces between them.
//!
//! A search becomes a list of conditions. The store turns each into SQL with bound parameters.

use super::{Kind, Level};

/// The conditions that one span of a trace must match.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TraceSearch(pub Vec<SpanCondition>);

#[derive(Debug, Clone, PartialEq)]
pub enum SpanCondition {
    Service(String),
    /// Part of the route.
    Route(String),
    /// Part of the name.
    Name(String),
    Kind(Kind),
    IsError(bool),
    /// Duration in microseconds.
    LongerThan(i64),
    ShorterThan(i64),
    /// The id, or its begin.
    Order(String),
    Trace(String),
    Attribute(String, String),
    /// Part of the name or route, or the begin of the trace's or the order's id.
    Word(String),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogSearch(pub Vec<LogCondition>);

#[derive(Debug, Clone, PartialEq)]
pub enum LogCondition {
    Service(String),
    Instance(String),
    /// This level, and those above it.
    Level(Level),
    Trace(String),
    /// Part of the message or of an attribute.
    Word(String),
}

/// Each term is a condition of the SQL.
const MAX_TERMS: usize = 20;

/// What is wrong with a search, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotUnderstood(String);

impl TraceSearch {
    pub fn parse(text: &str) -> Result<Self, NotUnderstood> {
        terms(text)?.into_iter().map(span_condition).collect::<Result<_, _>>().map(Self)
    }
}

impl LogSearch {
    pub fn parse(text: &str) -> Result<Self, NotUnderstood> {
        terms(text)?.into_iter().map(log_condition).collect::<Result<_, _>>().map(Self)
    }
}

fn span_condition((name, value): (Option<String>, String)) -> Result<SpanCondition, NotUnderstood> {
    let Some(name) = name else { return Ok(SpanCondition::Word(value)) };
    Ok(match name.as_str() {
        "service" => SpanCondition::Service(value),
        "route" => SpanCondition::Route(value),
        "name" => SpanCondition::Name(value),
        "order" => SpanCondition::Order(value),
        "trace" => SpanCondition::Trace(value),
        "kind" => SpanCondition::Kind(Kind::named(&value).ok_or_else(|| {
            let kinds = Kind::ALL.map(Kind::as_str).join(", ");
            NotUnderstood(format!("kind:{value} is not one of {kinds}."))
        })?),
        "status" => SpanCondition::IsError(match value.as_str() {
            "error" => true,
            "ok" => false,
            _ => return Err(NotUnderstood(format!("status:{value} is not error or ok."))),
        }),
        "duration" => {
            let wrong = || NotUnderstood(format!("duration:{value} is not like >200ms or <2s."));
            let (is_longer, limit) = match (value.strip_prefix('>'), value.strip_prefix('<')) {
                (Some(limit), _) => (true, limit),
                (_, Some(limit)) => (false, limit),
                _ => return Err(wrong()),
            };
            let limit = microseconds(limit.trim_start_matches('=')).ok_or_else(wrong)?;
            if is_longer { SpanCondition::LongerThan(limit) } else { SpanCondition::ShorterThan(limit) }
        }
        name => match name.strip_prefix("attr.") {
            Some(key) => SpanCondition::Attribute(key.to_owned(), value),
            None => {
                let known = "service, route, name, status, duration, order, trace, kind, attr.KEY";
                return Err(NotUnderstood(format!("{name}: is unknown. Known are {known}.")));
            }
        },
    })
}

fn log_condition((name, value): (Option<String>, String)) -> Result<LogCondition, NotUnderstood> {
    let Some(name) = name else { return Ok(LogCondition::Word(value)) };
    Ok(match name.as_str() {
        "service" => LogCondition::Service(value),
        "instance" => LogCondition::Instance(value),
        "trace" => LogCondition::Trace(value),
        // They are in the fields of a line.
        "order" | "request" => LogCondition::Word(value),
        "level" => LogCondition::Level(Level::named(&value).ok_or_else(|| {
            let levels = Level::ALL.map(Level::as_str).join(", ");
            NotUnderstood(format!("level:{value} is not one of {levels}."))
        })?),
        name => {
            let known = "service, instance, level, trace, order, request";
            return Err(NotUnderstood(format!("{name}: is unknown. Known are {known}.")));
        }
    })
}

/// `200ms`, `1.5s`, `300us`; milliseconds without a unit.
fn microseconds(text: &str) -> Option<i64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let factor = match unit {
        "us" | "µs" => 1.0,
        "" | "ms" => 1e3,
        "s" => 1e6,
        "m" | "min" => 60e6,
        _ => return None,
    };
    let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
    Some((number * factor) as i64)
}

/// The words, each with the name before its first `:` if that looks like one. A part in `"` may hold spaces.
fn terms(text: &str) -> Result<Vec<(Option<String>, String)>, NotUnderstood> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            c if c.is_whitespace() && !is_quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    let is_name = |name: &str| {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_letter)
    };
    let split = |word: String| match word.split_once(':') {
        Some((name, value)) if is_name(name) && !value.starts_with("//") => {
            (Some(name.to_owned()), value.to_owned())
        }
        _ => (None, word),
    };
    let terms = words.into_iter().filter(|word| !word.is_empty()).map(split);
    let terms: Vec<_> = terms.filter(|(_, value)| !value.is_empty()).collect();
    match terms.len() > MAX_TERMS {
        true => Err(NotUnderstood(format!("A search has at most {MAX_TERMS} terms."))),
        false => Ok(terms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_search_is_a_condition() {
        let text = r#"service:order-service status:error duration:>200ms order:7f3a "POST /api" kind:server attr.db.system:sqlite"#;
        use SpanCondition::{Attribute, IsError, LongerThan, Order, Service, Word};
        assert_eq!(
            TraceSearch::parse(text).unwrap().0,
            [
                Service("order-service".to_owned()),
                IsError(true),
                LongerThan(200_000),
                Order("7f3a".to_owned()),
                Word("POST /api".to_owned()),
                SpanCondition::Kind(Kind::Server),
                Attribute("db.system".to_owned(), "sqlite".to_owned()),
            ]
        );
        assert_eq!(TraceSearch::parse("  ").unwrap(), TraceSearch::default());
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (text, part) in [
            ("status:bad", "status:bad"),
            ("duration:200ms", "duration:200ms"),
            ("duration:>x", "duration:>x"),
            ("kind:x", "kind:x"),
            ("serivce:x", "serivce: is unknown"),
        ] {
            let error = TraceSearch::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(LogSearch::parse("level:loud").unwrap_err().to_string().contains("level:loud"));
    }

    #[test]
    fn a_duration_has_a_unit() {
        let read = ["200ms", "1.5s", "300us", "7", "1m", "x", "5h", ""].map(microseconds);
        let expected =
            [Some(200_000), Some(1_500_000), Some(300), Some(7_000), Some(60_000_000), None, None, None];
        assert_eq!(read, expected);
    }
}
