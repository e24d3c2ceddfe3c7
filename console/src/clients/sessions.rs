//! Sessions of admins. The browser has a random key in a cookie; the tokens stay here, in memory, and are refreshed
//! when they are needed. After a restart of the console, admins log in again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use shared::auth::Authenticator;
use shared::client::{Context, ServiceClient};
use shared::digest;
use shared::http::Response;
use shared::problem::Problem;
use shared::trace::Current;
use time::OffsetDateTime;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use crate::error::Error;

/// The maximum age of a session.
pub const LIFE: Duration = Duration::from_secs(12 * 3600);
/// A session ends after this time without a request. An open map is one: it asks for the session every two seconds.
const IDLE: Duration = Duration::from_secs(4 * 3600);
/// An access token is replaced this long before it expires.
const MARGIN: Duration = Duration::from_secs(30);
/// Sessions at a time; the one that was not used for the longest time ends.
const MOST: usize = 500;

pub struct Sessions {
    users: ServiceClient,
    authenticator: Authenticator,
    open: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    opened: Instant,
    used: Instant,
    session: Arc<tokio::sync::Mutex<Session>>,
}

struct Session {
    person: Person,
    tokens: Tokens,
    until: Instant,
}

/// One request at a time looks at a session.
type Locked = OwnedMutexGuard<Session>;

#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    pub id: Uuid,
    pub email: String,
    pub logged_in_at: OffsetDateTime,
}

#[derive(Clone, Deserialize)]
struct Tokens {
    access_token: String,
    refresh_token: String,
    /// Seconds.
    expires_in: u64,
}

/// Why there is no session, as user-service has said it, or as an error.
pub enum Refusal {
    Answered(Response),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The header by which user-service counts failed logins.
const CLIENT_ADDRESS: &str = "x-real-ip";

impl Sessions {
    pub fn new(users: ServiceClient, authenticator: Authenticator) -> Self {
        Self { users, authenticator, open: Mutex::default() }
    }

    /// Opens a session for an admin; returns its key.
    pub async fn log_in(
        &self,
        email: &str,
        password: &str,
        address: Option<String>,
        context: &Context,
    ) -> Result<(String, Person), Refusal> {
        let request = self.users.post("/api/sessions").json(&json!({ "email": email, "password": password }));
        let request = request.context(context);
        let answer = match address {
            Some(address) => request.header(CLIENT_ADDRESS, address).send().await?,
            None => request.send().await?,
        };
        if !answer.status.is_success() {
            return Err(Refusal::Answered(answer));
        }
        let tokens: Tokens = answer.json()?;
        let caller =
            self.authenticator.person(&tokens.access_token).await.map_err(|error| error.problem())?;
        if !caller.is_admin() {
            self.end(&tokens).await;
            return Err(Error::NotAdmin.into());
        }
        let person = Person { id: caller.id, email: email.to_owned(), logged_in_at: shared::db::now() };
        let key = digest::hex(&rand::random::<[u8; 32]>());
        let session = Session { person: person.clone(), until: end_of(&tokens), tokens };
        let now = Instant::now();
        let entry = Entry { opened: now, used: now, session: Arc::new(tokio::sync::Mutex::new(session)) };
        let mut open = self.open();
        open.insert(key.clone(), entry);
        if open.len() > MOST
            && let Some(oldest) = open.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone())
        {
            open.remove(&oldest);
        }
        Ok((key, person))
    }

    /// The person of a session, and a token that is valid for some time.
    ///
    /// # Errors
    /// [`Error::SessionOver`], also if user-service refuses to refresh the token.
    pub async fn find(&self, key: &str, context: &Context) -> Result<(Person, String), Error> {
        let session = {
            let mut open = self.open();
            open.retain(|_, entry| entry.opened.elapsed() < LIFE && entry.used.elapsed() < IDLE);
            let entry = open.get_mut(key).ok_or(Error::SessionOver)?;
            entry.used = Instant::now();
            entry.session.clone()
        };
        let refreshed = self.refresh(session.lock_owned().await, context).await;
        if matches!(refreshed, Err(Error::SessionOver)) {
            self.open().remove(key);
        }
        let session = refreshed?;
        Ok((session.person.clone(), session.tokens.access_token.clone()))
    }

    /// Replaces tokens that are about to expire. A refresh token is good once: so this goes on in a task of its own if
    /// the admin leaves, and their next request waits for it.
    async fn refresh(&self, session: Locked, context: &Context) -> Result<Locked, Error> {
        if Instant::now() + MARGIN < session.until {
            return Ok(session);
        }
        let refreshing = refresh(self.users.clone(), session, context.without_deadline());
        let current = Current::with(Clone::clone);
        let refreshed = match current {
            Some(current) => actix_web::rt::spawn(current.scope(refreshing)).await,
            None => actix_web::rt::spawn(refreshing).await,
        };
        refreshed.unwrap_or_else(|failed| Err(Problem::internal().because(&failed).into()))
    }

    /// Ends a session: here in any case, and at user-service if that responds. Otherwise its tokens expire there.
    pub async fn log_out(&self, key: &str, context: &Context) {
        let entry = self.open().remove(key);
        if let Some(entry) = entry {
            match self.refresh(entry.session.lock_owned().await, context).await {
                Ok(session) => self.end(&session.tokens).await,
                Err(Error::SessionOver) => {}
                Err(error) => {
                    log::warn!(error:%; "a session cannot be ended at user-service: it expires there")
                }
            }
        }
    }

    async fn end(&self, tokens: &Tokens) {
        let bearer = format!("Bearer {}", tokens.access_token);
        let request = self.users.delete("/api/sessions/current").header("authorization", bearer);
        if let Err(error) = request.send().await {
            log::warn!(error:%; "a session cannot be ended at user-service: it expires there");
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn refresh(users: ServiceClient, mut session: Locked, context: Context) -> Result<Locked, Error> {
    let body = json!({ "refresh_token": session.tokens.refresh_token });
    let request = users.post("/api/sessions/refresh").json(&body).idempotent();
    let answer = request.context(&context).send().await?;
    if answer.status.is_client_error() && answer.status != 429 {
        return Err(Error::SessionOver);
    }
    if !answer.status.is_success() {
        return Err(Problem::unavailable(1).into());
    }
    session.tokens = answer.json()?;
    session.until = end_of(&session.tokens);
    Ok(session)
}

fn end_of(tokens: &Tokens) -> Instant {
    Instant::now() + Duration::from_secs(tokens.expires_in)
}
