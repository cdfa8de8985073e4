//! What is kept about devices: plain data, without rules.

use openclaw_schema::types::TimestampMs;

/// What a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Someone who uses the gateway.
    Operator,
    /// A machine that the gateway uses.
    Node,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Node => "node",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Operator, Self::Node].into_iter().find(|role| role.name() == name)
    }
}

/// Who approved a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApprovedVia {
    /// The gateway itself: the device is on its own host and showed its secret.
    Silent,
    /// A person.
    Owner,
    /// A setup code, which a person had made.
    Bootstrap,
}

impl ApprovedVia {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Owner => "owner",
            Self::Bootstrap => "bootstrap",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Silent, Self::Owner, Self::Bootstrap].into_iter().find(|via| via.name() == name)
    }
}

/// Why a device needs someone's approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PairingReason {
    /// It is not paired.
    NotPaired,
    /// It is paired, but not in this role.
    RoleUpgrade,
    /// It asks for more scopes than were approved.
    ScopeUpgrade,
    /// It says that it is another kind of machine than the one that was approved.
    MetadataUpgrade,
}

impl PairingReason {
    const ALL: [Self; 4] = [Self::NotPaired, Self::RoleUpgrade, Self::ScopeUpgrade, Self::MetadataUpgrade];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NotPaired => "not-paired",
            Self::RoleUpgrade => "role-upgrade",
            Self::ScopeUpgrade => "scope-upgrade",
            Self::MetadataUpgrade => "metadata-upgrade",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What a client says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) client_id: String,
    pub(crate) client_mode: String,
    pub(crate) platform: Option<String>,
    pub(crate) device_family: Option<String>,
    pub(crate) display_name: Option<String>,
}

/// A device that is paired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) device_id: String,
    /// The raw public key, in base64url without padding.
    pub(crate) public_key: String,
    /// As it was approved.
    pub(crate) metadata: Metadata,
    /// The name that the owner gave it.
    pub(crate) label: Option<String>,
    /// The role it was paired for first.
    pub(crate) role: Role,
    pub(crate) remote_ip: Option<String>,
    pub(crate) approved_via: ApprovedVia,
    pub(crate) created_at: TimestampMs,
    pub(crate) approved_at: TimestampMs,
    pub(crate) last_seen_at: TimestampMs,
    /// One for each role that is approved.
    pub(crate) tokens: Vec<Token>,
}

impl Device {
    pub(crate) fn token(&self, role: Role) -> Option<&Token> {
        self.tokens.iter().find(|token| token.role == role)
    }

    pub(crate) fn roles(&self) -> Vec<String> {
        self.tokens.iter().map(|token| token.role.name().to_owned()).collect()
    }

    /// The scopes of all tokens, sorted.
    pub(crate) fn scopes(&self) -> Vec<String> {
        sorted(self.tokens.iter().flat_map(|token| token.scopes.iter().cloned()))
    }
}

/// A token of a device, for one role.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) role: Role,
    /// The token itself: a device that connects again gets the same one.
    pub(crate) value: String,
    /// What was approved; sorted.
    pub(crate) scopes: Vec<String>,
    /// When the first token of this role was made.
    pub(crate) created_at: TimestampMs,
    /// When it was last replaced.
    pub(crate) rotated_at: Option<TimestampMs>,
}

impl Token {
    /// When this value was made.
    pub(crate) fn issued_at(&self) -> TimestampMs {
        self.rotated_at.unwrap_or(self.created_at)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("role", &self.role)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// A request to be paired, or to be allowed more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PairingRequest {
    pub(crate) request_id: String,
    pub(crate) device_id: String,
    pub(crate) public_key: String,
    pub(crate) metadata: Metadata,
    pub(crate) role: Role,
    pub(crate) scopes: Vec<String>,
    pub(crate) reason: PairingReason,
    pub(crate) remote_ip: String,
    /// Whether the device is paired already.
    pub(crate) is_repair: bool,
    pub(crate) created_at: TimestampMs,
}

/// Sorted, without repetition.
pub(crate) fn sorted(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.into_iter().collect();
    texts.sort_unstable();
    texts.dedup();
    texts
}
