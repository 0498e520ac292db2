//! A queued batch and the ticket it resolves.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use crate::{Batch, CommitError, Position, Ticket, ticket::Outcome};

/// A batch on its way.
pub(crate) struct Job {
    pub(super) batch: Batch,
    ticket: oneshot::Sender<Outcome>,
}

impl Job {
    pub(crate) fn new(batch: Batch) -> (Self, Ticket) {
        let (sender, ticket) = Ticket::new();
        (
            Self {
                batch,
                ticket: sender,
            },
            ticket,
        )
    }

    pub(super) fn bytes(&self) -> usize {
        self.batch.bytes
    }

    /// Tells the batch and its ticket that it failed.
    pub(crate) fn fail(self, error: CommitError) {
        for on_failure in self.batch.on_failure {
            guarded("on_failure", on_failure);
        }
        // Nobody may be interested.
        let _ = self.ticket.send(Err(error));
    }

    /// Runs what the batch wants done before it is visible; gives back what resolves the ticket.
    pub(super) fn run_then(self, position: Position) -> oneshot::Sender<Outcome> {
        for then in self.batch.then {
            guarded("then", || then(position));
        }
        self.ticket
    }
}

/// Runs a caller's closure. A panic in it is that caller's mistake and must not end the committer.
pub(super) fn guarded<T>(what: &'static str, f: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(_) => {
            tracing::error!(what, "a closure of a batch panicked");
            None
        }
    }
}
