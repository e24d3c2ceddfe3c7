//! Tokens of an external issuer, which is a real HTTP server here.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use shared::testing::eventually;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, Stream};
use uuid::Uuid;

use crate::OK;
use crate::harness::{Gateway, Upstream, free_ports, raw};
use crate::site::Site;

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
        Self::serving("http", |stream, said| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(said.as_bytes());
        })
    }

    /// With this certificate of the site.
    fn with_tls(site: &Site, certificate: &str) -> Self {
        let file = |kind: &str| site.path(&format!("{certificate}.{kind}"));
        let chain = CertificateDer::pem_file_iter(file("pem")).unwrap().map(Result::unwrap).collect();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(file("key")).unwrap());
        let config = Arc::new(config.unwrap());
        Self::serving("https", move |stream, said| {
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = Stream::new(&mut connection, stream);
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(said.as_bytes());
        })
    }

    /// Calls `answer` with each connection and the response.
    fn serving(scheme: &str, answer: impl Fn(&mut TcpStream, &str) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}/keys", listener.local_addr().unwrap());
        let (fetched, published) = <(Arc<AtomicUsize>, Arc<Mutex<String>>)>::default();
        let (count, keys) = (fetched.clone(), published.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let body = keys.lock().unwrap().clone();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                answer(&mut stream.unwrap(), &(head + &body));
                count.fetch_add(1, Ordering::Relaxed);
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

#[actix_web::test]
async fn the_keys_of_an_issuer_with_tls_are_fetched_if_an_authority_of_the_ca_file_vouches_for_it() {
    let (site, other, upstream) = (Site::new(), Site::new(), Upstream::answering(OK));
    site.certify("id", &["127.0.0.1"]);
    let issuer = Issuer::with_tls(&site, "id");
    for (authority, statuses) in [(&site, &["200"][..]), (&other, &["503 unavailable", ""])] {
        let ca_file = format!("[oidc]\nca_file = {:?}\n", authority.path("ca.pem"));
        let text = configuration(&issuer).replace("[oidc]\n", &ca_file);
        let gateway = Gateway::in_file(&text, &[&upstream]).await;
        // Without keys, the answer may take longer than the client waits.
        let status = status(&gateway, "/user", &issuer.token("ann", json!({}))).await;
        assert!(statuses.contains(&status.as_str()), "{status}");
    }
}

#[actix_web::test]
async fn keys_that_cannot_be_fetched_are_fetched_again_soon_although_no_token_asks_for_them() {
    let (issuer, upstream) = (Issuer::start(), Upstream::answering(OK));
    let gateway = Gateway::in_file(&configuration(&issuer), &[&upstream]).await;
    let old = issuer.token("ann", json!({}));
    assert_eq!(status(&gateway, "/user", &old).await, "200");
    issuer.rotate("new");
    let new = issuer.token("ann", json!({}));
    let keys = std::mem::replace(&mut *issuer.published.lock().unwrap(), "no keys".to_owned());
    // It asks for the new key, once.
    assert_ne!(status(&gateway, "/user", &new).await, "200");
    let fetched = issuer.fetched.load(Ordering::Relaxed);
    eventually("they are fetched two more times", Duration::from_secs(15), async || {
        (issuer.fetched.load(Ordering::Relaxed) >= fetched + 2).then_some(())
    })
    .await;
    assert_eq!(status(&gateway, "/user", &old).await, "200", "the known keys stay");
    *issuer.published.lock().unwrap() = keys;
    eventually("the new key is known", Duration::from_secs(20), async || {
        (status(&gateway, "/user", &new).await == "200").then_some(())
    })
    .await;
}
