//! Tokens of one external issuer (OpenID Connect), beside those of user-service.
//!
//! The gateway verifies them at the edge, for `access`, the limits of a user, and the access log. It passes them on as
//! they are: a service that takes them verifies them, too. The services of this project take those of user-service only.

mod fetch; // the issuer's keys, over HTTPS

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::auth::{Caller, TokenError};
use shared::stop::Stop;
use tokio::sync::Notify;
use tokio::time::Instant;
use url::{Host, Url};
use uuid::Uuid;

/// `[oidc]`: tokens of this issuer are accepted, too. It is read only at the start.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OidcEntry {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// One of the `aud` of its tokens.
    pub audience: String,
    /// Where it publishes its keys: `https:`, or `http:` on this machine.
    pub jwks_url: String,
    /// Certificates (PEM) of the authorities that may vouch for `jwks_url`.
    #[serde(default = "default_ca")]
    pub ca_file: PathBuf,
    /// The claim that tells users apart. The gateway's id of a user is a UUID of the issuer and this claim.
    #[serde(default = "default_subject")]
    pub subject_claim: String,
    /// The claim with a list of roles; a dot leads into an object.
    #[serde(default = "default_roles")]
    pub roles_claim: String,
    /// What these roles are here: `{ "shop-admins" = "admin" }`. Others count for nothing.
    #[serde(default)]
    pub roles: BTreeMap<String, String>,
}

fn default_ca() -> PathBuf {
    "/etc/ssl/certs/ca-certificates.crt".into()
}

fn default_subject() -> String {
    "sub".to_owned()
}

fn default_roles() -> String {
    "roles".to_owned()
}

/// How often keys are fetched.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
/// How often they are fetched at most, however many tokens have unknown keys.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// How long a request with an unknown key waits for the next set of keys. Longer than [`MIN_INTERVAL`], so that a new key
/// counts from its first token on.
const KEY_WAIT: Duration = Duration::from_secs(3);
/// How long the next fetch waits at most, after some that have failed: a key may have been revoked meanwhile.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Keys of an issuer.
const MAX_KEYS: usize = 32;
/// Clocks may differ by so much.
const LEEWAY_S: u64 = 5;

impl OidcEntry {
    /// The error is the key that cannot be used, and why.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        if self.issuer.is_empty() || self.audience.is_empty() {
            return Err(("issuer", "issuer and audience must not be empty"));
        }
        let url = Url::parse(&self.jwks_url).ok();
        let is_here = |url: &Url| match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            _ => false,
        };
        let is_usable = url.is_some_and(|url| match url.scheme() {
            "https" => url.host().is_some(),
            "http" => is_here(&url),
            _ => false,
        });
        match is_usable {
            true => Ok(()),
            false => Err(("jwks_url", "must be https:, or http: with a loopback address")),
        }
    }

    /// Checks that the certificates of the authorities can be read, if they are needed.
    pub fn check_ca_file(&self) -> Result<(), String> {
        if !self.jwks_url.starts_with("https:") {
            return Ok(());
        }
        let pem = std::fs::read(&self.ca_file).map_err(|error| error.to_string());
        let roots = pem.and_then(|pem| fetch::roots(&pem)).map(drop);
        roots.map_err(|why| format!("oidc.ca_file: {}: {why}", self.ca_file.display()))
    }
}

/// The issuer, with the keys that are known now.
pub struct Oidc {
    entry: OidcEntry,
    keys: RwLock<BTreeMap<String, DecodingKey>>,
    wanted: Notify,
    changed: Notify,
}

/// What a token must have, whatever else it says.
#[derive(Deserialize)]
struct Issued {
    iss: Option<String>,
}

impl Oidc {
    pub fn new(entry: OidcEntry) -> Arc<Self> {
        Arc::new(Self { entry, keys: RwLock::default(), wanted: Notify::new(), changed: Notify::new() })
    }

    /// Whether `token` says that it is of this issuer. Nothing of it is verified.
    pub fn is_issuer_of(&self, token: &str) -> bool {
        let issued = jsonwebtoken::dangerous::insecure_decode_claims::<Issued>(token);
        issued.is_ok_and(|issued| issued.iss.as_ref() == Some(&self.entry.issuer))
    }

    /// Verifies a token. If its key is unknown, waits for the next set of keys. Without one, nobody can know whether the
    /// token is good: [`TokenError::KeysUnavailable`].
    pub async fn person(&self, token: &str) -> Result<Caller, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        let kid = header.kid.ok_or(TokenError::Invalid)?;
        let key = match self.key(&kid) {
            Some(key) => key,
            None => {
                let changed = self.changed.notified();
                self.wanted.notify_one();
                let changed = tokio::time::timeout(KEY_WAIT, changed).await;
                self.key(&kid).ok_or(match changed {
                    Ok(()) => TokenError::Invalid,
                    Err(_) => TokenError::KeysUnavailable,
                })?
            }
        };
        self.verify(token, header.alg, &key)
    }

    fn verify(&self, token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Caller, TokenError> {
        // A public key must not be taken for the secret of an HMAC.
        if algorithm.family() != key.family() || key.family() == AlgorithmFamily::Hmac {
            return Err(TokenError::Invalid);
        }
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[&self.entry.audience]);
        validation.set_issuer(&[&self.entry.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_S;
        let claims =
            jsonwebtoken::decode::<Value>(token, key, &validation).map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            })?;
        self.caller(&claims.claims).ok_or(TokenError::Invalid)
    }

    fn caller(&self, claims: &Value) -> Option<Caller> {
        let subject =
            claim(claims, &self.entry.subject_claim)?.as_str().filter(|subject| !subject.is_empty())?;
        let issuer = Uuid::new_v5(&Uuid::NAMESPACE_URL, self.entry.issuer.as_bytes());
        let named = claim(claims, &self.entry.roles_claim).and_then(Value::as_array).into_iter().flatten();
        let roles = named.filter_map(|role| self.entry.roles.get(role.as_str()?).cloned());
        let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(claims["exp"].as_f64()? as u64));
        let id = Uuid::new_v5(&issuer, subject.as_bytes());
        Some(Caller::of_issuer(id, roles.collect(), expires_at.unwrap_or(SystemTime::now())))
    }

    fn key(&self, kid: &str) -> Option<DecodingKey> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(kid).cloned()
    }

    fn is_empty(&self) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Fetches the keys at the start, regularly, and when an unknown one is wanted, until `stop`. While the issuer is
    /// away, the known keys stay.
    pub async fn follow(self: Arc<Self>, stop: Stop) {
        let mut failures = 0;
        while !stop.is_requested() {
            let fetched = Instant::now();
            match fetch::jwks(&self.entry.jwks_url, &self.entry.ca_file).await {
                Ok(jwks) => {
                    failures = 0;
                    *self.keys.write().unwrap_or_else(PoisonError::into_inner) = usable(&jwks);
                    self.changed.notify_waiters();
                }
                Err(why) => {
                    failures += 1;
                    log::warn!(error = why, url = self.entry.jwks_url; "the keys of the issuer cannot be fetched")
                }
            }
            let until = fetched + interval(failures, self.is_empty());
            let earliest = if failures == 0 { fetched + MIN_INTERVAL } else { until };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.wanted.notified() => tokio::time::sleep_until(earliest).await,
                () = stop.requested() => {}
            }
        }
    }
}

/// The time between two fetches, after so many that have failed one after the other.
fn interval(failures: u32, has_no_keys: bool) -> Duration {
    match failures.checked_sub(1) {
        Some(earlier) => MAX_RETRY_INTERVAL.min(MIN_INTERVAL * 2_u32.saturating_pow(earlier.min(10))),
        None if has_no_keys => MIN_INTERVAL,
        None => REFRESH_INTERVAL,
    }
}

/// The value at `path`, whose dots lead into objects. A claim with dots in its name, such as a URL, is found, too.
fn claim<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, name| value.get(name)))
}

/// The public keys that sign, by their ids.
fn usable(jwks: &JwkSet) -> BTreeMap<String, DecodingKey> {
    let signs = jwks
        .keys
        .iter()
        .filter(|key| key.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature));
    let keys = signs.filter_map(|key| {
        let decoding = DecodingKey::from_jwk(key).ok()?;
        (decoding.family() != AlgorithmFamily::Hmac).then_some((key.common.key_id.clone()?, decoding))
    });
    keys.take(MAX_KEYS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(jwks_url: &str) -> OidcEntry {
        let text = format!("issuer = \"i\"\naudience = \"a\"\njwks_url = \"{jwks_url}\"");
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for good in ["https://id.example/keys", "http://127.0.0.1:1/keys", "http://[::1]/keys"] {
            assert_eq!(entry(good).validate(), Ok(()), "{good}");
        }
        for bad in ["http://id.example/keys", "http://localhost/keys", "ftp://127.0.0.1/", "keys", ""] {
            assert!(entry(bad).validate().is_err(), "{bad}");
        }
    }

    #[test]
    fn roles_are_those_of_the_table_and_a_subject_is_one_user() {
        let mut entry = entry("https://id.example/keys");
        entry.roles_claim = "realm.roles".to_owned();
        entry.roles.insert("shop-admins".to_owned(), "admin".to_owned());
        let oidc = Oidc::new(entry);
        let caller = |sub: &str, roles: Value| {
            oidc.caller(&json!({ "sub": sub, "exp": 9_999_999_999_u64, "realm": { "roles": roles } }))
        };
        let ann = caller("ann", json!(["shop-admins", "x"])).unwrap();
        assert!(ann.is_admin());
        let other = caller("ann", json!(["admin"])).unwrap();
        assert!(!other.is_admin(), "a role that the table does not name");
        assert_eq!(ann.id, other.id);
        assert_ne!(ann.id, caller("bob", json!([])).unwrap().id);
        assert!(caller("", json!([])).is_none());
    }

    #[test]
    fn after_a_fetch_that_failed_the_next_one_comes_within_a_minute() {
        assert_eq!(interval(0, false), REFRESH_INTERVAL);
        assert_eq!(interval(1, false), MIN_INTERVAL);
        assert_eq!(interval(2, true), 2 * MIN_INTERVAL);
        assert!((1..100).all(|failures| interval(failures, false) <= Duration::from_secs(60)));
        assert!((2..100).all(|failures| interval(failures, false) >= interval(failures - 1, false)));
    }

    #[test]
    fn a_symmetric_key_is_never_used() {
        let jwks = json!({ "keys": [{ "kty": "oct", "kid": "1", "k": "c2VjcmV0" }] });
        assert!(usable(&serde_json::from_value(jwks).unwrap()).is_empty());
    }
}
