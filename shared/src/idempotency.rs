//! `Idempotency-Key`: a repeated request has one effect and gets the same response.
//!
//! The transaction of the effect also claims the key and saves the response, so there is never one without
//! the other. An error rolls the transaction back, and the key stays free. Keys are scoped to caller, method
//! and path, and kept for 24 hours.
//!
//! ```text
//! no row ──claim──► claimed (in the transaction) ──save + commit──► answered ──24 h──► no row
//!                     └──rollback──► no row
//! ```

mod group_commit; // requests that share a transaction
#[cfg(test)]
mod tests;

pub use group_commit::{GroupCommit, Operation, Plans};

use std::collections::BTreeSet;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::{FromRequest, HttpRequest, HttpResponse, Responder, web};
use serde::{Deserialize, Serialize};
use time::Duration;
use uuid::Uuid;

use crate::db::{Db, DbError, Retention, Tx, placeholders, query};
use crate::digest;
use crate::problem::{Problem, codes};

const LIFETIME: Duration = Duration::hours(24);
/// Expired keys.
pub(crate) const RETENTION: [Retention; 1] =
    [Retention { table: "idempotency_keys", key: "scope, key", time: "expires_at", kept: Duration::ZERO }];

pub const HEADER: &str = crate::http::IDEMPOTENCY_KEY;

/// Extractor: the `Idempotency-Key` of a request, if it has one.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    key: Option<String>,
    /// Method and path.
    target: String,
    running: Arc<Running>,
}

/// The keys whose requests are running in this process; shared by its workers.
#[derive(Debug, Default)]
pub struct Running(Mutex<BTreeSet<(String, String)>>);

/// A request with its key and body. Without a key nothing is claimed, and each request has an effect.
#[derive(Debug)]
pub struct Claim(Option<Keyed>);

#[derive(Debug)]
struct Keyed {
    scope: String,
    key: String,
    fingerprint: String,
    running: Arc<Running>,
}

/// Result of [`Claim::begin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The key is new: do the work, then [`Claim::save`] the response unless the claim has stored it.
    First,
    /// The request succeeded before, with this response.
    Replay(StoredResponse),
    /// The key was used before with another body.
    OtherBody,
    /// The same request is running now.
    InFlight,
}

/// A successful response that can be stored and replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    #[serde(skip)]
    replayed: bool,
}

/// Result of [`Claim::once`].
#[derive(Debug)]
pub enum Outcome<T> {
    /// The effect happened now.
    Done { value: T, answer: StoredResponse },
    /// The effect happened before, with this response.
    Replayed(StoredResponse),
}

impl<T> Outcome<T> {
    pub fn into_stored(self) -> StoredResponse {
        match self {
            Self::Done { answer, .. } | Self::Replayed(answer) => answer,
        }
    }
}

impl IdempotencyKey {
    /// 428 if the request has no key.
    pub fn required(self) -> Result<Self, Problem> {
        match self.key {
            Some(_) => Ok(self),
            None => Err(Problem::of_status(StatusCode::PRECONDITION_REQUIRED)),
        }
    }

    /// Binds the key to `caller` (`None` on a public route) and to the body's `bytes`. 409 if this process is
    /// running a request with the same key.
    pub fn claim(self, caller: Option<Uuid>, bytes: &[u8]) -> Result<Claim, Problem> {
        let Some(key) = self.key else { return Ok(Claim(None)) };
        let caller = caller.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let scope = format!("{caller} {}", self.target);
        if !self.running.enter(&scope, &key) {
            return Err(in_progress());
        }
        let fingerprint = digest::sha256(bytes);
        Ok(Claim(Some(Keyed { scope, key, fingerprint, running: self.running })))
    }
}

impl FromRequest for IdempotencyKey {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let running = request.app_data::<web::Data<Running>>().cloned().map(web::Data::into_inner);
        let target = format!("{} {}", request.method(), request.path());
        ready(key_of(request).map(|key| Self { key, target, running: running.unwrap_or_default() }))
    }
}

fn key_of(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let mut values = request.headers().get_all(HEADER);
    let Some(value) = values.next() else { return Ok(None) };
    let bytes = value.as_bytes();
    let visible = (1..=255).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    match String::from_utf8(bytes.to_vec()) {
        Ok(key) if visible && values.next().is_none() => Ok(Some(key)),
        _ => Err(Problem::invalid_parameter("Idempotency-Key", "must be 1 to 255 visible ASCII characters")),
    }
}

impl Running {
    fn enter(&self, scope: &str, key: &str) -> bool {
        let mut running = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        running.insert((scope.to_owned(), key.to_owned()))
    }

    fn leave(&self, scope: &str, key: &str) {
        let mut running = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        running.remove(&(scope.to_owned(), key.to_owned()));
    }
}

impl Drop for Keyed {
    fn drop(&mut self) {
        self.running.leave(&self.scope, &self.key);
    }
}

impl Claim {
    /// Runs `effect` in one transaction with the claim, at most once per key, and stores the `answer`.
    ///
    /// # Errors
    /// Those of `effect` and of the database; 422 if the key was used with another body; 409 if the same
    /// request is running on another replica.
    pub async fn once<T, E>(
        self,
        db: &Db,
        answer: impl FnOnce(&T) -> StoredResponse,
        effect: impl AsyncFnOnce(&mut Tx) -> Result<T, E>,
    ) -> Result<Outcome<T>, E>
    where
        E: From<DbError> + From<Problem>,
    {
        let mut tx = db.begin().await?;
        if let Some(replay) = self.first_or_replay::<E>(&mut tx, None).await? {
            return Ok(Outcome::Replayed(replay));
        }
        let value = effect(&mut tx).await?;
        let answer = answer(&value);
        self.save(&mut tx, &answer).await?;
        tx.commit().await?;
        Ok(Outcome::Done { value, answer })
    }

    /// Claims the key. Returns the stored response if the request succeeded before.
    async fn first_or_replay<E>(
        &self,
        tx: &mut Tx,
        answer: Option<&StoredResponse>,
    ) -> Result<Option<StoredResponse>, E>
    where
        E: From<DbError> + From<Problem>,
    {
        match self.begin(tx, answer).await? {
            Claimed::First => Ok(None),
            Claimed::Replay(stored) => Ok(Some(stored)),
            Claimed::OtherBody => Err(reused().into()),
            Claimed::InFlight => Err(in_progress().into()),
        }
    }

    /// Claims the key in `tx`, and stores the `answer` if it is known. While another replica runs the same request, this
    /// waits for its end, up to the lock timeout.
    pub async fn begin(&self, tx: &mut Tx, answer: Option<&StoredResponse>) -> Result<Claimed, DbError> {
        let Some(keyed) = &self.0 else { return Ok(Claimed::First) };
        match insert_unless_used(tx, &[(keyed, answer)]).await {
            Ok(claimed) if claimed.is_empty() => keyed.earlier(tx).await,
            Ok(_) => Ok(Claimed::First),
            Err(DbError::Locked(_)) => Ok(Claimed::InFlight),
            Err(error) => Err(error),
        }
    }

    /// Stores `answer` for repeated requests.
    pub async fn save(&self, tx: &mut Tx, answer: &StoredResponse) -> Result<(), DbError> {
        let Some(Keyed { scope, key, .. }) = &self.0 else { return Ok(()) };
        query("UPDATE idempotency_keys SET answer = $3 WHERE scope = $1 AND key = $2")
            .bind(scope.as_str())
            .bind(key.as_str())
            .bind(serde_json::json!(answer))
            .execute(tx)
            .await?;
        Ok(())
    }
}

impl Keyed {
    /// Result of a claim for a key that was used before.
    async fn earlier(&self, tx: &mut Tx) -> Result<Claimed, DbError> {
        let Self { scope, key, fingerprint, .. } = self;
        let row = query("SELECT fingerprint, answer FROM idempotency_keys WHERE scope = $1 AND key = $2")
            .bind(scope.as_str())
            .bind(key.as_str())
            .fetch_one(&mut *tx)
            .await?;
        if row.get::<String>("fingerprint")? != *fingerprint {
            return Ok(Claimed::OtherBody);
        }
        let saved: Option<serde_json::Value> = row.get("answer")?;
        Ok(match saved.and_then(|saved| serde_json::from_value::<StoredResponse>(saved).ok()) {
            Some(answer) => Claimed::Replay(StoredResponse { replayed: true, ..answer }),
            None => Claimed::InFlight,
        })
    }
}

/// Claims the keys of several requests, each with its response. Returns for each whether its key was free.
async fn claim_all(tx: &mut Tx, claims: &[(&Claim, &StoredResponse)]) -> Result<Vec<bool>, DbError> {
    let keyed = claims.iter().filter_map(|(claim, response)| Some((claim.0.as_ref()?, Some(*response))));
    let mut free = insert_unless_used(tx, &keyed.collect::<Vec<_>>()).await?;
    let mut is_free = |(Claim(keyed), _): &(&Claim, _)| match keyed {
        // Equal keys get here from tests only, because a process runs one request for each key.
        Some(Keyed { scope, key, .. }) => free.remove(&(scope.clone(), key.clone())),
        None => true,
    };
    Ok(claims.iter().map(&mut is_free).collect())
}

/// Inserts the rows of the keys, or replaces those that have expired. Returns scope and key of each; the others are in use.
async fn insert_unless_used(
    tx: &mut Tx,
    claims: &[(&Keyed, Option<&StoredResponse>)],
) -> Result<BTreeSet<(String, String)>, DbError> {
    if claims.is_empty() {
        return Ok(BTreeSet::new());
    }
    // All transactions lock the rows in the same order, so that none deadlock.
    let mut claims = claims.to_vec();
    claims.sort_by(|(one, _), (other, _)| (&one.scope, &one.key).cmp(&(&other.scope, &other.key)));
    let now = tx.now();
    let insert = query(format!(
        "INSERT INTO idempotency_keys (scope, key, fingerprint, answer, expires_at) VALUES {} \
         ON CONFLICT (scope, key) DO UPDATE \
         SET fingerprint = excluded.fingerprint, answer = excluded.answer, expires_at = excluded.expires_at \
         WHERE idempotency_keys.expires_at < $1 RETURNING scope, key",
        placeholders(2, 5, claims.len())
    ));
    let insert = claims.into_iter().fold(insert.bind(now), |insert, (keyed, answer)| {
        insert
            .bind(keyed.scope.as_str())
            .bind(keyed.key.as_str())
            .bind(keyed.fingerprint.as_str())
            .bind(answer.map(|answer| serde_json::json!(answer)))
            .bind(now + LIFETIME)
    });
    let claimed = insert.fetch_all(tx).await?;
    claimed.iter().map(|row| Ok((row.get("scope")?, row.get("key")?))).collect()
}

impl StoredResponse {
    pub fn json(status: StatusCode, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).unwrap_or_else(|error| {
            log::error!(error:%; "an answer cannot be written as JSON");
            "null".to_owned()
        });
        Self { status: status.as_u16(), headers: Vec::new(), body, replayed: false }
    }

    /// 204.
    pub fn no_content() -> Self {
        let status = StatusCode::NO_CONTENT.as_u16();
        Self { status, headers: Vec::new(), body: String::new(), replayed: false }
    }

    pub fn header(mut self, (name, value): (HeaderName, String)) -> Self {
        self.headers.push((name.as_str().to_owned(), value));
        self
    }

    /// Whether this is the stored response to an earlier request.
    pub fn is_replayed(&self) -> bool {
        self.replayed
    }

    /// Adds `Idempotency-Replayed: true` to a replayed response.
    pub fn response(&self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let mut response = HttpResponse::build(status);
        for (name, value) in &self.headers {
            response.insert_header((name.as_str(), value.as_str()));
        }
        if self.replayed {
            response.insert_header(("idempotency-replayed", "true"));
        }
        if self.body.is_empty() {
            return response.finish();
        }
        response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        response.body(self.body.clone())
    }
}

impl Responder for StoredResponse {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.response()
    }
}

impl<T> Responder for Outcome<T> {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        self.into_stored().respond_to(request)
    }
}

fn reused() -> Problem {
    Problem::new(codes::IDEMPOTENCY_KEY_REUSED, "This Idempotency-Key was used with another body.")
}

fn in_progress() -> Problem {
    Problem::new(
        codes::IDEMPOTENCY_IN_PROGRESS,
        "The first request with this Idempotency-Key is still running.",
    )
    .retry_after(1)
}
