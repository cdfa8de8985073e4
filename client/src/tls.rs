//! TLS for `wss` and `https`: rustls with ring, and the roots that the platform trusts.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Trusts what the platform trusts. Reads the roots, which takes milliseconds: only for URLs that need it.
pub(crate) fn platform_config() -> Result<ClientConfig, rustls::Error> {
    Ok(builder()?.with_platform_verifier()?.with_no_client_auth())
}

/// Trusts nobody: for a plain HTTP client, which asks for a configuration all the same.
pub(crate) fn unused_config() -> Result<ClientConfig, rustls::Error> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    // The provider is named here, so that no process-wide default is needed or set.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}
