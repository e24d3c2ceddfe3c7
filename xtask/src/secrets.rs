//! Keys and passwords of a stack on this machine. `deploy/docker/secrets` makes those of docker compose.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// The files that hold them.
pub struct Secrets {
    /// Ed25519, PEM: signs the tokens of users.
    pub signing_key: PathBuf,
    /// Signs the tokens of services.
    pub service_key: PathBuf,
    /// `ADMIN_EMAIL` and `ADMIN_PASSWORD`, in lines that a shell can read.
    pub admin_env: PathBuf,
}

/// An Ed25519 key in PKCS#8 (RFC 8410) is this, then 32 random bytes.
const PKCS8_HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

impl Secrets {
    /// Makes those that are missing in `folder`, which only this user may read.
    pub fn make(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        let secrets = Self {
            signing_key: folder.join("signing-key.pem"),
            service_key: folder.join("service-token-key"),
            admin_env: folder.join("embedded-admin.env"),
        };
        keep(&secrets.signing_key, || {
            let key = STANDARD.encode([PKCS8_HEAD.as_slice(), &random::<32>()?].concat());
            Ok(format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"))
        })?;
        keep(&secrets.service_key, || Ok(STANDARD.encode(random::<32>()?)))?;
        keep(&secrets.admin_env, || {
            let password = URL_SAFE.encode(random::<24>()?);
            Ok(format!("ADMIN_EMAIL=admin@example.com\nADMIN_PASSWORD={password}\n"))
        })?;
        Ok(secrets)
    }

    /// The variables `ADMIN_EMAIL` and `ADMIN_PASSWORD`.
    pub fn admin(&self) -> io::Result<Vec<(String, String)>> {
        let text = fs::read_to_string(&self.admin_env)?;
        let variables = text.lines().filter_map(|line| line.split_once('='));
        Ok(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

fn keep(file: &Path, make: impl FnOnce() -> io::Result<String>) -> io::Result<()> {
    if fs::metadata(file).is_ok_and(|file| file.len() > 0) {
        return Ok(());
    }
    let mut new = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    new.write_all(make()?.as_bytes())
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
