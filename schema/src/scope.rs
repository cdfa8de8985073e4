//! Scopes: what a caller must hold to call a method or to receive an event.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a caller must hold. `operator.admin` implies every other scope, `operator.write` implies
/// `operator.read`.
///
/// Scopes come from the credential. A request can narrow them, never widen them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// Nothing: any authenticated caller.
    #[serde(rename = "none")]
    None,
    /// Read what the gateway knows: status, logs, sessions, events.
    #[serde(rename = "operator.read")]
    OperatorRead,
    /// Make the gateway act: start, abort and wait for runs.
    #[serde(rename = "operator.write")]
    OperatorWrite,
    /// Approve or refuse what agents ask for.
    #[serde(rename = "operator.approvals")]
    OperatorApprovals,
    /// Approve, rename and remove devices.
    #[serde(rename = "operator.pairing")]
    OperatorPairing,
    /// Everything, configuration included.
    #[serde(rename = "operator.admin")]
    OperatorAdmin,
}

impl Scope {
    /// Every scope.
    pub const ALL: &'static [Self] = &[
        Self::None,
        Self::OperatorRead,
        Self::OperatorWrite,
        Self::OperatorApprovals,
        Self::OperatorPairing,
        Self::OperatorAdmin,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::OperatorRead => "operator.read",
            Self::OperatorWrite => "operator.write",
            Self::OperatorApprovals => "operator.approvals",
            Self::OperatorPairing => "operator.pairing",
            Self::OperatorAdmin => "operator.admin",
        }
    }

    /// The scope of a name on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scope| scope.name() == name)
    }

    /// The scope of a name, at compile time: an unknown name does not build.
    #[doc(hidden)]
    #[must_use]
    pub const fn required(name: &str) -> Self {
        let mut index = 0;
        while index < Self::ALL.len() {
            if same(Self::ALL[index].name(), name) {
                return Self::ALL[index];
            }
            index += 1;
        }
        panic!(
            "unknown scope; one of none, operator.read, operator.write, operator.approvals, operator.pairing, operator.admin"
        )
    }

    const fn bit(self) -> u8 {
        match self {
            Self::None => 0,
            Self::OperatorRead => 1,
            Self::OperatorWrite => 1 << 1,
            Self::OperatorApprovals => 1 << 2,
            Self::OperatorPairing => 1 << 3,
            Self::OperatorAdmin => 1 << 4,
        }
    }
}

const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of scopes: what one caller holds.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// No scope: methods of scope `none` only.
    pub const EMPTY: Self = Self(0);
    /// Everything.
    pub const ADMIN: Self = Self(Scope::OperatorAdmin.bit());

    /// Whether the set satisfies `scope`, implications included.
    #[must_use]
    pub const fn allows(self, scope: Scope) -> bool {
        let implied = match scope {
            Scope::None => return true,
            Scope::OperatorRead => Scope::OperatorWrite.bit(),
            Scope::OperatorWrite
            | Scope::OperatorApprovals
            | Scope::OperatorPairing
            | Scope::OperatorAdmin => 0,
        };
        self.0 & (scope.bit() | implied | Scope::OperatorAdmin.bit()) != 0
    }

    /// The scopes of `asked` that this set satisfies: what remains when a caller narrows its rights.
    #[must_use]
    pub fn narrowed_to(self, asked: Self) -> Self {
        asked.iter().filter(|scope| self.allows(*scope)).collect()
    }

    /// The set as bits, for an atomic cell.
    #[must_use]
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// The set of [`Scopes::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The scopes that were put in, without what they imply.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.0 & scope.bit() != 0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Scope::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_implies_all_and_write_implies_read() {
        assert!(Scope::ALL.iter().all(|scope| Scopes::ADMIN.allows(*scope)));
        let write: Scopes = [Scope::OperatorWrite].into_iter().collect();
        assert!(write.allows(Scope::OperatorRead) && write.allows(Scope::OperatorWrite));
        assert!(!write.allows(Scope::OperatorAdmin) && !write.allows(Scope::OperatorPairing));
        assert!(Scopes::EMPTY.allows(Scope::None) && !Scopes::EMPTY.allows(Scope::OperatorRead));
    }

    #[test]
    fn narrowing_never_widens() {
        let read: Scopes = [Scope::OperatorRead].into_iter().collect();
        assert_eq!(read.narrowed_to(Scopes::ADMIN), Scopes::EMPTY);
        assert_eq!(Scopes::ADMIN.narrowed_to(read), read);
    }

    #[test]
    fn names_round_trip() {
        for scope in Scope::ALL {
            assert_eq!(Scope::from_name(scope.name()), Some(*scope));
            assert_eq!(serde_json::to_value(scope).expect("a scope serialises"), scope.name());
        }
    }
}
