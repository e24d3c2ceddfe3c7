//! The domain: things and their names. A name exists only if it is valid.

use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// A UUIDv7, which sorts by age.
    pub id: Uuid,
    pub owner_id: Uuid,
    pub name: Name,
    pub created_at: OffsetDateTime,
    pub version: i64,
}

/// 1 to 100 characters, not only spaces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Thing {
    pub fn new(owner_id: Uuid, name: Name, now: OffsetDateTime) -> Self {
        Self { id: Uuid::now_v7(), owner_id, name, created_at: now, version: 1 }
    }
}

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let good = (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if good && !text.trim().is_empty() { Ok(Self(text)) } else { Err("must have 1 to 100 characters") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_empty_and_not_endless() {
        assert!(Name::try_from("n".repeat(100)).is_ok());
        for bad in ["", "  ", "a\nb", &"n".repeat(101)] {
            assert!(Name::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
