//! Addresses, names, passwords and people. Each exists only if it is valid.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// An email address: as it was written, and compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct EmailAddress(String);

impl EmailAddress {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form by which addresses are compared.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

/// Looks only for what every address has: whether it works is found out by writing to it.
impl TryFrom<String> for EmailAddress {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let Some((local, domain)) = text.rsplit_once('@') else { return Err(NO_ADDRESS) };
        let characters = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        let lengths = (1..=64).contains(&local.len()) && text.len() <= 254;
        let labels = domain.contains('.') && domain.split('.').all(|label| !label.is_empty());
        if characters && lengths && labels && !local.contains('@') { Ok(Self(text)) } else { Err(NO_ADDRESS) }
    }
}

const NO_ADDRESS: &str = "must be an email address";

/// What a person is called: 1 to 100 characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    /// The name.
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

/// A password that may be chosen: 10 to 128 characters. No log shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Password(String);

impl Password {
    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl TryFrom<String> for Password {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.chars().count() {
            10..=128 => Ok(Self(text)),
            _ => Err("must have 10 to 128 characters"),
        }
    }
}

/// Somebody who is to be registered.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The address.
    pub email: EmailAddress,
    /// The name.
    pub name: Name,
    /// The password's hash, as a PHC string.
    pub password_hash: String,
}

/// A change to a person; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// A new address.
    pub email: Option<EmailAddress>,
    /// A new name.
    pub name: Option<Name>,
    /// A new password's hash; ends every other session.
    pub password_hash: Option<String>,
}

/// A person, as clients see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct User {
    /// Their id.
    pub id: Uuid,
    /// Their address.
    pub email: String,
    /// What they are called.
    pub name: String,
    /// What they may do.
    pub roles: Vec<Role>,
    /// Whether they may log in.
    pub status: Status,
    /// When they registered.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When anything here last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Counts the changes.
    pub version: i64,
}

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Order things.
    Customer,
    /// Run the shop.
    Admin,
}

impl Role {
    /// As tokens name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Admin => "admin",
        }
    }
}

/// Whether a person may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// They may.
    Active,
    /// They left; the address stays theirs.
    Deactivated,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_and_is_compared_without_regard_to_case() {
        let address = EmailAddress::try_from("Ann.O@Example.com".to_owned()).unwrap();
        assert_eq!((address.as_str(), address.key().as_str()), ("Ann.O@Example.com", "ann.o@example.com"));
        let long = format!("{}@example.com", "a".repeat(65));
        for bad in ["", "a", "@b.c", "a@b", "a@.c", "a b@c.d", "a@b@c.d", "a@b.c\n", &long] {
            assert!(EmailAddress::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_password_has_10_to_128_characters_and_no_debug_output_shows_it() {
        let password = |length: usize| Password::try_from("é".repeat(length));
        assert!(
            password(9).is_err() && password(10).is_ok() && password(128).is_ok() && password(129).is_err()
        );
        assert_eq!(format!("{:?}", password(10).unwrap()), "Password(…)");
    }

    #[test]
    fn a_name_is_not_empty_and_not_endless() {
        for bad in ["", "  ", "a\nb", &"n".repeat(101)] {
            assert!(Name::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
