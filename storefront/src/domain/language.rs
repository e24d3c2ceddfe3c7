//! The languages of the shop, and which of them a reader wants.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    /// Simplified.
    Chinese,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::English, Self::Chinese];

    /// The language tag, for the attribute `lang` and the name of the file with the texts.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-Hans",
        }
    }

    /// The name of the language, in that language.
    pub fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::Chinese => "中文",
        }
    }

    /// Finds a language by the first part of a tag: `zh-CN` is Chinese.
    pub fn of_tag(tag: &str) -> Option<Self> {
        let first = tag.trim().split(['-', '_']).next()?;
        match first.to_ascii_lowercase().as_str() {
            "en" => Some(Self::English),
            "zh" => Some(Self::Chinese),
            _ => None,
        }
    }

    /// The first of those that `Accept-Language` prefers most.
    pub fn preferred(accept: &str) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        for range in accept.split(',') {
            let mut parts = range.split(';');
            let Some(language) = parts.next().and_then(Self::of_tag) else { continue };
            let quality = parts.find_map(|part| part.trim().strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            if quality > best.map_or(0.0, |(quality, _)| quality) {
                best = Some((quality, language));
            }
        }
        best.map(|(_, language)| language)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_of_highest_quality_is_preferred_and_unknown_ones_are_skipped() {
        for (accept, preferred) in [
            ("zh-CN,zh;q=0.9,en;q=0.8", Some(Language::Chinese)),
            ("de,en;q=0.5,zh;q=0.4", Some(Language::English)),
            ("en;q=0.1, ZH_tw;q=0.7", Some(Language::Chinese)),
            ("en;q=0", None),
            ("de", None),
            ("", None),
            (";;q=x,,", None),
        ] {
            assert_eq!(Language::preferred(accept), preferred, "{accept}");
        }
        assert!(Language::ALL.iter().all(|language| Language::of_tag(language.tag()) == Some(*language)));
    }
}
