//! The device identity of this program: an Ed25519 key, what it signs, and the tokens that gateways gave it.
//!
//! `device.json` has the layout that OpenClaw writes, so that both may share a key. The tokens lie beside it in a
//! file of our own: OpenClaw keeps one token per role, whatever the gateway, and a token must only ever go back to
//! the gateway that gave it. What is signed, and how, is wire.md section 5.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::{SECRET_KEY_LENGTH, Signer as _, SigningKey};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// The key's file.
const KEY_FILE: &str = "device.json";
/// The file of the tokens.
const TOKENS_FILE: &str = "gateway-tokens.json";
/// The layout of both files.
const VERSION: u32 = 1;
/// What stands before the 32 bytes of an Ed25519 seed in PKCS #8 (RFC 8410 section 7).
const PRIVATE_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// What stands before the 32 bytes of an Ed25519 public key in SPKI (RFC 8410 section 4).
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A directory with a device identity. Nothing is read or made before it is needed.
#[derive(Debug, Clone)]
pub(crate) struct IdentityDir(PathBuf);

/// The key as it lies on the disk.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyFile {
    version: u32,
    device_id: String,
    public_key_pem: String,
    private_key_pem: String,
    created_at_ms: u64,
}

/// The tokens as they lie on the disk, by role and gateway.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokensFile {
    version: u32,
    device_id: String,
    tokens: BTreeMap<String, TokenEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenEntry {
    token: String,
    role: String,
    scopes: Vec<String>,
    updated_at_ms: u64,
}

impl IdentityDir {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The identity in this directory; made, with mode 0600, when there is none.
    pub(crate) fn identity(&self) -> Result<DeviceIdentity, Error> {
        let path = self.0.join(KEY_FILE);
        if let Some(text) = read(&path)? {
            return DeviceIdentity::from_file(&text).map_err(|problem| damaged(&path, problem));
        }
        let mut seed = [0; SECRET_KEY_LENGTH];
        getrandom::fill(&mut seed).map_err(|problem| {
            Error::invalid(format!("the system gives no randomness for a key: {problem}"))
        })?;
        let identity = DeviceIdentity::from_seed(&seed);
        let mut text =
            serde_json::to_string_pretty(&identity.to_file(&seed)).expect("texts and numbers serialise");
        text.push('\n');
        if write(&path, &text, false)? {
            return Ok(identity);
        }
        // Another process was faster: its key counts.
        let text = read(&path)?.ok_or_else(|| damaged(&path, "it vanished while it was read"))?;
        DeviceIdentity::from_file(&text).map_err(|problem| damaged(&path, problem))
    }

    /// The token that `gateway` gave to `device` for `role`. A file that cannot be read counts as empty: the
    /// gateway then says what it wants instead.
    pub(crate) fn token(&self, device: &DeviceIdentity, gateway: &str, role: &str) -> Option<SecretString> {
        let tokens = self.tokens(device);
        tokens.tokens.get(&key(gateway, role)).map(|entry| SecretString::from(entry.token.clone()))
    }

    /// Whether `gateway` has given this device a token. Makes nothing.
    pub(crate) fn is_paired(&self, gateway: &str) -> bool {
        let Ok(Some(_)) = read(&self.0.join(KEY_FILE)) else { return false };
        let Ok(device) = self.identity() else { return false };
        let tokens = self.tokens(&device).tokens;
        tokens.keys().any(|key| key.split_once('@').is_some_and(|(_, given)| given == gateway))
    }

    /// Keeps the token that `gateway` gave.
    pub(crate) fn keep_token(
        &self,
        device: &DeviceIdentity,
        gateway: &str,
        role: &str,
        scopes: Vec<String>,
        token: &SecretString,
    ) -> Result<(), Error> {
        let mut tokens = self.tokens(device);
        let token = token.expose_secret().to_owned();
        if tokens.tokens.get(&key(gateway, role)).is_some_and(|entry| entry.token == token) {
            return Ok(());
        }
        let entry = TokenEntry { token, role: role.to_owned(), scopes, updated_at_ms: now_ms() };
        tokens.tokens.insert(key(gateway, role), entry);
        self.write_tokens(&tokens)
    }

    /// Forgets a token that its gateway no longer takes.
    pub(crate) fn forget_token(
        &self,
        device: &DeviceIdentity,
        gateway: &str,
        role: &str,
    ) -> Result<(), Error> {
        let mut tokens = self.tokens(device);
        match tokens.tokens.remove(&key(gateway, role)) {
            Some(_) => self.write_tokens(&tokens),
            None => Ok(()),
        }
    }

    fn tokens(&self, device: &DeviceIdentity) -> TokensFile {
        let path = self.0.join(TOKENS_FILE);
        let read = read(&path).ok().flatten();
        let file = read.and_then(|text| serde_json::from_str::<TokensFile>(&text).ok());
        file.filter(|file| file.version == VERSION && file.device_id == device.device_id).unwrap_or_else(
            || TokensFile { version: VERSION, device_id: device.device_id.clone(), tokens: BTreeMap::new() },
        )
    }

    fn write_tokens(&self, tokens: &TokensFile) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(tokens).expect("texts and numbers serialise");
        text.push('\n');
        write(&self.0.join(TOKENS_FILE), &text, true).map(|_| ())
    }
}

fn key(gateway: &str, role: &str) -> String {
    format!("{role}@{gateway}")
}

/// The key that tells this device from others.
pub(crate) struct DeviceIdentity {
    key: SigningKey,
    device_id: String,
    public_key: String,
}

impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceIdentity").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

impl DeviceIdentity {
    fn from_seed(seed: &[u8; SECRET_KEY_LENGTH]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let public = key.verifying_key().to_bytes();
        let device_id = Sha256::digest(public).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { device_id, public_key: URL_SAFE_NO_PAD.encode(public), key }
    }

    /// The SHA-256 of the raw public key, in lower-case hex.
    pub(crate) fn device_id(&self) -> &str {
        &self.device_id
    }

    /// The raw public key, in base64url without padding.
    pub(crate) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The signature of `statement`, in base64url without padding.
    pub(crate) fn sign(&self, statement: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.key.sign(statement.as_bytes()).to_bytes())
    }

    fn from_file(text: &str) -> Result<Self, String> {
        // serde's own words would quote the value, which may be the key.
        let file: KeyFile = serde_json::from_str(text).map_err(|error| {
            format!("it is no identity (line {}, column {})", error.line(), error.column())
        })?;
        if file.version != VERSION {
            return Err(format!("its `version` is {}, and this program knows only {VERSION}", file.version));
        }
        let seed = from_pem(&file.private_key_pem, &PRIVATE_PREFIX)
            .ok_or("its `privateKeyPem` is no Ed25519 key in PKCS #8")?;
        let identity = Self::from_seed(&seed);
        if identity.device_id != file.device_id {
            return Err("its `privateKeyPem` does not belong to its `deviceId`".to_owned());
        }
        Ok(identity)
    }

    fn to_file(&self, seed: &[u8; SECRET_KEY_LENGTH]) -> KeyFile {
        KeyFile {
            version: VERSION,
            device_id: self.device_id.clone(),
            public_key_pem: to_pem("PUBLIC KEY", &PUBLIC_PREFIX, &self.key.verifying_key().to_bytes()),
            private_key_pem: to_pem("PRIVATE KEY", &PRIVATE_PREFIX, seed),
            created_at_ms: now_ms(),
        }
    }
}

/// What a device signs to prove that it holds its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statement<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) client_mode: &'a str,
    pub(crate) role: &'a str,
    /// In the order in which they are asked for.
    pub(crate) scopes: &'a [&'a str],
    /// The time in the gateway's challenge.
    pub(crate) signed_at_ms: u64,
    /// What is sent as `auth.token`; empty when nothing is.
    pub(crate) token: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) platform: &'a str,
    pub(crate) device_family: &'a str,
}

impl Statement<'_> {
    /// The statement that every gateway reads.
    pub(crate) fn v2(&self, device_id: &str) -> String {
        self.common("v2", device_id)
    }

    /// The statement that also binds the platform. Gateways of protocol 3 do not read it.
    pub(crate) fn v3(&self, device_id: &str) -> String {
        let common = self.common("v3", device_id);
        // Gateways lower ASCII letters only.
        let [platform, family] =
            [self.platform, self.device_family].map(|text| text.trim().to_ascii_lowercase());
        format!("{common}|{platform}|{family}")
    }

    fn common(&self, version: &str, device_id: &str) -> String {
        let Self { client_id, client_mode, role, signed_at_ms, token, nonce, .. } = self;
        let scopes = self.scopes.join(",");
        format!(
            "{version}|{device_id}|{client_id}|{client_mode}|{role}|{scopes}|{signed_at_ms}|{token}|{nonce}"
        )
    }
}

/// Both kinds of key fit on one line of 64 characters.
fn to_pem(label: &str, prefix: &[u8], key: &[u8]) -> String {
    let body = STANDARD.encode([prefix, key].concat());
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn from_pem(text: &str, prefix: &[u8]) -> Option<[u8; SECRET_KEY_LENGTH]> {
    let body: String = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let bytes = STANDARD.decode(body).ok()?;
    bytes.strip_prefix(prefix)?.try_into().ok()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn damaged(path: &Path, problem: impl fmt::Display) -> Error {
    Error::invalid(format!(
        "the device identity in {} cannot be used: {problem}. Put a copy back, or move the file away and pair anew",
        path.display()
    ))
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::invalid(format!("{} cannot be read: {error}", path.display()))),
    }
}

/// Writes the whole file at once, with mode 0600. Answers `false`, and leaves the file alone, when there is one that
/// is not to be replaced.
fn write(path: &Path, text: &str, replace: bool) -> Result<bool, Error> {
    let write = || {
        let dir = path.parent().unwrap_or_else(|| Path::new("."));
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
            builder.mode(0o700);
            options.mode(0o600);
        }
        builder.create(dir)?;
        let temporary = dir.join(format!(".{}.tmp", uuid::Uuid::now_v7().simple()));
        let mut file = options.open(&temporary)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
            if replace {
                return fs::rename(&temporary, path).map(|()| true);
            }
            // A link refuses to replace, as a rename does not.
            match fs::hard_link(&temporary, path) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                // Some file systems have no links.
                Err(_) => fs::rename(&temporary, path).map(|()| true),
            }
        });
        // After a rename it is gone already.
        let _ = fs::remove_file(&temporary);
        written
    };
    write()
        .map_err(|error: io::Error| Error::invalid(format!("{} cannot be written: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seed of wire.md section 5: the bytes 0 to 31.
    fn vector() -> DeviceIdentity {
        DeviceIdentity::from_seed(&std::array::from_fn(|at| u8::try_from(at).expect("below 32")))
    }

    fn statement<'a>(signed_at_ms: u64, token: &'a str, nonce: &'a str) -> Statement<'a> {
        Statement {
            client_id: "cli",
            client_mode: "cli",
            role: "operator",
            scopes: &["operator.read", "operator.write", "operator.admin"],
            signed_at_ms,
            token,
            nonce,
            platform: "Linux",
            device_family: "Test Box",
        }
    }

    #[test]
    fn the_vector_of_a_live_gateway_is_reproduced() {
        let device = vector();
        assert_eq!(device.device_id(), "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c");
        assert_eq!(device.public_key(), "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg");
        let v3 = statement(1_795_339_864_269, "secret", "e23ecc68-6e2c-4a19-8c24-65852e98f4e1")
            .v3(device.device_id());
        assert_eq!(
            v3,
            "v3|56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c|cli|cli|operator|operator.read,operator.write,operator.admin|1795339864269|secret|e23ecc68-6e2c-4a19-8c24-65852e98f4e1|linux|test box"
        );
        assert_eq!(
            device.sign(&v3),
            "jaAmcmmvG0C3E46eA1QxQjH4KDy3L4tCCOBZwRZCAWOzZe6OdwgJVynVLCdM8nfPwrR7HBp_xB84v0eV9hLmCA"
        );
        let v2 = statement(1_795_339_864_373, "secret", "5d2579b2-c365-4ad4-9e3a-3ebed81397a7")
            .v2(device.device_id());
        assert_eq!(
            v2,
            "v2|56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c|cli|cli|operator|operator.read,operator.write,operator.admin|1795339864373|secret|5d2579b2-c365-4ad4-9e3a-3ebed81397a7"
        );
        assert_eq!(
            device.sign(&v2),
            "LxEDZjRbrRrRxQidmhYqlTUQqsPZpWFs8JvkRV3CuMNGRNb3fe9LZGfCGd7WmMzKDg5rvsd3f2Lo9-kzWWrmCQ"
        );
        let reuse = statement(
            1_795_339_864_446,
            "zFmi0lyV__qFRNPoApMffdI2GPjIy6JwdAQJM3OxKzs",
            "4a8d2ca3-d1de-41bc-a108-f1654babc877",
        );
        assert_eq!(
            device.sign(&reuse.v3(device.device_id())),
            "JTqnKvAmYecxvXsZ7Rc7NG9VQFfnXB7GY0pCg9rI5Yi7Z_Wsw-bfXWhMkFAHpHEKPbxemackRJskVFVK2FlcBA"
        );
    }

    #[test]
    fn only_ascii_letters_are_lowered() {
        let odd = Statement { platform: " MyÉ Box ", device_family: "", ..statement(1, "", "n") };
        assert!(odd.v3("d").ends_with("||n|myÉ box|"));
    }

    #[test]
    fn a_key_that_openclaw_wrote_is_read() {
        // Made by OpenClaw 2026.9.6 for a throw-away gateway.
        let text = r#"{
            "version": 1,
            "deviceId": "d8824c94d256f6ef23b7f9a1b55bf949f0d8fe145403036a753837220d937a52",
            "publicKeyPem": "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAiQ1XBsPzg6KbP0OAy3HbZOK9hvvBP0+mhH5TuPhY0HU=\n-----END PUBLIC KEY-----\n",
            "privateKeyPem": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEID314UJ79c+RZQkTot4VBk+3UR1Ag2spsY+HThgPOmvi\n-----END PRIVATE KEY-----\n",
            "createdAtMs": 1795354015112
        }"#;
        let device = DeviceIdentity::from_file(text).expect("the file is sound");
        assert_eq!(device.device_id(), "d8824c94d256f6ef23b7f9a1b55bf949f0d8fe145403036a753837220d937a52");
        let theirs: KeyFile = serde_json::from_str(text).expect("the file is sound");
        let seed = from_pem(&theirs.private_key_pem, &PRIVATE_PREFIX).expect("it is a key");
        let ours = device.to_file(&seed);
        assert_eq!(
            (ours.public_key_pem, ours.private_key_pem),
            (theirs.public_key_pem, theirs.private_key_pem)
        );
    }

    #[test]
    fn identity_and_tokens_are_made_once_kept_private_and_never_mixed() {
        let root = tempfile::tempdir().expect("there is room");
        let dir = IdentityDir::new(root.path().join("identity"));
        let device = dir.identity().expect("it is made");
        assert_eq!(dir.identity().expect("it is read").device_id(), device.device_id());
        assert!(dir.token(&device, "one:1", "operator").is_none());
        let keep = |gateway: &str, token: &str| {
            let scopes = vec!["operator.read".to_owned()];
            dir.keep_token(&device, gateway, "operator", scopes, &SecretString::from(token))
                .expect("it is kept");
        };
        keep("one:1", "a");
        keep("two:2", "b");
        keep("one:1", "c");
        let token = |gateway: &str| {
            dir.token(&device, gateway, "operator").map(|token| token.expose_secret().to_owned())
        };
        assert_eq!((token("one:1").as_deref(), token("two:2").as_deref()), (Some("c"), Some("b")));
        dir.forget_token(&device, "one:1", "operator").expect("it is written");
        assert_eq!((token("one:1"), token("two:2").as_deref()), (None, Some("b")));
        assert!(dir.token(&vector(), "two:2", "operator").is_none(), "another device has no token");
        #[cfg(unix)]
        for entry in fs::read_dir(root.path().join("identity")).expect("it is there") {
            use std::os::unix::fs::PermissionsExt as _;
            let entry = entry.expect("it is readable");
            let mode = entry.metadata().expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
        }
    }

    #[test]
    fn a_damaged_key_is_refused_without_repeating_it() {
        let root = tempfile::tempdir().expect("there is room");
        let dir = IdentityDir::new(root.path().to_owned());
        for text in ["", "{}", r#"{"version":"hunter2"}"#] {
            fs::write(root.path().join(KEY_FILE), text).expect("there is room");
            let error = dir.identity().expect_err("the file is damaged");
            assert!(
                matches!(error, Error::InvalidInput { .. }) && !error.to_string().contains("hunter2"),
                "{error}"
            );
        }
    }
}
