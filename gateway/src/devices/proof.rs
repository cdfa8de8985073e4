//! The proof that a device holds its key: encodings, payloads and the order of the checks (wire.md section 5).

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD},
    },
};
use ed25519_dalek::{Signature, VerifyingKey};
use openclaw_schema::types::TimestampMs;
use sha2::{Digest as _, Sha256};

use super::{attempt::Protocol, record::Role, refusal::Refusal};
use crate::state::hex;

/// How far `signedAt` may lie from the gateway's clock, in milliseconds.
const TOLERANCE_MS: u64 = 120_000;
/// What stands before the raw key in an Ed25519 key's SPKI form (RFC 8410 section 4).
const SPKI_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// base64 with or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A device's signature of the challenge, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceProof {
    /// The SHA-256 of the raw public key, in lower-case hex.
    pub(crate) id: String,
    /// base64url, base64 or SPKI PEM.
    pub(crate) public_key: String,
    /// base64url or base64.
    pub(crate) signature: String,
    pub(crate) signed_at: TimestampMs,
    pub(crate) nonce: String,
}

/// What is signed beside the proof's own fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) client_mode: &'a str,
    pub(crate) platform: Option<&'a str>,
    pub(crate) device_family: Option<&'a str>,
    pub(crate) role: Role,
    /// In the order they were sent.
    pub(crate) scopes: &'a [String],
    /// `auth.token`, else `auth.deviceToken`, else `auth.bootstrapToken`, else empty.
    pub(crate) token: &'a str,
}

impl DeviceProof {
    /// Checks the proof against the challenge. The answer is the raw public key, in base64url without padding.
    ///
    /// Protocol 3 knows the first form of the payload only.
    pub(crate) fn verify(
        &self,
        signed: &Signed<'_>,
        challenge: &str,
        protocol: Protocol,
        now: TimestampMs,
    ) -> Result<String, Refusal> {
        let key = decode_key(&self.public_key)
            .filter(|key| hex(&Sha256::digest(key)) == self.id)
            .ok_or_else(|| {
                Refusal::proof(
                    "device identity mismatch",
                    "DEVICE_AUTH_DEVICE_ID_MISMATCH",
                    "device-id-mismatch",
                )
            })?;
        if self.signed_at.0.abs_diff(now.0) > TOLERANCE_MS {
            return Err(Refusal::proof(
                "device signature expired",
                "DEVICE_AUTH_SIGNATURE_EXPIRED",
                "device-signature-stale",
            ));
        }
        let nonce = self.nonce.trim();
        if nonce.is_empty() {
            return Err(Refusal::proof(
                "device nonce required",
                "DEVICE_AUTH_NONCE_REQUIRED",
                "device-nonce-missing",
            ));
        }
        if nonce != challenge {
            return Err(Refusal::proof(
                "device nonce mismatch",
                "DEVICE_AUTH_NONCE_MISMATCH",
                "device-nonce-mismatch",
            ));
        }
        let good = self.is_signed(&key, signed, nonce, protocol);
        good.then(|| URL_SAFE_NO_PAD.encode(key)).ok_or_else(|| {
            Refusal::proof("device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID", "device-signature")
        })
    }

    fn is_signed(&self, key: &[u8; 32], signed: &Signed<'_>, nonce: &str, protocol: Protocol) -> bool {
        let signature = decode(&self.signature).and_then(|signature| <[u8; 64]>::try_from(signature).ok());
        let (Ok(key), Some(signature)) = (VerifyingKey::from_bytes(key), signature) else { return false };
        let signature = Signature::from_bytes(&signature);
        let v2 = format!(
            "v2|{}|{}|{}|{}|{}|{}|{}|{nonce}",
            self.id,
            signed.client_id,
            signed.client_mode,
            signed.role.name(),
            signed.scopes.join(","),
            self.signed_at.0,
            signed.token,
        );
        if protocol == Protocol::V4 {
            let v3 = format!(
                "v3{}|{}|{}",
                &v2["v2".len()..],
                normal(signed.platform),
                normal(signed.device_family)
            );
            if key.verify_strict(v3.as_bytes(), &signature).is_ok() {
                return true;
            }
        }
        key.verify_strict(v2.as_bytes(), &signature).is_ok()
    }
}

/// A name as it is signed and compared: trimmed, with the ASCII letters in lower case.
pub(super) fn normal(name: Option<&str>) -> String {
    name.unwrap_or_default().trim().to_ascii_lowercase()
}

fn decode_key(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    if let Some(pem) = text.strip_prefix("-----BEGIN PUBLIC KEY-----") {
        let body: String = pem
            .trim_end()
            .strip_suffix("-----END PUBLIC KEY-----")?
            .chars()
            .filter(|char| !char.is_ascii_whitespace())
            .collect();
        return decode(&body)?.strip_prefix(SPKI_PREFIX)?.try_into().ok();
    }
    decode(text)?.try_into().ok()
}

/// base64 of either alphabet.
fn decode(text: &str) -> Option<Vec<u8>> {
    let standard: Vec<u8> = text
        .bytes()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    LENIENT.decode(standard).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test vector of wire.md section 5.
    const ID: &str = "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c";
    const KEY: &str = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
    const V3: (&str, u64, &str) = (
        "e23ecc68-6e2c-4a19-8c24-65852e98f4e1",
        1_795_339_864_269,
        "jaAmcmmvG0C3E46eA1QxQjH4KDy3L4tCCOBZwRZCAWOzZe6OdwgJVynVLCdM8nfPwrR7HBp_xB84v0eV9hLmCA",
    );
    const V2: (&str, u64, &str) = (
        "5d2579b2-c365-4ad4-9e3a-3ebed81397a7",
        1_795_339_864_373,
        "LxEDZjRbrRrRxQidmhYqlTUQqsPZpWFs8JvkRV3CuMNGRNb3fe9LZGfCGd7WmMzKDg5rvsd3f2Lo9-kzWWrmCQ",
    );
    const REUSE: (&str, u64, &str) = (
        "4a8d2ca3-d1de-41bc-a108-f1654babc877",
        1_795_339_864_446,
        "JTqnKvAmYecxvXsZ7Rc7NG9VQFfnXB7GY0pCg9rI5Yi7Z_Wsw-bfXWhMkFAHpHEKPbxemackRJskVFVK2FlcBA",
    );

    fn proof((nonce, signed_at, signature): (&str, u64, &str)) -> DeviceProof {
        DeviceProof {
            id: ID.to_owned(),
            public_key: KEY.to_owned(),
            signature: signature.to_owned(),
            signed_at: TimestampMs(signed_at),
            nonce: nonce.to_owned(),
        }
    }

    fn check(
        proof: &DeviceProof,
        token: &str,
        challenge: &str,
        protocol: Protocol,
    ) -> Result<String, Refusal> {
        let scopes = ["operator.read", "operator.write", "operator.admin"].map(str::to_owned);
        let signed = Signed {
            client_id: "cli",
            client_mode: "cli",
            platform: Some("Linux"),
            device_family: Some("Test Box"),
            role: Role::Operator,
            scopes: &scopes,
            token,
        };
        proof.verify(&signed, challenge, protocol, proof.signed_at)
    }

    fn code(result: Result<String, Refusal>) -> (String, &'static str, &'static str) {
        let refusal = result.expect_err("it is refused");
        let details = refusal.details.expect("it has details");
        (refusal.message, details.code, details.reason.expect("it has a reason"))
    }

    #[test]
    fn the_vector_of_the_wire_is_good_in_each_form() {
        for (vector, token) in
            [(V3, "secret"), (V2, "secret"), (REUSE, "zFmi0lyV__qFRNPoApMffdI2GPjIy6JwdAQJM3OxKzs")]
        {
            assert_eq!(check(&proof(vector), token, vector.0, Protocol::V4).as_deref(), Ok(KEY));
            let other = code(check(&proof(vector), "other", vector.0, Protocol::V4));
            assert_eq!(other.1, "DEVICE_AUTH_SIGNATURE_INVALID");
        }
    }

    #[test]
    fn protocol_3_knows_the_first_payload_only() {
        assert!(check(&proof(V2), "secret", V2.0, Protocol::V3).is_ok());
        let refused = code(check(&proof(V3), "secret", V3.0, Protocol::V3));
        assert_eq!(
            refused,
            ("device signature invalid".into(), "DEVICE_AUTH_SIGNATURE_INVALID", "device-signature")
        );
    }

    #[test]
    fn keys_and_signatures_are_read_in_every_encoding() {
        let standard = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n-----END PUBLIC KEY-----\n";
        for key in [standard, pem] {
            let mut proof = proof(V3);
            proof.public_key = key.to_owned();
            proof.signature = format!("{}==", V3.2.replace('-', "+").replace('_', "/"));
            assert_eq!(check(&proof, "secret", V3.0, Protocol::V4).as_deref(), Ok(KEY), "{key}");
        }
    }

    #[test]
    fn the_first_check_that_fails_is_the_one_that_is_told() {
        let mut bad = proof(V3);
        bad.signature = "AAAA".to_owned();
        assert_eq!(
            code(check(&bad, "secret", V3.0, Protocol::V4)),
            ("device signature invalid".into(), "DEVICE_AUTH_SIGNATURE_INVALID", "device-signature")
        );
        assert_eq!(
            code(check(&bad, "secret", "another challenge", Protocol::V4)),
            ("device nonce mismatch".into(), "DEVICE_AUTH_NONCE_MISMATCH", "device-nonce-mismatch")
        );
        bad.nonce = "  ".to_owned();
        assert_eq!(
            code(check(&bad, "secret", V3.0, Protocol::V4)),
            ("device nonce required".into(), "DEVICE_AUTH_NONCE_REQUIRED", "device-nonce-missing")
        );
        let signed = Signed {
            client_id: "cli",
            client_mode: "cli",
            platform: None,
            device_family: None,
            role: Role::Operator,
            scopes: &[],
            token: "",
        };
        for (now, expired) in
            [(V3.1 + 120_000, false), (V3.1 + 120_001, true), (V3.1 - 120_000, false), (V3.1 - 120_001, true)]
        {
            let refused = code(bad.verify(&signed, V3.0, Protocol::V4, TimestampMs(now)));
            assert_eq!(refused.1 == "DEVICE_AUTH_SIGNATURE_EXPIRED", expired, "{refused:?}");
            assert_eq!(refused.2 == "device-signature-stale", expired);
        }
        for (id, key) in [("0000", KEY), (ID, "no key"), (ID, "AAAA")] {
            bad.id = id.to_owned();
            bad.public_key = key.to_owned();
            assert_eq!(
                code(bad.verify(&signed, V3.0, Protocol::V4, TimestampMs(0))),
                ("device identity mismatch".into(), "DEVICE_AUTH_DEVICE_ID_MISMATCH", "device-id-mismatch")
            );
        }
    }

    #[test]
    fn names_are_normalised_as_they_are_signed() {
        assert_eq!(normal(Some(" MyÉ Box ")), "myÉ box");
        assert_eq!(normal(None), "");
    }
}
