//! Types of query parameters and columns.

#[cfg(feature = "postgres")]
use sqlx::postgres::PgRow;
#[cfg(feature = "sqlite")]
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, ValueRef as _};
use time::OffsetDateTime;
use uuid::Uuid;

#[cfg(feature = "sqlite")]
use super::text;

/// A query parameter; `None` is NULL of that type.
#[derive(Debug, Clone)]
pub enum Value {
    /// `text`
    Text(Option<String>),
    /// `bigint`
    Int(Option<i64>),
    /// `boolean`
    Bool(Option<bool>),
    /// `uuid`; TEXT on SQLite
    Uuid(Option<Uuid>),
    /// `timestamptz`; TEXT on SQLite
    Time(Option<OffsetDateTime>),
    /// `jsonb`; TEXT on SQLite
    Json(Option<serde_json::Value>),
    /// `bigint[]`, for `= ANY($1)` or `UNNEST($1)`; a JSON array on SQLite
    Ints(Vec<i64>),
    /// `uuid[]`, likewise
    Uuids(Vec<Uuid>),
}

macro_rules! value_from {
    ($($kind:ty => $variant:ident),*) => {$(
        impl From<$kind> for Value {
            fn from(value: $kind) -> Self { Self::$variant(Some(value)) }
        }
        impl From<Option<$kind>> for Value {
            fn from(value: Option<$kind>) -> Self { Self::$variant(value) }
        }
    )*};
}
value_from!(String => Text, i64 => Int, bool => Bool, Uuid => Uuid, OffsetDateTime => Time, serde_json::Value => Json);

impl From<Vec<i64>> for Value {
    fn from(values: Vec<i64>) -> Self {
        Self::Ints(values)
    }
}

impl From<Vec<Uuid>> for Value {
    fn from(values: Vec<Uuid>) -> Self {
        Self::Uuids(values)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

/// A type that a column can be read as.
pub trait Column: Sized {
    #[cfg(feature = "postgres")]
    fn from_postgres(row: &PgRow, name: &str) -> Result<Self, sqlx::Error>;
    #[cfg(feature = "sqlite")]
    fn from_sqlite(row: &SqliteRow, name: &str) -> Result<Self, sqlx::Error>;
}

impl<T: Column> Column for Option<T> {
    #[cfg(feature = "postgres")]
    fn from_postgres(row: &PgRow, name: &str) -> Result<Self, sqlx::Error> {
        if row.try_get_raw(name)?.is_null() { Ok(None) } else { T::from_postgres(row, name).map(Some) }
    }
    #[cfg(feature = "sqlite")]
    fn from_sqlite(row: &SqliteRow, name: &str) -> Result<Self, sqlx::Error> {
        if row.try_get_raw(name)?.is_null() { Ok(None) } else { T::from_sqlite(row, name).map(Some) }
    }
}

macro_rules! same_column_on_both {
    ($($kind:ty),*) => {$(
        impl Column for $kind {
            #[cfg(feature = "postgres")]
            fn from_postgres(row: &PgRow, name: &str) -> Result<Self, sqlx::Error> { row.try_get(name) }
            #[cfg(feature = "sqlite")]
            fn from_sqlite(row: &SqliteRow, name: &str) -> Result<Self, sqlx::Error> { row.try_get(name) }
        }
    )*};
}
same_column_on_both!(String, i64, bool);

macro_rules! text_column_on_sqlite {
    ($($kind:ty: $parse:expr),*) => {$(
        impl Column for $kind {
            #[cfg(feature = "postgres")]
            fn from_postgres(row: &PgRow, name: &str) -> Result<Self, sqlx::Error> { row.try_get(name) }
            #[cfg(feature = "sqlite")]
            fn from_sqlite(row: &SqliteRow, name: &str) -> Result<Self, sqlx::Error> {
                let text: &str = row.try_get(name)?;
                $parse(text).map_err(|why| text::undecodable(name, why))
            }
        }
    )*};
}
text_column_on_sqlite!(Uuid: Uuid::parse_str, OffsetDateTime: text::parse_time, serde_json::Value: serde_json::from_str);

/// The time of this process in UTC: for what no other replica compares; see [`Db::now`](super::Db::now). It is
/// truncated to the microseconds that both databases store.
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now - time::Duration::nanoseconds(i64::from(now.nanosecond() % 1_000))
}
