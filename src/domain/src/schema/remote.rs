//! Row types of other servers.

use serde::{Deserialize, Serialize};
use vatra_store::impl_value;

/// A server that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackoffRow {
    /// How often in a row.
    pub failures: u32,
    /// When it last failed, in milliseconds since the Unix epoch.
    pub failed_at: u64,
    /// When it is asked again.
    pub retry_at: u64,
    /// What went wrong, for operators.
    pub reason: String,
}
impl_value!(BackoffRow);

/// A server's signing key, as that server published it (or a trusted notary says it did).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKeyRow {
    /// The public key.
    pub key: [u8; 32],
    /// What was signed up to this time can be checked with it, in milliseconds since the Unix epoch: the server's own
    /// statement, at most a week after it was made.
    pub valid_until: u64,
    /// The server uses it no longer: it signs events of the past, and no requests.
    pub retired: bool,
}
impl_value!(ServerKeyRow);

/// The answer to a transaction: the ids of its events, and why one was not taken.
pub type InTransactionRow = Vec<(String, Option<String>)>;

/// What a server has last published of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDocumentRow {
    /// The signed object, as JSON.
    pub json: String,
    /// When it was fetched, in milliseconds since the Unix epoch.
    pub fetched: u64,
    /// Until when the server says that it holds.
    pub valid_until: u64,
}
impl_value!(KeyDocumentRow);
