//! The sentences of each language: `assets/en.json` and `assets/zh-Hans.json`, which the scripts read too.

use std::collections::BTreeMap;

use crate::domain::Language;

/// The sentences of one language, by key.
#[derive(Debug)]
pub struct Texts(BTreeMap<String, String>);

impl Texts {
    /// # Errors
    /// When the file in the program is not an object of strings.
    pub fn of(language: Language) -> Result<Self, serde_json::Error> {
        serde_json::from_str(file(language)).map(Self)
    }

    /// The sentence of `key`; the key itself if there is none.
    pub fn get<'a>(&'a self, key: &'a str) -> &'a str {
        self.0.get(key).map_or(key, String::as_str)
    }

    /// The same, with `value` in the place of `{name}`.
    pub fn with(&self, key: &str, name: &str, value: impl ToString) -> String {
        self.get(key).replace(&format!("{{{name}}}"), &value.to_string())
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

pub(super) const fn file(language: Language) -> &'static str {
    match language {
        Language::English => include_str!("../../assets/en.json"),
        Language::Chinese => include_str!("../../assets/zh-Hans.json"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn places(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect()
    }

    #[test]
    fn both_languages_have_the_same_keys_with_the_same_places() {
        let [english, chinese] = Language::ALL.map(|language| Texts::of(language).unwrap());
        let keys = |texts: &Texts| texts.keys().map(str::to_owned).collect::<BTreeSet<_>>();
        let (left, right) = (keys(&english), keys(&chinese));
        let different: Vec<_> = left.symmetric_difference(&right).collect();
        assert!(left.len() > 100 && different.is_empty(), "not in both: {different:?}");
        for key in left {
            let (one, other) = (english.get(&key), chinese.get(&key));
            assert_eq!(places(one), places(other), "{key}");
            assert!(!one.trim().is_empty() && !other.trim().is_empty(), "{key} is empty");
        }
    }
}
