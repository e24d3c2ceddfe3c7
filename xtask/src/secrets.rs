//! Keys and passwords of a stack on this machine. `deploy/docker/secrets` makes those of docker compose.

mod certificates; // for mutual TLS

pub use certificates::Authority;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _};

use crate::programs::{Kind, programs};

/// The folder with all of them.
#[derive(Clone)]
pub struct Secrets(PathBuf);

/// The lifetime of a certificate. New ones are made at each start.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
const PEM_END: &str = "-----END PRIVATE KEY-----\n";

impl Secrets {
    /// Makes those that are missing in `folder`, which only this user may read.
    pub fn make(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let secrets = Self(fs::canonicalize(folder)?);
        keep(&secrets.signing_key(), new_key)?;
        keep(&secrets.seal_key(), || Ok(STANDARD.encode(random::<32>()?)))?;
        keep(&secrets.admin_env(), || {
            let password = URL_SAFE.encode(random::<24>()?);
            Ok(format!("ADMIN_EMAIL=admin@example.com\nADMIN_PASSWORD={password}\n"))
        })?;
        for program in programs().iter().filter(|program| program.kind != Kind::External) {
            secrets.make_service_key(program.name)?;
        }
        Ok(secrets)
    }

    /// Ed25519, PEM: signs the tokens of users.
    pub fn signing_key(&self) -> PathBuf {
        self.0.join("signing-key.pem")
    }

    /// Seals bodies with passwords.
    pub fn seal_key(&self) -> PathBuf {
        self.0.join("seal-key")
    }

    /// Ed25519, PEM: signs the tokens of `service`.
    pub fn service_key(&self, service: &str) -> PathBuf {
        self.0.join("service-keys").join(format!("{service}.pem"))
    }

    /// The folder with the public keys of all services.
    pub fn public_keys(&self) -> PathBuf {
        self.0.join("public-keys")
    }

    /// `ADMIN_EMAIL` and `ADMIN_PASSWORD`, in lines that a shell can read.
    pub fn admin_env(&self) -> PathBuf {
        self.0.join("embedded-admin.env")
    }

    /// Makes the keys of `service`, unless it has some.
    pub fn make_service_key(&self, service: &str) -> io::Result<()> {
        let key = self.service_key(service);
        keep(&key, new_key)?;
        if self.public_key(service).exists() { Ok(()) } else { self.publish(service) }
    }

    /// Makes new certificates of all programs for mutual TLS, and returns what `TLS_FOLDER` is for `{program}`.
    pub fn make_certificates(&self) -> io::Result<String> {
        let (authority, folder) = (Authority::open(&self.0.join("tls-authority"))?, self.0.join("tls"));
        for program in programs().iter().filter(|program| program.kind != Kind::External) {
            let until = SystemTime::now() + CERTIFICATE_LIFE;
            authority.certify(&[program.name], until, &folder.join(program.name))?;
        }
        Ok(format!("{}/{{program}}", folder.display()))
    }

    /// Creates a certificate of this machine for the gateway's clients, and returns its folder. It has an authority of its
    /// own: programs trust the other one.
    pub fn make_client_certificate(&self) -> io::Result<PathBuf> {
        let (authority, folder) =
            (Authority::open(&self.0.join("client-authority"))?, self.0.join("client-tls"));
        let until = SystemTime::now() + CERTIFICATE_LIFE;
        authority.certify(&["localhost", "127.0.0.1", "::1"], until, &folder)?;
        Ok(folder)
    }

    /// Replaces all keys that sign tokens, and the certificates if there are some. The programs keep running: they read
    /// these files again. The new keys are published; after `spread`, when everybody has read them, they sign; after
    /// `life`, when the last token of the old keys has expired, the old ones are removed. The authority of the
    /// certificates stays, so the old certificates are still trusted.
    pub fn rotate(&self, spread: Duration, life: Duration) -> io::Result<()> {
        // A second rotation would remove keys of the first that sign already.
        let lock = File::create(self.0.join("rotation.lock"))?;
        lock.try_lock().map_err(|_| io::Error::other("another rotation is under way"))?;
        if self.0.join("tls").exists() {
            self.make_certificates()?;
        }
        if self.0.join("client-tls").exists() {
            self.make_client_certificate()?;
        }
        let services = || programs().iter().filter(|program| program.kind != Kind::External);
        let keys = services().map(|program| self.service_key(program.name)).chain([self.signing_key()]);
        let keys: Vec<_> =
            keys.map(|file| Ok((fs::read_to_string(&file)?, new_key()?, file))).collect::<io::Result<_>>()?;
        let write = |content: fn(&str, &str) -> String| {
            keys.iter().try_for_each(|(old, new, file)| replace(file, &content(old, new)))?;
            services().try_for_each(|program| self.publish(program.name))
        };
        write(|old, new| format!("{old}{new}"))?;
        thread::sleep(spread);
        write(|old, new| format!("{new}{old}"))?;
        thread::sleep(life);
        write(|_, new| new.to_owned())
    }

    /// Writes the public halves of a service's private keys.
    fn publish(&self, service: &str) -> io::Result<()> {
        let private = fs::read_to_string(self.service_key(service))?;
        let public = private.split_inclusive(PEM_END).map(public_half).collect::<io::Result<String>>()?;
        replace(&self.public_key(service), &public)
    }

    fn public_key(&self, service: &str) -> PathBuf {
        self.public_keys().join(format!("{service}.pem"))
    }

    /// The variables `ADMIN_EMAIL` and `ADMIN_PASSWORD`.
    pub fn admin(&self) -> io::Result<Vec<(String, String)>> {
        let text = fs::read_to_string(self.admin_env())?;
        let variables = text.lines().filter_map(|line| line.split_once('='));
        Ok(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

fn keep(file: &Path, make: impl FnOnce() -> io::Result<String>) -> io::Result<()> {
    if fs::metadata(file).is_ok_and(|file| file.len() > 0) {
        return Ok(());
    }
    replace(file, &make()?)
}

/// Readers see the old or the new content, never half of it.
fn replace(file: &Path, content: &str) -> io::Result<()> {
    fs::create_dir_all(file.parent().unwrap_or(file))?;
    let new = file.with_extension("new");
    let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    open.write_all(content.as_bytes())?;
    open.sync_all()?;
    fs::rename(new, file)
}

fn new_key() -> io::Result<String> {
    let pem = SigningKey::from_bytes(&random()?).to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
    Ok(pem.to_string())
}

fn public_half(pem: &str) -> io::Result<String> {
    let key = SigningKey::from_pkcs8_pem(pem).map_err(io::Error::other)?;
    key.verifying_key().to_public_key_pem(LineEnding::LF).map_err(io::Error::other)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
