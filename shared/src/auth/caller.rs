//! Extractors for handlers: the authenticated person, admin or service.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use uuid::Uuid;

use super::keys::Unverified;
use super::{Calls, KeySet, ServiceKeys, TokenError, UserClaims, bearer, service_token};
use crate::problem::{Problem, codes};

/// How long a request with an unknown key waits for a refresh of the key set. Two refreshes may be a second
/// apart.
const KEY_WAIT: Duration = Duration::from_secs(2);

/// How long a login counts as recent.
const RECENT_LOGIN: Duration = Duration::from_secs(300);

/// Verifies the tokens that one service receives.
#[derive(Clone)]
pub struct Authenticator {
    service: String,
    keys: ServiceKeys,
    calls: Calls,
    users: KeySet,
}

/// A person, authenticated by a user token, or by a service token on behalf of the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub id: Uuid,
    /// The session of the user token; `None` for a service token.
    pub session: Option<Uuid>,
    roles: Vec<String>,
    /// When the user token expires; `None` for a service token.
    expires_at: Option<SystemTime>,
    /// When the person logged in with a password; `None` for a service token.
    logged_in_at: Option<SystemTime>,
}

impl Caller {
    fn of_token(claims: &UserClaims) -> Self {
        let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Self {
            id: claims.sub,
            session: Some(claims.sid),
            roles: claims.roles.clone(),
            expires_at: time(claims.exp),
            logged_in_at: time(claims.auth_time),
        }
    }

    /// A user of an external issuer, whose token its caller has verified. It has no session here, and no login is recent.
    pub fn of_issuer(id: Uuid, roles: Vec<String>, expires_at: SystemTime) -> Self {
        Self { id, session: None, roles, expires_at: Some(expires_at), logged_in_at: None }
    }

    fn of_service(person: Uuid) -> Self {
        Self { id: person, session: None, roles: Vec::new(), expires_at: None, logged_in_at: None }
    }

    /// How long the user token is still valid at the time `now`; `None` for a service token.
    pub fn remaining(&self, now: SystemTime) -> Option<Duration> {
        self.expires_at.map(|end| end.duration_since(now).unwrap_or_default())
    }

    /// Whether the person gave a password at most [`RECENT_LOGIN`] before `now`.
    fn has_logged_in_recently(&self, now: SystemTime) -> bool {
        self.logged_in_at.is_some_and(|then| now.duration_since(then).unwrap_or_default() <= RECENT_LOGIN)
    }

    /// 403 without a recent login. A token may be stolen, and lives on with its session; a password that was given a
    /// moment ago is the person's own.
    pub fn require_recent_login(&self) -> Result<(), Problem> {
        match self.has_logged_in_recently(SystemTime::now()) {
            true => Ok(()),
            false => Err(Problem::new(
                codes::RECENT_LOGIN_REQUIRED,
                "Log in again: this needs a login that is not older than five minutes.",
            )),
        }
    }

    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == "admin")
    }

    /// Whether the caller may see resources of `owner`: its own, or all for an admin.
    pub fn may_see(&self, owner: Uuid) -> bool {
        self.id == owner || self.is_admin()
    }
}

/// A [`Caller`], or `None` without a token and for a service that calls for nobody. A bad token still gets 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaybeCaller(pub Option<Caller>);

/// A [`Caller`] with the role `admin`; others get 403.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin(pub Caller);

impl AsRef<Self> for Caller {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsRef<Caller> for Admin {
    fn as_ref(&self) -> &Caller {
        &self.0
    }
}

/// A service, authenticated by its service token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCaller {
    /// Name of the service.
    pub service: String,
    /// The person on whose behalf it calls.
    pub person: Option<Uuid>,
}

impl Authenticator {
    /// `service` is the audience that service tokens must have.
    pub fn new(service: &str, keys: ServiceKeys, calls: Calls, users: KeySet) -> Self {
        Self { service: service.to_owned(), keys, calls, users }
    }

    /// Verifies a user token, or a service token. `None` if a service calls for nobody.
    async fn caller(&self, token: &str, request: &HttpRequest) -> Result<Option<Caller>, TokenError> {
        if !is_service_token(token) {
            return self.person(token).await.map(Some);
        }
        Ok(self.service(token, request)?.person.map(Caller::of_service))
    }

    /// Verifies a user token. If its key is unknown, waits up to a second for a refresh of the key set.
    pub async fn person(&self, token: &str) -> Result<Caller, TokenError> {
        let mut verified = self.users.verify(token);
        if verified == Err(Unverified::UnknownKey) {
            let refreshed = tokio::time::timeout(KEY_WAIT, self.users.refreshed()).await;
            if refreshed.is_err() && self.users.is_empty() {
                return Err(TokenError::KeysUnavailable);
            }
            verified = self.users.verify(token);
        }
        let claims = verified.map_err(|unverified| match unverified {
            Unverified::Refused(refused) => refused,
            Unverified::UnknownKey => TokenError::Invalid,
        })?;
        Ok(Caller::of_token(&claims))
    }

    /// Verifies a service token, and that its service may send this request.
    fn service(&self, token: &str, request: &HttpRequest) -> Result<ServiceCaller, TokenError> {
        let (method, route) = (request.method().as_str(), request.match_pattern().unwrap_or_default());
        let claims = self.keys.verify(token, &self.service).inspect_err(|error| {
            if is_service_token(token) {
                log::warn!(error:%, method, route; "a service token is refused");
            }
        })?;
        if !self.calls.allow(&claims.iss, &self.service, method, &route, claims.sub.is_some()) {
            let for_person = claims.sub.is_some();
            log::warn!(caller = claims.iss, method, route, for_person; "a service's call is refused");
            return Err(TokenError::Forbidden);
        }
        Ok(ServiceCaller { service: claims.iss.clone(), person: claims.sub })
    }

    /// Whether `caller` may send an event of this kind with this source.
    #[cfg(feature = "db")]
    pub(crate) fn accepts(&self, caller: &ServiceCaller, source: &str, kind: &str) -> bool {
        let accepts = caller.service == source && self.lists(source, kind);
        if !accepts {
            log::warn!(caller = caller.service, source, message_type = kind; "a service's event is refused");
        }
        accepts
    }

    /// Whether the table lets `source` send this service events of this kind.
    #[cfg(feature = "db")]
    pub(crate) fn lists(&self, source: &str, kind: &str) -> bool {
        self.calls.accept(source, &self.service, kind)
    }
}

fn is_service_token(token: &str) -> bool {
    jsonwebtoken::decode_header(token).is_ok_and(|header| header.typ.as_deref() == Some(service_token::TYPE))
}

/// The bearer token of a request, if it has one.
pub fn token_of(request: &HttpRequest) -> Result<Option<String>, TokenError> {
    let mut values = request.headers().get_all(AUTHORIZATION);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(TokenError::Invalid);
    }
    // `to_str` looks at each byte: 5,000 instructions for a token. One with other characters is not valid anyway.
    let value = std::str::from_utf8(value.as_bytes()).map_err(|_| TokenError::Invalid)?;
    bearer(value).map(|token| Some(token.to_owned()))
}

pub(crate) fn authenticator(request: &HttpRequest) -> Result<Data<Authenticator>, Problem> {
    request.app_data::<Data<Authenticator>>().cloned().ok_or_else(|| {
        log::error!("the app has no Authenticator");
        Problem::internal()
    })
}

type Extraction<T> = Pin<Box<dyn Future<Output = Result<T, Problem>>>>;

impl FromRequest for MaybeCaller {
    type Error = Problem;
    type Future = Extraction<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let Some(token) = token_of(&request).map_err(TokenError::problem)? else { return Ok(Self(None)) };
            let caller =
                authenticator(&request)?.caller(&token, &request).await.map_err(TokenError::problem)?;
            Ok(Self(caller))
        })
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Extraction<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = MaybeCaller::from_request(request, payload);
        Box::pin(async move { caller.await?.0.ok_or_else(|| TokenError::Missing.problem()) })
    }
}

impl FromRequest for Admin {
    type Error = Problem;
    type Future = Extraction<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = Caller::from_request(request, payload);
        Box::pin(async move {
            match caller.await? {
                admin if admin.is_admin() => Ok(Self(admin)),
                _ => Err(Problem::of_status(StatusCode::FORBIDDEN)),
            }
        })
    }
}

impl FromRequest for ServiceCaller {
    type Error = Problem;
    type Future = Extraction<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let token = token_of(&request).map_err(TokenError::problem)?;
            let token = token.ok_or_else(|| TokenError::Missing.problem())?;
            authenticator(&request)?.service(&token, &request).map_err(TokenError::problem)
        })
    }
}
