//! Row types of end-to-end encryption. Public keys, signatures and ciphertext: no row holds a private key or a plaintext.

use serde::{Deserialize, Serialize};
use vatra_store::{DecodeError, Key, Position, impl_value};

/// A key object that was signed: the object without `signatures` and `unsigned`, and the signatures apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRow {
    /// The object as canonical JSON, without `signatures` and `unsigned`: what the signatures cover.
    pub body: String,
    /// The public key of the object, in unpadded Base64: of a device its Ed25519 key, if it has one.
    pub public: Option<String>,
    /// Signatures by its own user: key id (`ed25519:...`) and signature.
    pub signatures: Vec<(String, String)>,
}
impl_value!(SignedRow);

/// What a device has left of one-time and fallback keys. Every change has another position, so that a batch which asserts
/// the row has seen all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStateRow {
    /// When this last changed.
    pub changed: Position,
    /// How many one-time keys are left, by algorithm.
    pub one_time: Vec<(String, u64)>,
    /// Algorithms whose fallback key has not been handed out.
    pub unused_fallback: Vec<String>,
}
impl_value!(KeyStateRow);

/// A fallback key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackKeyRow {
    /// Its id, such as `signed_curve25519:AAAAGj`.
    pub id: String,
    /// The key, as canonical JSON.
    pub key: String,
    /// It was handed out.
    pub used: bool,
}
impl_value!(FallbackKeyRow);

/// What a cross-signing key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyUsage {
    /// Signs the user's other two keys.
    Master,
    /// Signs the user's devices.
    SelfSigning,
    /// Signs other users' master keys.
    UserSigning,
}

impl KeyUsage {
    /// All of them, in key order.
    pub const ALL: [KeyUsage; 3] = [Self::Master, Self::SelfSigning, Self::UserSigning];

    /// Its name in `usage`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Master => 1,
            Self::SelfSigning => 2,
            Self::UserSigning => 3,
        }
    }
}

impl Key for KeyUsage {
    fn encode(&self, out: &mut Vec<u8>) {
        self.number().encode(out);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let number = u8::decode(input)?;
        Self::ALL
            .into_iter()
            .find(|it| it.number() == number)
            .ok_or_else(|| DecodeError::new("key usage"))
    }
}

/// A signature of one user on another's master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSignatureRow {
    /// The id of the user-signing key that made it.
    pub key_id: String,
    /// The signature.
    pub signature: String,
}
impl_value!(UserSignatureRow);

/// A version of a user's key backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRow {
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What that algorithm needs to know, as JSON.
    pub auth_data: String,
    /// Counts changes of its keys.
    pub etag: u64,
    /// How many keys it has.
    pub count: u64,
    /// It was deleted; its number is not given again.
    pub deleted: bool,
}
impl_value!(BackupRow);

/// A room key in a backup, encrypted by its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupKeyRow {
    /// The index of the first message that it decrypts.
    pub first_message_index: u64,
    /// How often it was forwarded.
    pub forwarded_count: u64,
    /// The device it came from was verified.
    pub is_verified: bool,
    /// The ciphertext, as JSON.
    pub session_data: String,
}
impl_value!(BackupKeyRow);

/// A user's dehydrated device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DehydratedRow {
    /// Its id.
    pub device: String,
    /// Its private keys, encrypted by its user, as JSON.
    pub data: String,
}
impl_value!(DehydratedRow);
