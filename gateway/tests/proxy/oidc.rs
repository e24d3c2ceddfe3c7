//! Tokens of an external issuer, which is a real HTTP server here.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::OK;
use crate::harness::{Gateway, Upstream, free_ports, raw};

const ISSUER: &str = "https://id.example/realms/shop";

/// An issuer with one key (ES256).
struct Issuer {
    url: String,
    key: Mutex<(String, KeyPair)>,
    fetched: Arc<AtomicUsize>,
    published: Arc<Mutex<String>>,
}

impl Issuer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (fetched, published) = <(Arc<AtomicUsize>, Arc<Mutex<String>>)>::default();
        let (count, keys) = (fetched.clone(), published.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                count.fetch_add(1, Ordering::Relaxed);
                let body = keys.lock().unwrap().clone();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        let key = Mutex::new(("old".to_owned(), KeyPair::generate().unwrap()));
        let issuer = Self { url, key, fetched, published };
        issuer.publish();
        issuer
    }

    fn rotate(&self, kid: &str) {
        *self.key.lock().unwrap() = (kid.to_owned(), KeyPair::generate().unwrap());
        self.publish();
    }

    fn publish(&self) {
        let key = self.key.lock().unwrap();
        let public = DecodingKey::from_ec_pem(key.1.public_key_pem().as_bytes()).unwrap();
        let mut jwk = Jwk::from_decoding_key(&public, Some(Algorithm::ES256)).unwrap();
        jwk.common.key_id = Some(key.0.clone());
        let secret = json!({ "kty": "oct", "kid": "secret", "k": "c2VjcmV0" });
        *self.published.lock().unwrap() = json!({ "keys": [secret, jwk] }).to_string();
    }

    /// A good token for `sub`, with these claims in place of its own.
    fn token(&self, sub: &str, claims: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut all =
            json!({ "iss": ISSUER, "aud": ["other", "shop"], "sub": sub, "iat": now, "exp": now + 300 });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let key = self.key.lock().unwrap();
        let header = Header { kid: Some(key.0.clone()), ..Header::new(Algorithm::ES256) };
        let signer = EncodingKey::from_ec_pem(key.1.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &all, &signer).unwrap()
    }
}

fn configuration(issuer: &Issuer) -> String {
    let route = |id: &str, access: &str| {
        format!("[[routes]]\nid = \"{id}\"\nprefix = \"/{id}\"\nservice = \"a\"\naccess = \"{access}\"\n")
    };
    format!(
        "[oidc]\nissuer = \"{ISSUER}\"\naudience = \"shop\"\njwks_url = \"{}\"\nroles_claim = \"realm_access.roles\"\nroles = {{ shop-admins = \"admin\" }}\n{}{}",
        issuer.url,
        route("user", "user"),
        route("admin", "admin"),
    )
}

async fn status(gateway: &Gateway, path: &str, token: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let answered = raw(gateway, &request).await;
    let code =
        answered.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    format!("{} {code}", answered.split(' ').nth(1).unwrap_or_default()).trim().to_owned()
}

#[actix_web::test]
async fn a_token_of_the_issuer_is_good_for_its_audience_with_the_roles_of_the_table() {
    let (issuer, upstream) = (Issuer::start(), Upstream::answering(OK));
    let (gateway, keys) =
        Gateway::in_file_with_users(&configuration(&issuer), free_ports(), &[&upstream]).await;
    let roles = |names: &[&str]| json!({ "realm_access": { "roles": names } });
    let ann = issuer.token("ann", roles(&["admin", "customers"]));
    assert_eq!(status(&gateway, "/user", &ann).await, "200");
    assert_eq!(status(&gateway, "/admin", &ann).await, "403 forbidden");
    assert_eq!(status(&gateway, "/admin", &issuer.token("bob", roles(&["shop-admins"]))).await, "200");
    // The token is forwarded to the service as it is.
    assert!(upstream.seen()[0].contains(&format!("authorization: Bearer {ann}\r\n")));
    let own = keys.user_token(Uuid::now_v7(), &["admin"]);
    assert_eq!(status(&gateway, "/admin", &own).await, "200", "a token of user-service");
    for (claims, expected) in [
        (json!({ "aud": "other" }), "401 invalid_token"),
        (json!({ "iss": "https://evil.example" }), "401 invalid_token"),
        (json!({ "exp": 1 }), "401 expired_token"),
        (json!({ "exp": null }), "401 invalid_token"),
        (json!({ "nbf": 99_999_999_999_u64 }), "401 invalid_token"),
        (json!({ "sub": 7 }), "401 invalid_token"),
    ] {
        assert_eq!(
            status(&gateway, "/user", &issuer.token("ann", claims.clone())).await,
            expected,
            "{claims}"
        );
    }
    // Signed with what everybody knows, in place of the private key.
    let forged = |kid: &str, secret: &[u8]| {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
        let claims = json!({ "iss": ISSUER, "aud": "shop", "sub": "ann", "exp": 9_999_999_999_u64 });
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
    };
    let public = issuer.key.lock().unwrap().1.public_key_pem();
    assert_eq!(status(&gateway, "/user", &forged("old", public.as_bytes())).await, "401 invalid_token");
    assert_eq!(status(&gateway, "/user", &forged("secret", b"secret")).await, "401 invalid_token");
    let other = Issuer::start();
    assert_eq!(status(&gateway, "/user", &other.token("ann", json!({}))).await, "401 invalid_token");
}

#[actix_web::test]
async fn a_new_key_is_fetched_when_a_token_has_it_and_unknown_keys_ask_the_issuer_rarely() {
    let (issuer, upstream) = (Issuer::start(), Upstream::answering(OK));
    let gateway = Gateway::in_file(&configuration(&issuer), &[&upstream]).await;
    let old = issuer.token("ann", json!({}));
    assert_eq!(status(&gateway, "/user", &old).await, "200");
    issuer.rotate("new");
    let new = issuer.token("ann", json!({}));
    assert_eq!(status(&gateway, "/user", &new).await, "200", "its first token");
    let began = Instant::now();
    let fetched = issuer.fetched.load(Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(status(&gateway, "/user", &old).await, "401 invalid_token", "the old key is gone");
    }
    let fetched = issuer.fetched.load(Ordering::Relaxed) - fetched;
    assert!(fetched as u64 <= began.elapsed().as_secs() + 1, "{fetched} in {:?}", began.elapsed());
}
