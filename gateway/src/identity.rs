//! The gateway's identity: an Ed25519 key that tells this gateway from others, whatever its address.
//!
//! Ids and encodings are those of wire.md section 5.

use std::{fmt, io, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{SECRET_KEY_LENGTH, SIGNATURE_LENGTH, Signer as _, SigningKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::state::{StateError, create_private, hex, random_bytes};

/// The key of this gateway.
pub struct GatewayIdentity {
    key: SigningKey,
    device_id: String,
    public_key: String,
}

/// The identity as it lies on the disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityFile {
    /// The layout of this file.
    version: u32,
    device_id: String,
    public_key: String,
    /// The seed of the key: base64url without padding.
    private_key: String,
}

/// The layout that this gateway writes and reads.
const VERSION: u32 = 1;

impl GatewayIdentity {
    /// Reads the identity at `path`, or makes one there (mode 0600) when there is none.
    ///
    /// # Errors
    ///
    /// What the file system says; or that the file is damaged. A damaged file is never replaced: clients know this
    /// gateway by the key in it.
    pub fn load_or_create(path: &Path) -> Result<Self, StateError> {
        if let Some(identity) = Self::load(path)? {
            return Ok(identity);
        }
        let seed = random_bytes::<SECRET_KEY_LENGTH>()?;
        let identity = Self::from_seed(&seed);
        let file = IdentityFile {
            version: VERSION,
            device_id: identity.device_id.clone(),
            public_key: identity.public_key.clone(),
            private_key: URL_SAFE_NO_PAD.encode(seed),
        };
        let mut text = serde_json::to_string_pretty(&file).expect("an identity has string keys only");
        text.push('\n');
        if create_private(path, text.as_bytes())? {
            return Ok(identity);
        }
        // Another process was faster; its key counts.
        Self::load(path)?.ok_or_else(|| StateError::Io {
            action: "read",
            path: path.to_owned(),
            source: io::Error::from(io::ErrorKind::NotFound),
        })
    }

    /// The id: the SHA-256 of the raw public key, in lower-case hex.
    #[must_use]
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// The raw public key, in base64url without padding.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The signature of `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.key.sign(message).to_bytes()
    }

    fn load(path: &Path) -> Result<Option<Self>, StateError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { action: "read", path: path.to_owned(), source }),
        };
        Self::parse(&bytes)
            .map(Some)
            .map_err(|problem| StateError::Damaged { path: path.to_owned(), problem })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: IdentityFile = serde_json::from_slice(bytes).map_err(|error| {
            // The text of a wrong type would quote the value, which may be the key.
            let place = format!("line {}, column {}", error.line(), error.column());
            if error.is_data() {
                format!("it is no identity ({place})")
            } else {
                format!("it is no JSON ({place})")
            }
        })?;
        if file.version != VERSION {
            return Err(format!("its `version` is {}, and this gateway knows only {VERSION}", file.version));
        }
        let seed = URL_SAFE_NO_PAD
            .decode(file.private_key.as_bytes())
            .ok()
            .and_then(|seed| <[u8; SECRET_KEY_LENGTH]>::try_from(seed).ok())
            .ok_or("its `privateKey` is not 32 bytes in base64url")?;
        let identity = Self::from_seed(&seed);
        if identity.public_key != file.public_key || identity.device_id != file.device_id {
            return Err("its `privateKey` does not belong to its `publicKey` and `deviceId`".to_owned());
        }
        Ok(identity)
    }

    fn from_seed(seed: &[u8; SECRET_KEY_LENGTH]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let public = key.verifying_key().to_bytes();
        Self { device_id: hex(&Sha256::digest(public)), public_key: URL_SAFE_NO_PAD.encode(public), key }
    }
}

impl fmt::Debug for GatewayIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GatewayIdentity").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The seed of wire.md section 5: the bytes 0 to 31.
    fn vector_seed() -> [u8; 32] {
        std::array::from_fn(|at| u8::try_from(at).expect("below 32"))
    }

    #[test]
    fn the_vector_of_the_wire_gives_its_ids_and_its_signature() {
        let identity = GatewayIdentity::from_seed(&vector_seed());
        assert_eq!(identity.device_id(), "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c");
        assert_eq!(identity.public_key(), "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg");
        let payload = "v2|56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c|cli|cli|operator|\
                       operator.read,operator.write,operator.admin|1795339864373|secret|\
                       5d2579b2-c365-4ad4-9e3a-3ebed81397a7";
        assert_eq!(
            URL_SAFE_NO_PAD.encode(identity.sign(payload.as_bytes())),
            "LxEDZjRbrRrRxQidmhYqlTUQqsPZpWFs8JvkRV3CuMNGRNb3fe9LZGfCGd7WmMzKDg5rvsd3f2Lo9-kzWWrmCQ"
        );
    }

    #[test]
    fn an_identity_is_made_once_and_is_its_owners_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("gateway/identity.json");
        let made = GatewayIdentity::load_or_create(&path).expect("it makes one");
        let read = GatewayIdentity::load_or_create(&path).expect("it reads it");
        assert_eq!(made.device_id(), read.device_id());
        assert_eq!(made.sign(b"x"), read.sign(b"x"));
        let mode = path.metadata().expect("it exists").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(!format!("{made:?}").contains("key"), "{made:?}");
    }

    #[test]
    fn a_damaged_file_is_named_and_never_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("identity.json");
        let good = |version: u32, public: &str, private: &str| {
            format!(
                r#"{{"version":{version},"deviceId":"56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c","publicKey":"{public}","privateKey":"{private}"}}"#
            )
        };
        let public = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
        let private = URL_SAFE_NO_PAD.encode(vector_seed());
        for (content, problem) in [
            (String::new(), "it is no JSON (line 1, column 0)".to_owned()),
            ("{}".to_owned(), "it is no identity (line 1, column 2)".to_owned()),
            (good(2, public, &private), "its `version` is 2, and this gateway knows only 1".to_owned()),
            (good(1, public, "AAAA"), "its `privateKey` is not 32 bytes in base64url".to_owned()),
            (
                good(1, "AAAA", &private),
                "its `privateKey` does not belong to its `publicKey` and `deviceId`".to_owned(),
            ),
        ] {
            std::fs::write(&path, &content).expect("it writes");
            let error = GatewayIdentity::load_or_create(&path).expect_err("it is damaged").to_string();
            assert_eq!(
                error,
                format!(
                    "{} is damaged: {problem}; move it away and a new one is made at the next start",
                    path.display()
                )
            );
            assert_eq!(std::fs::read_to_string(&path).expect("it reads"), content);
        }
        std::fs::write(&path, good(1, public, &private)).expect("it writes");
        GatewayIdentity::load_or_create(&path).expect("it is whole");
    }
}
