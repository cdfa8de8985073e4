//! TLS for `wss` and `https`: rustls with ring, and which certificates are trusted. Those that the platform trusts,
//! or, when a fingerprint is given, the one certificate or key of that fingerprint and no other.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// The SHA-256 digest of a certificate (its DER), or of a public key (the DER of `SubjectPublicKeyInfo`, as
/// RFC 7469 section 2.4 pins keys).
///
/// Written as 64 hex digits. Colons between them, capitals and a leading `sha256:` are read too.
///
/// ```
/// # fn main() -> Result<(), openclaw_client::Error> {
/// let text = "9F:86:D0:81:88:4C:7D:65:9A:2F:EA:A0:C5:5A:D0:15:A3:BF:4F:1B:2B:0B:82:2C:D1:5D:6C:15:B0:F0:0A:08";
/// let fingerprint: openclaw_client::Fingerprint = text.parse()?;
/// assert_eq!(fingerprint.to_string(), text.replace(':', "").to_lowercase());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex = text.trim();
        let hex = hex.get(..7).filter(|head| head.eq_ignore_ascii_case("sha256:")).map_or(hex, |_| &hex[7..]);
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b':').collect();
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let bytes: Option<Vec<u8>> = (digits.len() == 64)
            .then(|| {
                digits.chunks_exact(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
            })
            .flatten();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| {
            Error::invalid("a TLS fingerprint is a SHA-256 digest in hex: 64 digits, with or without colons")
        })
    }
}

/// Which certificates one connection trusts, and which it was shown.
#[derive(Debug)]
pub(crate) struct Trust {
    pin: Option<Fingerprint>,
    refused: Arc<Mutex<Option<Refused>>>,
}

/// A certificate that was not trusted.
#[derive(Debug, Clone)]
struct Refused {
    shown: Fingerprint,
    reason: String,
}

impl Trust {
    /// Trusts the certificate or key of `pin`; what the platform trusts when absent.
    pub(crate) fn new(pin: Option<Fingerprint>) -> Self {
        Self { pin, refused: Arc::default() }
    }

    /// The configuration of a connection. Without a pin it reads the roots of the platform, which takes milliseconds:
    /// only for URLs that need it.
    pub(crate) fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusted = match self.pin {
            Some(pin) => Trusted::Pinned(pin),
            None => Trusted::ByPlatform(rustls_platform_verifier::Verifier::new(Arc::clone(&provider))?),
        };
        let verifier =
            Verifier { trusted, provider: Arc::clone(&provider), refused: Arc::clone(&self.refused) };
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
    }

    /// The error of a connection to `url` whose certificate was not trusted; none when it failed otherwise. Told once.
    pub(crate) fn error(&self, url: &str) -> Option<Error> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Error::Untrusted {
            url: url.to_owned(),
            shown: refused.shown,
            expected: self.pin,
            reason: refused.reason,
        })
    }
}

/// Trusts nobody: for a plain HTTP client, which asks for a configuration all the same.
pub(crate) fn unused_config() -> Result<ClientConfig, rustls::Error> {
    // The provider is named here, so that no process-wide default is needed or set.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

#[derive(Debug)]
enum Trusted {
    Pinned(Fingerprint),
    ByPlatform(rustls_platform_verifier::Verifier),
}

#[derive(Debug)]
struct Verifier {
    trusted: Trusted,
    provider: Arc<CryptoProvider>,
    refused: Arc<Mutex<Option<Refused>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(certificate);
        let verified = match &self.trusted {
            // Who pins a certificate has compared it: its names, its end and who signed it say nothing more.
            Trusted::Pinned(pin) => {
                let key = webpki::EndEntityCert::try_from(certificate)
                    .map(|certificate| Fingerprint::of(&certificate.subject_public_key_info()))
                    .ok();
                if *pin == shown || key == Some(*pin) {
                    Ok(ServerCertVerified::assertion())
                } else {
                    Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
                }
            }
            Trusted::ByPlatform(platform) => {
                platform.verify_server_cert(certificate, intermediates, name, ocsp, now)
            }
        };
        verified.inspect_err(|error| {
            let reason = match (&self.trusted, error) {
                (Trusted::Pinned(_), _) => "it is another one than expected".to_owned(),
                (_, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                    "nobody that this machine trusts has signed it".to_owned()
                }
                (_, error) => error.to_string(),
            };
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Refused { shown, reason });
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_digest_is_refused() {
        for text in ["", "sha256:", "12", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(format!("SHA256:{hex}").parse::<Fingerprint>().expect("it is one").to_string(), hex);
    }
}
