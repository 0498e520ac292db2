//! This server's signing key.

use ruma::{
    CanonicalJsonObject, OwnedServerName, ServerName,
    api::federation::authentication::XMatrixSigningInput,
    signatures::{Ed25519KeyPair, KeyPair, sign_json},
};

/// Why a stored key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the signing key is damaged: {0}")]
pub struct BadKey(String);

/// Signs what this server makes. Only typed values of our own making reach it: never a remote's object as received.
pub struct Signer {
    server_name: OwnedServerName,
    key: Ed25519KeyPair,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        write!(
            formatter,
            "Signer({} ed25519:{})",
            self.server_name,
            self.key.version()
        )
    }
}

impl Signer {
    /// A new key as a PKCS#8 document, from the system's randomness.
    pub fn generate() -> Vec<u8> {
        Ed25519KeyPair::generate().to_vec()
    }

    /// A signer with the key of a PKCS#8 document, named `ed25519:<version>`.
    pub fn from_der(
        server_name: OwnedServerName,
        document: &[u8],
        version: String,
    ) -> Result<Self, BadKey> {
        let key = Ed25519KeyPair::from_der(document, version)
            .map_err(|error| BadKey(error.to_string()))?;
        Ok(Self { server_name, key })
    }

    /// The server that signs.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// The key's id, such as `ed25519:a1b2`.
    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.key.version())
    }

    /// The public half.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.public_key()
    }

    /// The key's id and the signature of the signed form of an event, which `build` has made.
    pub(super) fn sign(&self, signed: &[u8]) -> (String, String) {
        let signature = self.key.sign(signed);
        (signature.id(), signature.base64())
    }

    /// What signs a request to `destination`.
    pub fn for_request(&self, destination: &ServerName) -> XMatrixSigningInput<'_> {
        XMatrixSigningInput::new(self.server_name.clone(), destination.to_owned(), &self.key)
    }

    /// Adds this server's signature to an object that is no event (keys, device lists).
    pub fn sign_json(&self, object: &mut CanonicalJsonObject) -> Result<(), String> {
        sign_json(self.server_name.as_str(), &self.key, object).map_err(|error| error.to_string())
    }
}
