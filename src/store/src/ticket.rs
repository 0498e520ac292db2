//! What a submitted batch gives back.

use tokio::sync::oneshot;

use crate::{CommitError, Position};

/// How a batch ended.
pub(crate) type Outcome = Result<Position, CommitError>;

/// A claim on the outcome of a submitted batch. Dropping it does not cancel the batch.
#[derive(Debug)]
#[must_use = "a batch is durable only once its ticket says so"]
pub struct Ticket {
    receiver: oneshot::Receiver<Outcome>,
}

impl Ticket {
    /// A ticket and what resolves it.
    pub(crate) fn new() -> (oneshot::Sender<Outcome>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self { receiver })
    }

    /// Waits until the batch is committed (and visible in [`crate::Store::view`]) or has failed.
    pub async fn committed(self) -> Result<Position, CommitError> {
        self.receiver.await.unwrap_or(Err(CommitError::Closed))
    }
}
