//! The names of a service and of its resource, in every spelling.

use std::path::{Path, PathBuf};

/// Rust's keywords, the words that PostgreSQL or SQLite reserve, and tables of the chassis.
const RESERVED: &str = "\
    abstract as async await become box break const continue crate do dyn else enum extern false final fn for \
    gen if impl in let loop macro match mod move mut override priv pub ref return self static struct super \
    trait true try type typeof union unsafe unsized use virtual where while yield \
    add all alter analyse analyze and any array asc asymmetric between both by case cast check collate column \
    commit constraint create current-date default deferrable delete desc distinct drop end escape except \
    exists fetch foreign freeze from full grant group having index inner insert intersect into is isnull \
    join lateral leading left like limit localtime localtimestamp natural not notnull null offset on only or \
    order outer over overlaps placing primary references returning right select session-user set similar \
    some symmetric table then to trailing transaction trigger unique update user using values variadic \
    verbose when window with \
    outbox inbox dead-letters admin-acts idempotency-keys migrations postgres";

/// The plural and the singular, such as `gift-cards` and `gift-card`.
#[derive(Debug)]
pub(super) struct Names {
    plural: String,
    singular: String,
}

/// Which lines of a file are prose, where `gift-cards` is written as `gift cards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prose {
    All,
    Comments,
}

impl Names {
    /// Parses `gift-cards` or `gift-cards-service`. Without a `singular`, the plural loses its last `s`.
    pub(super) fn parse(name: &str, singular: Option<&str>) -> Result<Self, String> {
        let plural = name.strip_suffix("-service").unwrap_or(name);
        let singular = singular.unwrap_or(plural.strip_suffix('s').unwrap_or(plural));
        for word in [plural, singular] {
            let letters = word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            let dashes = word.contains("--") || word.ends_with('-');
            if !letters || dashes || !word.starts_with(|c: char| c.is_ascii_lowercase()) || word.len() > 40 {
                return Err(format!(
                    "{word:?} is no name: up to 40 small letters, digits and single dashes, a letter first."
                ));
            }
        }
        if plural.ends_with("-service") || plural == "service" {
            return Err(format!("{name} says `service` twice: write the name of its resource."));
        }
        if RESERVED.split_whitespace().any(|word| word == plural) {
            return Err(format!("{plural} is a reserved word of Rust, SQL or the chassis."));
        }
        Ok(Self { plural: plural.to_owned(), singular: singular.to_owned() })
    }

    pub(super) fn krate(&self) -> String {
        krate(&self.plural)
    }

    /// The last part of `/api/gift-cards`.
    pub(super) fn path(&self) -> &str {
        &self.plural
    }

    pub(super) fn database(&self) -> String {
        snake(&self.plural)
    }

    /// A type of the resource that would have the name of one that these texts use for something else.
    pub(super) fn clash<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Option<String> {
        let types = [camel(&self.plural), camel(&self.singular)];
        let mut words = texts.flat_map(|text| text.split(|c: char| !c.is_alphanumeric()));
        words.find(|word| types.iter().any(|name| name == word)).map(str::to_owned)
    }

    /// The path of a file of the template for this service.
    pub(super) fn path_of(&self, template: &Path, port: u16) -> PathBuf {
        let names = template.components().map(|name| name.as_os_str().to_string_lossy());
        names.map(|name| self.apply(&name, Prose::Comments, port)).collect()
    }

    /// The text of a file of the template for this service.
    pub(super) fn apply(&self, template: &str, prose: Prose, port: u16) -> String {
        let is_comment = |line: &str| ["//", "--", "description"].iter().any(|mark| line.starts_with(mark));
        let mut text = String::new();
        for line in template.split_inclusive('\n') {
            let is_prose = prose == Prose::All || is_comment(line.trim_start());
            self.apply_to_line(line, is_prose, port, &mut text);
        }
        text
    }

    fn apply_to_line(&self, line: &str, is_prose: bool, port: u16, text: &mut String) {
        let replacements = [
            ("template-service", self.krate()),
            ("template_service", snake(&self.krate())),
            ("3999", port.to_string()),
            ("things.db", format!("{}.db", self.database())),
            ("/api/things", format!("/api/{}", self.plural)),
            ("Things", camel(&self.plural)),
            ("Thing", camel(&self.singular)),
            ("things", if is_prose { self.plural.replace('-', " ") } else { snake(&self.plural) }),
            ("thing", if is_prose { self.singular.replace('-', " ") } else { snake(&self.singular) }),
        ];
        let mut rest = line;
        while let Some(next) = rest.chars().next() {
            let is_inside_word = text.ends_with(|c: char| c.is_ascii_alphabetic());
            let found = replacements.iter().find(|(word, _)| {
                rest.starts_with(word)
                    && !(is_inside_word && word.starts_with(|c: char| c.is_ascii_lowercase()))
            });
            let length = match found {
                Some((word, replacement)) => {
                    text.push_str(replacement);
                    word.len()
                }
                None => {
                    text.push(next);
                    next.len_utf8()
                }
            };
            rest = &rest[length..];
        }
    }
}

/// The name of the package of `returns` or `returns-service`.
pub(super) fn krate(name: &str) -> String {
    format!("{}-service", name.strip_suffix("-service").unwrap_or(name))
}

fn snake(name: &str) -> String {
    name.replace('-', "_")
}

fn camel(name: &str) -> String {
    let upper = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').map(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_word_that_nothing_reserves() {
        for good in ["returns", "returns-service", "gift-cards", "a1"] {
            assert!(Names::parse(good, None).is_ok(), "{good}");
        }
        let long = "a".repeat(41);
        for bad in ["", "Returns", "1st", "-a", "a-", "a--b", "a b", "../a", "é", "s", &long] {
            assert!(Names::parse(bad, None).unwrap_err().contains("is no name"), "{bad}");
        }
        assert!(Names::parse("returns-service-service", None).unwrap_err().contains("twice"));
        for reserved in ["match", "references", "values", "inbox"] {
            assert!(Names::parse(reserved, None).unwrap_err().contains("reserved"), "{reserved}");
        }
        assert!(Names::parse("boxes", Some("Box")).is_err());
    }

    #[test]
    fn every_spelling_is_replaced_and_words_that_contain_it_are_not() {
        let names = Names::parse("gift-cards", None).unwrap();
        let apply = |text: &str| names.apply(text, Prose::Comments, 3041);
        assert_eq!(
            apply("use template_service::domain::Thing;"),
            "use gift_cards_service::domain::GiftCard;"
        );
        assert_eq!(apply("AddThing add_thing ThingsView"), "AddGiftCard add_gift_card GiftCardsView");
        assert_eq!(
            apply("GET /api/things/{id} from data/things.db"),
            "GET /api/gift-cards/{id} from data/gift_cards.db"
        );
        assert_eq!(apply("  // things, nothing, /api/things"), "  // gift cards, nothing, /api/gift-cards");
        assert_eq!(apply("template-service at 3999"), "gift-cards-service at 3041");
        let singular = Names::parse("boxes", Some("box")).unwrap();
        assert_eq!(singular.apply("Thing, things", Prose::All, 1), "Box, boxes");
    }

    #[test]
    fn a_resource_has_no_type_of_a_name_that_the_template_uses() {
        let clash =
            |name| Names::parse(name, None).unwrap().clash(["struct Name;", "Store::new"].into_iter());
        assert_eq!(clash("names").as_deref(), Some("Name"));
        assert_eq!(clash("stores").as_deref(), Some("Store"));
        assert_eq!(clash("returns"), None);
    }
}
