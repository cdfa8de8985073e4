//! TLS on the gateway's port: which certificate is shown, whether it still holds, and by what callers can pin it.
//!
//! The certificate is the user's own, from two files, or one that the gateway signs itself and keeps in the state
//! directory. Files that change while the gateway runs are taken up by `Tls::refresh`, without a restart.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::state::{StateError, write_private};

/// The subject of a certificate that the gateway signs itself. cli.md section 6: stock's name for it.
const SUBJECT: &str = "openclaw-gateway";
/// How long such a certificate holds. Callers pin it, so it is to change seldom. cli.md section 6: stock's ten years.
const VALIDITY: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// A certificate that ends within this time is renewed, or warned of when it is the user's own.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate and the chain behind it, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Whether the gateway makes both when they are missing, and makes the certificate anew before it ends.
    pub generate: bool,
}

impl TlsSettings {
    /// Tries what a gateway at `addresses` would begin with: reads the certificate and its key, or makes what is
    /// missing. Blocks.
    ///
    /// # Errors
    ///
    /// What would refuse the start.
    pub fn check(&self, addresses: &[SocketAddr]) -> Result<(), TlsError> {
        let hosts: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
        Tls::load(self.clone(), &hosts).map(drop)
    }
}

/// What callers can pin: SHA-256 digests, as 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of the certificate (its DER). What stock gateways advertise and stock clients pin.
    pub certificate: String,
    /// Of its public key (the DER of `SubjectPublicKeyInfo`), as RFC 7469 section 2.4 pins keys. It stays when the
    /// certificate is renewed with the same key.
    pub public_key: String,
}

/// Why a gateway cannot serve TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file does not open.
    #[error("cannot read the {what} {}", path.display())]
    Read {
        /// What the file holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no {what} in PEM: {problem}", path.display())]
    Malformed {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The key is not that of the certificate, or of a kind that cannot be used.
    #[error("the key {} does not fit the certificate {}: {problem}", key.display(), certificate.display())]
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Generate(#[source] rcgen::Error),
    /// A certificate that was made cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// TLS as the gateway serves it.
#[derive(Debug)]
pub(crate) struct Tls {
    settings: TlsSettings,
    names: Vec<SanType>,
    config: Arc<ServerConfig>,
    current: Arc<Current>,
}

impl Tls {
    /// Reads the certificate, or makes one for a gateway that is reached at `addresses` and by the name of its host.
    /// Blocks.
    pub(crate) fn load(settings: TlsSettings, addresses: &[IpAddr]) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let names = names(addresses);
        let loaded = Loaded::of(&settings, &names, &provider)?;
        let current = Arc::new(Current { loaded: RwLock::new(loaded) });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the cipher suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        // An upgrade to WebSocket is HTTP/1.1.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { settings, names, config: Arc::new(config), current })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    pub(crate) fn fingerprints(&self) -> Fingerprints {
        self.current.read(|loaded| loaded.fingerprints.clone())
    }

    /// Takes up a certificate whose files have changed, and renews one that ends soon. What goes wrong is logged, and
    /// the old one stays. Blocks.
    pub(crate) fn refresh(&self) {
        let ends_soon = self.current.read(|loaded| ends_soon(loaded.not_after));
        let is_same = Stamp::of(&self.settings) == self.current.read(|loaded| loaded.stamp);
        if is_same && !(ends_soon && self.settings.generate) {
            if ends_soon {
                tracing::warn!(file = %self.settings.certificate.display(), "the TLS certificate ends within 30 days");
            }
            return;
        }
        match Loaded::of(&self.settings, &self.names, self.config.crypto_provider()) {
            Ok(loaded) => {
                tracing::info!(
                    certificate = loaded.fingerprints.certificate,
                    "a new TLS certificate is in use"
                );
                *self.current.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the TLS certificate was not renewed"
                );
            }
        }
    }
}

/// The certificate that is shown now.
struct Current {
    loaded: RwLock<Loaded>,
}

impl Current {
    fn read<T>(&self, read: impl FnOnce(&Loaded) -> T) -> T {
        read(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read(|loaded| f.debug_tuple("Current").field(&loaded.fingerprints).finish())
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read(|loaded| Arc::clone(&loaded.key)))
    }
}

/// A certificate that was read, and what is known of it.
struct Loaded {
    key: Arc<CertifiedKey>,
    fingerprints: Fingerprints,
    not_after: SystemTime,
    stamp: Stamp,
}

impl Loaded {
    fn of(settings: &TlsSettings, names: &[SanType], provider: &CryptoProvider) -> Result<Self, TlsError> {
        let is_there = settings.certificate.exists() || settings.key.exists();
        if settings.generate && !is_there {
            generate(settings, names, None)?;
        }
        let loaded = Self::read(settings, provider)?;
        if !ends_soon(loaded.not_after) {
            return Ok(loaded);
        }
        if settings.generate {
            // With the same key: callers that pin the key need not be told.
            generate(settings, names, Some(&read(&settings.key, "private key")?))?;
            return Self::read(settings, provider);
        }
        tracing::warn!(file = %settings.certificate.display(), "the TLS certificate has ended, or ends within 30 days");
        Ok(loaded)
    }

    fn read(settings: &TlsSettings, provider: &CryptoProvider) -> Result<Self, TlsError> {
        // Before the files, so that a change in between is seen later.
        let stamp = Stamp::of(settings);
        let malformed =
            |what, path: &Path, problem: String| TlsError::Malformed { what, path: path.to_owned(), problem };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&read(&settings.certificate, "certificate")?)
                .collect::<Result<_, _>>()
                .map_err(|error| malformed("certificate", &settings.certificate, error.to_string()))?;
        let Some(first) = chain.first() else {
            return Err(malformed("certificate", &settings.certificate, "there is none".to_owned()));
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(first)
            .map_err(|error| malformed("certificate", &settings.certificate, error.to_string()))?;
        let not_after = parsed.validity().not_after.timestamp();
        let not_after =
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(not_after).unwrap_or_default());
        let fingerprints = Fingerprints {
            certificate: digest(first),
            public_key: digest(parsed.tbs_certificate.subject_pki.raw),
        };
        let key = PrivateKeyDer::from_pem_slice(&read(&settings.key, "private key")?)
            // What a parser says of a key is not shown: it may show the key.
            .map_err(|_| malformed("private key", &settings.key, "it cannot be read as one".to_owned()))?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Mismatch {
            key: settings.key.clone(),
            certificate: settings.certificate.clone(),
            problem: error.to_string(),
        })?;
        Ok(Self { key: Arc::new(certified), fingerprints, not_after, stamp })
    }
}

/// When the two files were last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp([Option<SystemTime>; 2]);

impl Stamp {
    fn of(settings: &TlsSettings) -> Self {
        let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        Self([changed(&settings.certificate), changed(&settings.key)])
    }
}

fn ends_soon(not_after: SystemTime) -> bool {
    not_after <= SystemTime::now() + RENEW_BEFORE
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The names that a certificate of this host carries.
fn names(addresses: &[IpAddr]) -> Vec<SanType> {
    let host = crate::host::hostname().to_ascii_lowercase();
    let mut names: Vec<SanType> = ["localhost".to_owned(), host.clone(), format!("{host}.local")]
        .into_iter()
        // A host name may hold what no certificate can.
        .filter_map(|name| name.try_into().ok().map(SanType::DnsName))
        .collect();
    let mut ips = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    ips.extend(addresses.iter().filter(|ip| !ip.is_unspecified() && !ip.is_loopback()));
    names.extend(ips.into_iter().map(SanType::IpAddress));
    names
}

/// Writes a self-signed certificate for `names`, and a new key unless there is one.
fn generate(settings: &TlsSettings, names: &[SanType], key: Option<&[u8]>) -> Result<(), TlsError> {
    let key = match key.map(|pem| KeyPair::from_pem(&String::from_utf8_lossy(pem))) {
        Some(key) => key.map_err(TlsError::Generate)?,
        None => {
            let key = KeyPair::generate().map_err(TlsError::Generate)?;
            write_private(&settings.key, key.serialize_pem().as_bytes())?;
            key
        }
    };
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.to_vec();
    params.distinguished_name.push(DnType::CommonName, SUBJECT);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = SystemTime::now();
    // A clock that is a little behind must not make it invalid.
    params.not_before = (now - Duration::from_secs(24 * 60 * 60)).into();
    params.not_after = (now + VALIDITY).into();
    let certificate = params.self_signed(&key).map_err(TlsError::Generate)?;
    write_private(&settings.certificate, certificate.pem().as_bytes())?;
    tracing::info!(file = %settings.certificate.display(), "a TLS certificate was made");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn settings(dir: &Path) -> TlsSettings {
        TlsSettings {
            certificate: dir.join("tls/gateway-cert.pem"),
            key: dir.join("tls/gateway-key.pem"),
            generate: true,
        }
    }

    fn load(settings: &TlsSettings) -> Result<Tls, TlsError> {
        Tls::load(settings.clone(), &[IpAddr::from([192, 0, 2, 7])])
    }

    #[test]
    fn a_certificate_is_made_once_with_the_names_of_the_host() {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let settings = settings(dir.path());
        let first = load(&settings).expect("one is made").fingerprints();
        assert_eq!(load(&settings).expect("it is there").fingerprints(), first);
        assert_eq!((first.certificate.len(), first.public_key.len()), (64, 64));
        let mode = fs::metadata(&settings.key).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let pem = fs::read(&settings.certificate).expect("it is there");
        let der = CertificateDer::from_pem_slice(&pem).expect("it is PEM");
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("it is a certificate");
        let names = parsed.subject_alternative_name().expect("sound").expect("there are names").value;
        let names = format!("{:?}", names.general_names);
        assert!(
            names.contains("localhost") && names.contains("[c0, 0, 2, 7]")
                || names.contains("[192, 0, 2, 7]"),
            "{names}"
        );
    }

    #[test]
    fn a_certificate_that_ends_soon_is_renewed_with_its_key() {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let settings = settings(dir.path());
        let before = load(&settings).expect("one is made").fingerprints();
        let key = KeyPair::from_pem(&fs::read_to_string(&settings.key).expect("it is there")).expect("a key");
        let mut params = CertificateParams::default();
        params.not_after = (SystemTime::now() + Duration::from_secs(60)).into();
        let short = params.self_signed(&key).expect("it signs");
        fs::write(&settings.certificate, short.pem()).expect("it writes");

        let tls = load(&settings).expect("it is renewed");
        assert_eq!(tls.fingerprints().public_key, before.public_key);
        assert!(!ends_soon(tls.current.read(|loaded| loaded.not_after)));

        // The user's own is left alone.
        fs::write(&settings.certificate, short.pem()).expect("it writes");
        let own = TlsSettings { generate: false, ..settings };
        let tls = load(&own).expect("it still serves");
        assert!(ends_soon(tls.current.read(|loaded| loaded.not_after)));
    }

    #[test]
    fn files_that_change_are_taken_up_and_broken_ones_are_not() {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let settings = settings(dir.path());
        let tls = load(&settings).expect("one is made");
        let before = tls.fingerprints();
        tls.refresh();
        assert_eq!(tls.fingerprints(), before);
        fs::write(&settings.certificate, "no certificate").expect("it writes");
        tls.refresh();
        assert_eq!(tls.fingerprints(), before);
        fs::remove_file(&settings.certificate).expect("it is there");
        fs::remove_file(&settings.key).expect("it is there");
        tls.refresh();
        assert_ne!(tls.fingerprints(), before);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_and_no_key_is_shown() {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let own = TlsSettings { generate: false, ..settings(dir.path()) };
        let error = load(&own).expect_err("there is none").to_string();
        assert_eq!(error, format!("cannot read the certificate {}", own.certificate.display()));
        load(&settings(dir.path())).expect("one is made");
        fs::write(&own.key, "-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n")
            .expect("it writes");
        let error = load(&own).expect_err("the key is broken").to_string();
        assert!(error.contains("holds no private key in PEM") && !error.contains("hunter2"), "{error}");
        fs::write(&own.key, KeyPair::generate().expect("a key").serialize_pem()).expect("it writes");
        let error = load(&own).expect_err("the key is another's").to_string();
        assert!(error.contains("does not fit the certificate"), "{error}");
    }
}
