//! The section `[tls]` of `gateway.toml`: the port for clients with TLS, and its certificates.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::tls::{CertificateFiles, Certificates};

use super::InvalidValue;

/// A second public port, for clients with TLS. They may speak HTTP/2.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsEntry {
    /// On the address of the other public port; 0 picks a free one. It is read only at the start.
    pub port: u16,
    /// Requests without TLS are redirected to `https:` at this port; absent, they are served.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub redirect_port: Option<u16>,
    /// The value of `Strict-Transport-Security` in answers with TLS, such as `max-age=31536000; includeSubDomains`. None
    /// by default, because it cannot be taken back: for so long, browsers use no plain HTTP for the host, at any port.
    #[serde(default)]
    pub hsts: Option<String>,
    /// The first one is for clients that name no host, or an unknown one.
    pub certificates: Vec<CertificateEntry>,
}

/// PEM files, in the folder of `gateway.toml` unless their paths are absolute.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateEntry {
    /// The hosts that it is shown for: `shop.example`, or `*.shop.example` for one label more.
    pub names: Vec<String>,
    /// The certificate, and then those of its issuers.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsEntry {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        if self.redirect_port == Some(0) {
            return Err(InvalidValue::at("redirect_port", "must be 1 to 65535"));
        }
        let Some(hsts) = &self.hsts else { return Ok(()) };
        let age = hsts.strip_prefix("max-age=").and_then(|rest| rest.split(';').next());
        let is_good = age.is_some_and(|age| age.trim_ascii().parse::<u32>().is_ok())
            && !hsts.contains(char::is_control);
        match is_good {
            true => Ok(()),
            false => Err(InvalidValue::at("hsts", "must begin with max-age= and a number of seconds")),
        }
    }

    /// Reads the files; `folder` is that of `gateway.toml`.
    pub fn read(&self, folder: &Path) -> Result<Certificates, String> {
        let files = |entry: &CertificateEntry| CertificateFiles {
            names: entry.names.clone(),
            certificate: folder.join(&entry.certificate),
            key: folder.join(&entry.key),
        };
        Certificates::read(&self.certificates.iter().map(files).collect::<Vec<_>>())
    }

    /// The files that [`TlsEntry::read`] reads.
    pub fn files(&self, folder: &Path) -> Vec<PathBuf> {
        let files = self.certificates.iter().flat_map(|entry| [&entry.certificate, &entry.key]);
        files.map(|file| folder.join(file)).collect()
    }
}
