//! Out of trouble: reopen the engine until it takes a write again.
//!
//! The attempts run beside the committer's loop, which meanwhile answers every batch with the reason: nobody waits for a
//! disk that may stay full for hours.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use super::{Committer, Shared};
use crate::{
    Durability, Engine, EngineError, Options, Position, View, Wake,
    meta::{self, row},
    reservation::POSITION_BLOCK,
};

/// The ends of the number blocks that a successful attempt stored.
pub(super) struct Healed {
    positions_end: u64,
    ids_end: u64,
}

type Attempt = Pin<Box<dyn Future<Output = Result<Healed, EngineError>> + Send>>;

/// Why the store is read-only, and the attempt that is to end it.
pub(super) struct Trouble {
    pub(super) reason: String,
    wait: Duration,
    attempt: Attempt,
}

/// Waits for the attempt to end; forever if there is no trouble. Giving up waiting does not give up the attempt.
pub(super) async fn attempted(trouble: Option<&mut Trouble>) -> Result<Healed, EngineError> {
    match trouble {
        Some(trouble) => trouble.attempt.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Committer {
    /// The store cannot write for this reason: the first attempt is due after the first wait.
    pub(super) fn trouble(&mut self, reason: String) {
        let wait = self.options.reopen_after;
        self.trouble = Some(self.next_attempt(reason, wait));
    }

    fn next_attempt(&self, reason: String, wait: Duration) -> Trouble {
        self.shared.set_read_only(Some(reason.clone()));
        let (engine, shared, next) = (
            self.engine.clone(),
            self.shared.clone(),
            self.positions.next,
        );
        let attempt = Box::pin(async move {
            tokio::time::sleep(wait).await;
            reopen(&*engine, &shared, next).await
        });
        Trouble {
            reason,
            wait,
            attempt,
        }
    }

    /// An attempt has ended. On success the store writes again; else the next one is due after twice the wait.
    pub(super) fn healed(&mut self, outcome: Result<Healed, EngineError>) {
        let Some(trouble) = self.trouble.take() else {
            return;
        };
        match outcome {
            Ok(healed) => {
                tracing::info!("the store can write again");
                self.positions.reserved = healed.positions_end;
                self.shared.ids.extend(healed.ids_end);
                self.shared.set_healed();
                // Whoever waits for a position must learn that the watermark moved.
                let watermark = self.shared.view().watermark();
                self.shared.wake(Wake {
                    watermark,
                    topics: Vec::new(),
                });
            }
            Err(error) => {
                let Options { reopen_at_most, .. } = self.options;
                let wait = (trouble.wait * 2).min(reopen_at_most);
                tracing::warn!(%error, ?wait, "the store still cannot write");
                self.trouble = Some(self.next_attempt(error.to_string(), wait));
            }
        }
    }
}

/// One attempt, up to a synced write; `next` is the position that the next batch would get.
async fn reopen(
    engine: &dyn Engine,
    shared: &Arc<Shared>,
    next: u64,
) -> Result<Healed, EngineError> {
    engine.stand_by().await?;
    // Failed batches may be there after all, so the watermark stands behind every position given so far.
    let watermark = Position(next - 1);
    shared.changes.forget(watermark);
    shared.publish(View::new(engine.view().await?, watermark));
    engine.reopen().await?;

    let positions_end = next + POSITION_BLOCK;
    let ids_end = shared
        .ids
        .next_end()
        .unwrap_or_else(|| shared.ids.reserved());
    let operations = vec![
        row(&meta::NUMBERS, meta::KEY_POSITIONS, &positions_end),
        row(&meta::NUMBERS, meta::KEY_IDS, &ids_end),
    ];
    engine.commit(operations, Durability::Synced).await?;
    shared.publish(View::new(engine.view().await?, watermark));
    Ok(Healed {
        positions_end,
        ids_end,
    })
}
