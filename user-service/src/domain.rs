//! Email addresses, names and passwords, which exist only if they are valid; users, their sessions, and what admins
//! do to them.

use serde::Deserialize;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// An email address. It keeps its case and is compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct EmailAddress(String);

impl EmailAddress {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that is compared: lower case.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

/// Checks the form only: whether mail arrives is known only after sending some.
impl TryFrom<String> for EmailAddress {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let Some((local, domain)) = text.rsplit_once('@') else { return Err(NOT_AN_ADDRESS) };
        let characters = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        let lengths = (1..=64).contains(&local.len()) && text.len() <= 254;
        let labels = domain.contains('.') && domain.split('.').all(|label| !label.is_empty());
        if characters && lengths && labels && !local.contains('@') {
            Ok(Self(text))
        } else {
            Err(NOT_AN_ADDRESS)
        }
    }
}

const NOT_AN_ADDRESS: &str = "must be an email address";

/// A user's name: 1 to 100 characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

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

/// A new password: 10 to 128 characters. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Password(String);

impl Password {
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

#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: EmailAddress,
    pub name: Name,
    /// A PHC string.
    pub password_hash: String,
    /// An admin is a customer, too.
    pub role: Role,
}

/// A change to a user; `None` leaves a value as it is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub email: Option<EmailAddress>,
    pub name: Option<Name>,
    /// A PHC string; a new one ends every other session.
    pub password_hash: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: Uuid,
    pub email: EmailAddress,
    pub name: Name,
    pub roles: Vec<Role>,
    pub status: Status,
    pub created_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    /// Starts at 1; every change adds 1.
    pub version: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Customer,
    Admin,
}

impl Role {
    /// The role as it is written in tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Admin => "admin",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    /// Cannot log in; the address stays taken.
    Deactivated,
}

/// A session begins with a login and continues with refresh tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub id: Uuid,
    /// When the user gave the password.
    pub began_at: OffsetDateTime,
}

impl Session {
    const MAX_LIFE: Duration = Duration::days(90);

    /// The session is over by then, however often it is refreshed.
    pub fn ends_at(&self) -> OffsetDateTime {
        self.began_at + Self::MAX_LIFE
    }
}

/// What an admin did to another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminChange {
    pub admin_id: Uuid,
    pub user_id: Uuid,
    pub action: AdminAction,
    /// The admin's network address.
    pub client: String,
    pub trace_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAction {
    /// These fields have new values.
    Change(Vec<&'static str>),
    Deactivate,
}

impl AdminAction {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Change(_) => "change",
            Self::Deactivate => "deactivate",
        }
    }

    pub fn fields(&self) -> &[&'static str] {
        match self {
            Self::Change(fields) => fields,
            Self::Deactivate => &["status"],
        }
    }
}

impl Change {
    /// Whether an address or a password changes: with either, somebody can take over an account.
    pub fn has_secrets(&self) -> bool {
        self.email.is_some() || self.password_hash.is_some()
    }

    /// The names of the fields that change.
    pub fn fields(&self) -> Vec<&'static str> {
        let fields = [
            ("email", self.email.is_some()),
            ("name", self.name.is_some()),
            ("password", self.password_hash.is_some()),
        ];
        fields.into_iter().filter(|(_, changes)| *changes).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_form_of_one_and_is_compared_without_regard_to_case() {
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
