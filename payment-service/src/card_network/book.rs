//! What is held, and what has moved. Every operation is one transaction, and has a key under which it
//! happens once.

use serde::Serialize;
use shared::db::{Conn, Db, DbError, Row, Tx, query};

use super::cards::{Card, Operation};

/// The card network's book.
#[derive(Debug, Clone)]
pub struct Book {
    db: Db,
}

/// Money to be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The key of this authorization.
    pub key: String,
    /// What it is for.
    pub order_id: String,
    /// How much, in minor units.
    pub amount: i64,
    /// The currency.
    pub currency: String,
    /// The card.
    pub token: String,
}

/// An authorization, as the card network sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Authorization {
    /// Its key.
    pub key: String,
    /// What it is for.
    pub order_id: Option<String>,
    /// How much.
    pub amount: i64,
    /// The currency.
    pub currency: String,
    /// `authorized`, `declined`, `captured` or `voided`.
    pub status: &'static str,
    /// Why it was declined.
    pub decline_code: Option<String>,
    /// How much was taken.
    pub captured: i64,
    /// How much went back.
    pub refunded: i64,
    /// How often it was taken: more than once is once too often.
    pub times_captured: i64,
    #[serde(skip)]
    token: String,
}

/// A line of the statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Charge {
    key: String,
    order_id: Option<String>,
    currency: String,
    authorized: i64,
    captured: i64,
    refunded: i64,
    voided: bool,
    times_captured: i64,
}

/// Why an operation was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such authorization.
    #[error("no such authorization")]
    Unknown,
    /// The key was used for something else.
    #[error("the key was used for something else")]
    KeyReused,
    /// The card refuses.
    #[error("declined: {0}")]
    Declined(String),
    /// It is not held any more.
    #[error("voided")]
    Voided,
    /// It has been taken.
    #[error("captured")]
    Captured,
    /// More than was taken and not given back.
    #[error("exceeds what was captured")]
    ExceedsCaptured,
    /// The book cannot be read or written.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Book {
    /// The book in `db`.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Counts a call of `card`; the first is 1, and so is every call of a card that does not count.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn count(&self, card: Card, operation: Operation, key: &str) -> Result<i64, DbError> {
        if !card.counts_calls() {
            return Ok(1);
        }
        let mut tx = self.db.begin().await?;
        let count = query(
            "INSERT INTO calls (operation, key, calls) VALUES ($1, $2, 1) \
             ON CONFLICT (operation, key) DO UPDATE SET calls = calls.calls + 1 RETURNING calls",
        );
        let calls = count.bind(operation.as_str()).bind(key).fetch_one(&mut tx).await?.get("calls")?;
        tx.commit().await?;
        Ok(calls)
    }

    /// Holds the money, unless the card is declined or the key has been voided.
    ///
    /// # Errors
    /// [`Refused::KeyReused`], or the database's.
    pub async fn authorize(&self, request: &Request) -> Result<Authorization, Refused> {
        let mut tx = self.db.begin().await?;
        let decline_code = match Card::behind(&request.token) {
            Card::Declined(code) => Some(code),
            _ => None,
        };
        // A void that came first knew no order; it keeps its effect.
        query(
            "INSERT INTO authorizations (key, order_id, amount, currency, token, decline_code, voided) \
             VALUES ($1, $2, $3, $4, $5, $6, FALSE) ON CONFLICT (key) DO UPDATE \
             SET order_id = excluded.order_id, amount = excluded.amount, currency = excluded.currency, \
                 token = excluded.token \
             WHERE authorizations.order_id IS NULL",
        )
        .bind(request.key.as_str())
        .bind(request.order_id.as_str())
        .bind(request.amount)
        .bind(request.currency.as_str())
        .bind(request.token.as_str())
        .bind(decline_code)
        .execute(&mut tx)
        .await?;
        let held = find(&mut tx, &request.key).await?.ok_or(Refused::Unknown)?;
        let same = held.order_id.as_ref() == Some(&request.order_id)
            && (held.amount, &held.currency, &held.token)
                == (request.amount, &request.currency, &request.token);
        if !same {
            return Err(Refused::KeyReused);
        }
        tx.commit().await?;
        Ok(held)
    }

    /// Takes the money that is held, once per `key`. Asked under another key it takes it again, and
    /// the statement shows it.
    ///
    /// # Errors
    /// Any [`Refused`].
    pub async fn capture(&self, authorization: &str, key: &str) -> Result<Authorization, Refused> {
        let mut tx = self.db.begin().await?;
        let held = find(&mut tx, authorization).await?.ok_or(Refused::Unknown)?;
        match (held.status, &held.decline_code) {
            (_, Some(code)) => return Err(Refused::Declined(code.clone())),
            ("voided", _) => return Err(Refused::Voided),
            _ if Card::behind(&held.token) == Card::CaptureDeclined => {
                return Err(Refused::Declined("card_declined".to_owned()));
            }
            _ => {}
        }
        self.movement(tx, &held, key, "capture", held.amount).await
    }

    /// Lets the money go. A key that is not known yet is remembered, and never holds money.
    ///
    /// # Errors
    /// [`Refused::Captured`], or the database's.
    pub async fn void(&self, authorization: &str) -> Result<Authorization, Refused> {
        let mut tx = self.db.begin().await?;
        query(
            "INSERT INTO authorizations (key, amount, currency, token, voided) \
             VALUES ($1, 0, 'EUR', '', TRUE) ON CONFLICT (key) DO NOTHING",
        )
        .bind(authorization)
        .execute(&mut tx)
        .await?;
        let held = find(&mut tx, authorization).await?.ok_or(Refused::Unknown)?;
        if held.times_captured > 0 {
            return Err(Refused::Captured);
        }
        query("UPDATE authorizations SET voided = TRUE WHERE key = $1")
            .bind(authorization)
            .execute(&mut tx)
            .await?;
        let voided = find(&mut tx, authorization).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(voided)
    }

    /// Gives some of it back, once per `key`.
    ///
    /// # Errors
    /// Any [`Refused`].
    pub async fn refund(
        &self,
        authorization: &str,
        key: &str,
        amount: i64,
    ) -> Result<Authorization, Refused> {
        let mut tx = self.db.begin().await?;
        let held = find(&mut tx, authorization).await?.ok_or(Refused::Unknown)?;
        let given = query("SELECT 1 FROM movements WHERE key = $1").bind(key);
        let again = given.fetch_optional(&mut tx).await?.is_some();
        if !again && amount > held.captured - held.refunded {
            return Err(Refused::ExceedsCaptured);
        }
        self.movement(tx, &held, key, "refund", amount).await
    }

    /// The authorization.
    ///
    /// # Errors
    /// [`Refused::Unknown`], or the database's.
    pub async fn authorization(&self, key: &str) -> Result<Authorization, Refused> {
        find(&self.db, key).await?.ok_or(Refused::Unknown)
    }

    /// The card behind an authorization.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn card(&self, authorization: &str) -> Result<Option<Card>, DbError> {
        let token = query("SELECT token FROM authorizations WHERE key = $1").bind(authorization);
        let row = token.fetch_optional(&self.db).await?;
        row.map(|row| row.get::<String>("token").map(|token| Card::behind(&token))).transpose()
    }

    /// All money moved, for one order or for all.
    ///
    /// # Errors
    /// Any [`DbError`].
    pub async fn statement(&self, order_id: Option<&str>) -> Result<Vec<Charge>, DbError> {
        let select = match order_id {
            Some(order_id) => {
                query(format!("{AUTHORIZATIONS} WHERE order_id = $1 ORDER BY key")).bind(order_id)
            }
            // What was only ever voided moved nothing, and is for no order.
            None => query(format!("{AUTHORIZATIONS} WHERE order_id IS NOT NULL ORDER BY key")),
        };
        select.fetch_all(&self.db).await?.iter().map(charge).collect()
    }

    async fn movement(
        &self,
        mut tx: Tx,
        held: &Authorization,
        key: &str,
        kind: &str,
        amount: i64,
    ) -> Result<Authorization, Refused> {
        query(
            "INSERT INTO movements (key, authorization, kind, amount) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (key) DO NOTHING",
        )
        .bind(key)
        .bind(held.key.as_str())
        .bind(kind)
        .bind(amount)
        .execute(&mut tx)
        .await?;
        let after = find(&mut tx, &held.key).await?.ok_or(Refused::Unknown)?;
        tx.commit().await?;
        Ok(after)
    }
}

const AUTHORIZATIONS: &str = "SELECT key, order_id, amount, currency, token, decline_code, voided, \
    (SELECT COALESCE(SUM(amount), 0) FROM movements WHERE authorization = authorizations.key \
        AND kind = 'capture') AS captured, \
    (SELECT COALESCE(SUM(amount), 0) FROM movements WHERE authorization = authorizations.key \
        AND kind = 'refund') AS refunded, \
    (SELECT COUNT(*) FROM movements WHERE authorization = authorizations.key \
        AND kind = 'capture') AS times_captured \
    FROM authorizations";

async fn find<'c>(conn: impl Into<Conn<'c>>, key: &str) -> Result<Option<Authorization>, DbError> {
    let select = query(format!("{AUTHORIZATIONS} WHERE key = $1")).bind(key);
    select.fetch_optional(conn).await?.as_ref().map(authorization).transpose()
}

fn authorization(row: &Row) -> Result<Authorization, DbError> {
    let (decline_code, times_captured) =
        (row.get::<Option<String>>("decline_code")?, row.get("times_captured")?);
    let status = match (row.get("voided")?, times_captured) {
        (true, _) => "voided",
        (false, 0) if decline_code.is_some() => "declined",
        (false, 0) => "authorized",
        (false, _) => "captured",
    };
    Ok(Authorization {
        key: row.get("key")?,
        order_id: row.get("order_id")?,
        amount: row.get("amount")?,
        currency: row.get("currency")?,
        status,
        decline_code,
        captured: row.get("captured")?,
        refunded: row.get("refunded")?,
        times_captured,
        token: row.get("token")?,
    })
}

fn charge(row: &Row) -> Result<Charge, DbError> {
    let voided = row.get("voided")?;
    let Authorization {
        key,
        order_id,
        amount,
        currency,
        decline_code,
        captured,
        refunded,
        times_captured,
        ..
    } = authorization(row)?;
    let authorized = if decline_code.is_some() { 0 } else { amount };
    Ok(Charge { key, order_id, currency, authorized, captured, refunded, voided, times_captured })
}
