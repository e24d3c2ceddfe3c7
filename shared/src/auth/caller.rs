//! What handlers ask for: a person, an admin, a service.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use uuid::Uuid;

use super::keys::Unverified;
use super::{KeySet, ServiceKey, TokenError, bearer};
use crate::problem::Problem;

/// How long a request waits for a key set that might know its token's key.
const KEY_WAIT: Duration = Duration::from_secs(1);

/// Checks tokens for one service. Lives in the app's data.
#[derive(Clone)]
pub struct Authenticator {
    service: String,
    service_key: ServiceKey,
    users: KeySet,
}

/// A person: calling with a user token, or through a service that acts for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The person's id.
    pub id: Uuid,
    /// The session of the token; `None` when a service acts for the person.
    pub session: Option<Uuid>,
    roles: Vec<String>,
}

impl Caller {
    /// A caller with these roles, as a verified token named them.
    pub fn new(id: Uuid, session: Option<Uuid>, roles: Vec<String>) -> Self {
        Self { id, session, roles }
    }

    /// Whether the caller is an admin.
    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == "admin")
    }

    /// Whether what belongs to `owner` may be shown to the caller.
    pub fn may_see(&self, owner: Uuid) -> bool {
        self.id == owner || self.is_admin()
    }
}

/// A [`Caller`] if there is a token; a bad token is still refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaybeCaller(pub Option<Caller>);

/// A [`Caller`] with the role `admin`; anybody else gets 403.
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

/// A service of the stack, by its service token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCaller {
    /// Which service.
    pub service: String,
    /// The person it acts for.
    pub person: Option<Uuid>,
}

impl Authenticator {
    /// Checks tokens made for `service`.
    pub fn new(service: &str, service_key: ServiceKey, users: KeySet) -> Self {
        Self { service: service.to_owned(), service_key, users }
    }

    /// The keys that user tokens are checked with.
    pub fn users(&self) -> &KeySet {
        &self.users
    }

    /// The person behind `token`, or behind the service that shows it.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub async fn caller(&self, token: &str) -> Result<Caller, TokenError> {
        let refused = match self.person(token).await {
            Ok(caller) => return Ok(caller),
            Err(refused) => refused,
        };
        match self.service(token) {
            Ok(ServiceCaller { person: Some(person), .. }) => Ok(Caller::new(person, None, Vec::new())),
            _ => Err(refused),
        }
    }

    /// The person whose own token this is. A key that is not known yet is waited for.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub async fn person(&self, token: &str) -> Result<Caller, TokenError> {
        let claims = match self.users.verify(token) {
            Err(Unverified::UnknownKey) => {
                let refreshed = tokio::time::timeout(KEY_WAIT, self.users.refreshed()).await;
                self.users.verify(token).map_err(|unverified| match unverified {
                    Unverified::Refused(refused) => refused,
                    Unverified::UnknownKey if refreshed.is_err() && self.users.is_empty() => {
                        TokenError::KeysUnavailable
                    }
                    Unverified::UnknownKey => TokenError::Invalid,
                })?
            }
            verified => verified.map_err(|unverified| match unverified {
                Unverified::Refused(refused) => refused,
                Unverified::UnknownKey => TokenError::Invalid,
            })?,
        };
        Ok(Caller::new(claims.sub, Some(claims.sid), claims.roles))
    }

    /// The service behind `token`.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] or [`TokenError::Expired`].
    pub fn service(&self, token: &str) -> Result<ServiceCaller, TokenError> {
        let claims = self.service_key.verify(token, &self.service)?;
        Ok(ServiceCaller { service: claims.iss, person: claims.sub })
    }
}

fn token_of(request: &HttpRequest) -> Result<Option<String>, TokenError> {
    let mut values = request.headers().get_all(AUTHORIZATION);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(TokenError::Invalid);
    }
    let value = value.to_str().map_err(|_| TokenError::Invalid)?;
    bearer(value).map(|token| Some(token.to_owned()))
}

fn authenticator(request: &HttpRequest) -> Result<Data<Authenticator>, Problem> {
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
            let caller = authenticator(&request)?.caller(&token).await.map_err(TokenError::problem)?;
            Ok(Self(Some(caller)))
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
            authenticator(&request)?.service(&token).map_err(TokenError::problem)
        })
    }
}
