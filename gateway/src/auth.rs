//! Shared-secret authentication: what a credential grants. The secret may change while connections are open.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use openclaw_schema::Scopes;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Notify;

use crate::settings::Auth;

/// How a caller was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthMethod {
    /// The gateway asks for nothing.
    None,
    Token,
    Password,
}

impl AuthMethod {
    /// The name on the wire (wire.md section 3, `auth.method`).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token => "token",
            Self::Password => "password",
        }
    }
}

/// Why a caller was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("unauthorized: gateway token missing")]
    TokenMissing,
    #[error("unauthorized: gateway token mismatch")]
    TokenMismatch,
    #[error("unauthorized: gateway password missing")]
    PasswordMissing,
    #[error("unauthorized: gateway password mismatch")]
    PasswordMismatch,
}

/// What the secret fields of a handshake are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretCheck {
    /// The secret is among them, or none is asked for.
    Good,
    /// They are empty.
    Missing,
    /// They hold something else.
    Wrong,
}

/// Checks credentials against the gateway's secret.
pub(crate) struct Authenticator {
    method: AuthMethod,
    /// The digest, not the secret: comparing digests takes the same time whatever the lengths.
    digest: [u8; 32],
    /// Set once another one has taken its place.
    is_replaced: AtomicBool,
    replaced: Notify,
}

impl Authenticator {
    pub(crate) fn new(auth: &Auth) -> Self {
        let (method, secret) = match auth {
            Auth::None => (AuthMethod::None, ""),
            Auth::Token(secret) => (AuthMethod::Token, secret.expose_secret()),
            Auth::Password(secret) => (AuthMethod::Password, secret.expose_secret()),
        };
        let digest = Sha256::digest(secret).into();
        Self { method, digest, is_replaced: AtomicBool::new(false), replaced: Notify::new() }
    }

    pub(crate) const fn method(&self) -> AuthMethod {
        self.method
    }

    /// Whether another one has taken its place: whoever it let in is to go.
    pub(crate) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
    }

    /// Ends when another one takes its place.
    pub(crate) async fn replaced(&self) {
        let mut replaced = std::pin::pin!(self.replaced.notified());
        // Before the look at the flag: nothing slips in between.
        replaced.as_mut().enable();
        if !self.is_replaced() {
            replaced.await;
        }
    }

    /// What `credential` grants: every scope, as the secret is the operator's.
    pub(crate) fn check(&self, credential: Option<&str>) -> Result<Scopes, Refusal> {
        let missing = match self.method {
            AuthMethod::None => return Ok(Scopes::ADMIN),
            AuthMethod::Token => Refusal::TokenMissing,
            AuthMethod::Password => Refusal::PasswordMissing,
        };
        let given: [u8; 32] =
            Sha256::digest(credential.filter(|given| !given.is_empty()).ok_or(missing)?).into();
        if bool::from(given.ct_eq(&self.digest)) {
            return Ok(Scopes::ADMIN);
        }
        Err(match self.method {
            AuthMethod::Password => Refusal::PasswordMismatch,
            AuthMethod::None | AuthMethod::Token => Refusal::TokenMismatch,
        })
    }

    /// The field that decides: see [`Self::check_fields`].
    pub(crate) fn secret_of<'a>(&self, token: Option<&'a str>, password: Option<&'a str>) -> Option<&'a str> {
        match self.method {
            AuthMethod::Password => password.or(token),
            AuthMethod::None | AuthMethod::Token => token.or(password),
        }
    }

    /// What `auth.token` and `auth.password` are worth. The secret may stand in either; where both are sent, the
    /// one that fits the gateway's method decides (wire.md section 4).
    pub(crate) fn check_fields(&self, token: Option<&str>, password: Option<&str>) -> SecretCheck {
        match self.check(self.secret_of(token, password)) {
            Ok(_) => SecretCheck::Good,
            Err(Refusal::TokenMissing | Refusal::PasswordMissing) => SecretCheck::Missing,
            Err(Refusal::TokenMismatch | Refusal::PasswordMismatch) => SecretCheck::Wrong,
        }
    }
}

/// The authenticator in force. Cloning it is cheap; another one may take its place at any time.
#[derive(Clone)]
pub(crate) struct CurrentAuth(Arc<ArcSwap<Authenticator>>);

impl CurrentAuth {
    pub(crate) fn new(auth: &Auth) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Authenticator::new(auth))))
    }

    /// The one in force now.
    pub(crate) fn get(&self) -> Arc<Authenticator> {
        self.0.load_full()
    }

    /// Puts `auth` in force. Whoever was let in by another secret is let go, see [`Authenticator::replaced`]. Says
    /// whether it is another one.
    pub(crate) fn replace(&self, auth: &Auth) -> bool {
        let next = Authenticator::new(auth);
        let before = self.0.load_full();
        if before.method == next.method && before.digest == next.digest {
            return false;
        }
        // First nobody is let in by the old one, then those that were are told.
        let before = self.0.swap(Arc::new(next));
        before.is_replaced.store(true, Ordering::Release);
        before.replaced.notify_waiters();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_secret_replaces_the_one_in_force_and_the_same_one_does_not() {
        let current = CurrentAuth::new(&Auth::Token("secret".into()));
        let before = current.get();
        assert!(!current.replace(&Auth::Token("secret".into())) && !before.is_replaced());
        assert!(current.replace(&Auth::Password("secret".into())), "the method counts too");
        before.replaced().await;
        assert!(before.is_replaced());
        assert!(current.replace(&Auth::Password("other".into())));
        assert_eq!(current.get().check(Some("other")), Ok(Scopes::ADMIN));
        assert_eq!(current.get().check(Some("secret")), Err(Refusal::PasswordMismatch));
    }

    #[test]
    fn only_the_secret_itself_passes() {
        let token = Authenticator::new(&Auth::Token("secret".into()));
        assert_eq!(token.check(Some("secret")), Ok(Scopes::ADMIN));
        assert_eq!(token.check(Some("secret ")), Err(Refusal::TokenMismatch));
        assert_eq!(token.check(Some("")), Err(Refusal::TokenMissing));
        assert_eq!(token.check(None), Err(Refusal::TokenMissing));
        let password = Authenticator::new(&Auth::Password("secret".into()));
        assert_eq!(password.check(Some("wrong")), Err(Refusal::PasswordMismatch));
        assert_eq!(password.check_fields(Some("wrong"), Some("secret")), SecretCheck::Good);
        assert_eq!(password.check_fields(Some("secret"), Some("wrong")), SecretCheck::Wrong);
        assert_eq!(password.check_fields(Some("secret"), None), SecretCheck::Good);
        assert_eq!(token.check_fields(None, None), SecretCheck::Missing);
        assert_eq!(Authenticator::new(&Auth::None).check(None), Ok(Scopes::ADMIN));
    }
}
