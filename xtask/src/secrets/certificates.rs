//! Certificates for mutual TLS on this machine. `deploy/docker/secrets` makes those of docker compose.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::{keep, replace};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Signs the certificates of one stack.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// The one in `folder`. It is made if it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let (key_file, certificate_file) = (folder.join("ca.key"), folder.join("ca.crt"));
        keep(&key_file, || Ok(KeyPair::generate().map_err(io::Error::other)?.serialize_pem()))?;
        let key = KeyPair::from_pem(&fs::read_to_string(key_file)?).map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "services");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + 3650 * DAY).into();
        keep(&certificate_file, || Ok(params.self_signed(&key).map_err(io::Error::other)?.pem()))?;
        let certificate = fs::read_to_string(certificate_file)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Makes a certificate for `names`, in the files that `TLS_FOLDER` wants. It expires at `until`.
    pub fn certify(&self, names: &[&str], until: SystemTime, folder: &Path) -> io::Result<()> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let mut params = params.map_err(io::Error::other)?;
        names.iter().take(1).for_each(|name| params.distinguished_name.push(DnType::CommonName, *name));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (until.min(SystemTime::now()) - DAY).into();
        params.not_after = until.into();
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        replace(&folder.join("ca.crt"), &self.certificate)?;
        replace(&folder.join("tls.key"), &key.serialize_pem())?;
        replace(&folder.join("tls.crt"), &certificate.pem())
    }
}
