//! The boundary to the mail server.

use async_trait::async_trait;

use super::Letter;

/// Hands letters to a mail server.
#[async_trait]
pub trait SendMail: Send + Sync + 'static {
    /// Returns once the mail server has taken responsibility for the letter. Keeps its own time.
    async fn send(&self, letter: &Letter) -> Result<(), SendError>;
}

/// Why the mail server has not taken a letter. The texts are for operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no mail server to speak to: no connection, no trusted TLS, a wrong password. No letter would fare better now.
    #[error("the mail server cannot be used: {0}")]
    Unreachable(String),
    /// Not this letter now (4xx).
    #[error("the mail server puts it off: {0}")]
    Later(String),
    /// Not this letter, ever (5xx).
    #[error("the mail server refuses it: {0}")]
    Never(String),
}
