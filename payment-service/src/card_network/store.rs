//! Authorizations, and the money that moved. Every operation has a key under which it happens once.

use serde::Serialize;
use shared::db::{Conn, Db, DbError, Migrations, Row, Tx, query};

use super::cards::{Card, Operation};
use super::error::Error;

pub fn migrations() -> Migrations {
    Migrations { sqlite: sqlx::migrate!("migrations/card-network"), ..Migrations::none() }
}

#[derive(Debug, Clone)]
pub struct Store {
    db: Db,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationRequest {
    pub key: String,
    pub order_id: String,
    /// In minor units.
    pub amount: i64,
    pub currency: String,
    pub token: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Authorization {
    pub key: String,
    /// `None` if the key was voided before it was authorized.
    pub order_id: Option<String>,
    pub amount: i64,
    pub currency: String,
    /// `authorized`, `declined`, `captured` or `voided`.
    pub status: &'static str,
    pub decline_code: Option<String>,
    pub captured: i64,
    pub refunded: i64,
    /// More than 1 is a double charge.
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

/// Which charges a statement lists: all but those that a field excludes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatementRange {
    pub order_id: Option<String>,
    /// Only keys above this one.
    pub after: Option<String>,
    /// Only keys up to this one.
    pub up_to: Option<String>,
    /// Only the first so many.
    pub limit: Option<u32>,
}

impl Authorization {
    pub fn card(&self) -> Card {
        Card::from_token(&self.token)
    }
}

impl Store {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Counts the calls of an operation, from 1.
    pub async fn count_call(&self, tx: &mut Tx, operation: Operation, key: &str) -> Result<i64, DbError> {
        let count = query(
            "INSERT INTO calls (operation, key, calls) VALUES ($1, $2, 1) \
             ON CONFLICT (operation, key) DO UPDATE SET calls = calls.calls + 1 RETURNING calls",
        );
        count.bind(operation.as_str()).bind(key).fetch_one(tx).await?.get("calls")
    }

    /// Holds the money, unless the card is declined or the key was voided before.
    ///
    /// # Errors
    /// [`Error::KeyReused`].
    pub async fn authorize(
        &self,
        tx: &mut Tx,
        request: &AuthorizationRequest,
    ) -> Result<Authorization, Error> {
        let decline_code = match Card::from_token(&request.token) {
            Card::Declined(code) => Some(code),
            _ => None,
        };
        // An earlier void had no order; it stays voided.
        let held = query(format!(
            "INSERT INTO authorizations (key, order_id, amount, currency, token, decline_code, voided) \
             VALUES ($1, $2, $3, $4, $5, $6, FALSE) ON CONFLICT (key) DO UPDATE \
             SET order_id = excluded.order_id, amount = excluded.amount, currency = excluded.currency, \
                 token = excluded.token \
             WHERE authorizations.order_id IS NULL RETURNING {COLUMNS}"
        ))
        .bind(request.key.as_str())
        .bind(request.order_id.as_str())
        .bind(request.amount)
        .bind(request.currency.as_str())
        .bind(request.token.as_str())
        .bind(decline_code)
        .fetch_optional(&mut *tx)
        .await?;
        let held = match held {
            Some(row) => authorization(&row)?,
            None => self.authorization(tx, &request.key).await?,
        };
        let same = held.order_id.as_ref() == Some(&request.order_id)
            && (held.amount, &held.currency, &held.token)
                == (request.amount, &request.currency, &request.token);
        if same { Ok(held) } else { Err(Error::KeyReused) }
    }

    /// Takes the money that is held, once per `key`. Another key takes it again, and the statement shows
    /// it.
    pub async fn capture(
        &self,
        tx: &mut Tx,
        mut held: Authorization,
        key: &str,
    ) -> Result<Authorization, Error> {
        match (held.status, &held.decline_code) {
            (_, Some(code)) => return Err(Error::Declined(code.clone())),
            ("voided", _) => return Err(Error::Voided),
            _ if held.card() == Card::CaptureDeclined => {
                return Err(Error::Declined("card_declined".to_owned()));
            }
            _ => {}
        }
        let amount = held.card().executed_amount(held.amount);
        if move_money(tx, &held, key, "capture", amount).await? {
            held.captured += amount;
            held.times_captured += 1;
            held.status = "captured";
        }
        Ok(held)
    }

    /// Releases the money. An unknown key is kept, and never holds money later.
    ///
    /// # Errors
    /// [`Error::Captured`].
    pub async fn void(&self, tx: &mut Tx, authorization: &str) -> Result<Authorization, Error> {
        query(
            "INSERT INTO authorizations (key, amount, currency, token, voided) \
             VALUES ($1, 0, 'EUR', '', TRUE) ON CONFLICT (key) DO NOTHING",
        )
        .bind(authorization)
        .execute(&mut *tx)
        .await?;
        if self.authorization(&mut *tx, authorization).await?.times_captured > 0 {
            return Err(Error::Captured);
        }
        query("UPDATE authorizations SET voided = TRUE WHERE key = $1")
            .bind(authorization)
            .execute(&mut *tx)
            .await?;
        self.authorization(tx, authorization).await
    }

    /// Gives money back, once per `key`.
    ///
    /// # Errors
    /// [`Error::ExceedsCaptured`].
    pub async fn refund(
        &self,
        tx: &mut Tx,
        mut held: Authorization,
        key: &str,
        amount: i64,
    ) -> Result<Authorization, Error> {
        let earlier = query("SELECT 1 FROM movements WHERE key = $1").bind(key);
        let repeated = earlier.fetch_optional(&mut *tx).await?.is_some();
        if !repeated && amount > held.captured - held.refunded {
            return Err(Error::ExceedsCaptured);
        }
        let amount = held.card().executed_amount(amount);
        if move_money(tx, &held, key, "refund", amount).await? {
            held.refunded += amount;
        }
        Ok(held)
    }

    pub async fn authorization<'c>(
        &self,
        conn: impl Into<Conn<'c>>,
        key: &str,
    ) -> Result<Authorization, Error> {
        let select = query(format!("SELECT {COLUMNS} FROM authorizations WHERE key = $1")).bind(key);
        let row = select.fetch_optional(conn).await?.ok_or(Error::NotFound)?;
        Ok(authorization(&row)?)
    }

    /// All money moved, in the order of the keys.
    pub async fn statement(&self, range: &StatementRange) -> Result<Vec<Charge>, DbError> {
        let wanted = [("order_id =", &range.order_id), ("key >", &range.after), ("key <=", &range.up_to)];
        let wanted: Vec<_> =
            wanted.into_iter().filter_map(|(column, value)| Some((column, value.as_deref()?))).collect();
        // Without an order it was only voided, and moved nothing.
        let mut sql = format!("SELECT {COLUMNS} FROM authorizations WHERE order_id IS NOT NULL");
        for (number, (column, _)) in (1..).zip(&wanted) {
            sql += &format!(" AND {column} ${number}");
        }
        sql += " ORDER BY key";
        if let Some(limit) = range.limit {
            sql += &format!(" LIMIT {limit}");
        }
        let select = wanted.iter().fold(query(sql), |query, (_, value)| query.bind(*value));
        select.fetch_all(&self.db).await?.iter().map(charge).collect()
    }
}

/// Returns whether the movement is new.
async fn move_money(
    tx: &mut Tx,
    held: &Authorization,
    key: &str,
    kind: &str,
    amount: i64,
) -> Result<bool, DbError> {
    let insert = query(
        "INSERT INTO movements (key, authorization, kind, amount) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (key) DO NOTHING",
    );
    let insert = insert.bind(key).bind(held.key.as_str()).bind(kind).bind(amount);
    Ok(insert.execute(tx).await? == 1)
}

const COLUMNS: &str = "key, order_id, amount, currency, token, decline_code, voided, \
    (SELECT COALESCE(SUM(amount), 0) FROM movements WHERE authorization = authorizations.key \
        AND kind = 'capture') AS captured, \
    (SELECT COALESCE(SUM(amount), 0) FROM movements WHERE authorization = authorizations.key \
        AND kind = 'refund') AS refunded, \
    (SELECT COUNT(*) FROM movements WHERE authorization = authorizations.key \
        AND kind = 'capture') AS times_captured";

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
