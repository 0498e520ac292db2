//! Out of trouble: reopen the engine until it takes a write again.

use std::time::Duration;

use tokio::time::Instant;

use super::Committer;
use crate::{
    Durability, EngineError, Options, Position, View, Wake, meta, reservation::POSITION_BLOCK,
    store::row,
};

/// Why the store is read-only, and when it tries again.
pub(super) struct Trouble {
    pub(super) reason: String,
    wait: Duration,
    next_attempt: Instant,
}

impl Trouble {
    pub(super) fn new(reason: String, options: &Options) -> Self {
        Self {
            reason,
            wait: options.reopen_after,
            next_attempt: Instant::now() + options.reopen_after,
        }
    }
}

/// Waits for the next attempt; forever if there is no trouble.
pub(super) async fn due(trouble: Option<&Trouble>) {
    match trouble {
        Some(trouble) => tokio::time::sleep_until(trouble.next_attempt).await,
        None => std::future::pending().await,
    }
}

impl Committer {
    /// One attempt. On success the store writes again; else the next attempt is due after twice the wait.
    pub(super) async fn heal(&mut self) {
        let Some(mut trouble) = self.trouble.take() else {
            return;
        };
        match self.reopen().await {
            Ok(()) => {
                tracing::info!("the store can write again");
                self.shared.set_healed();
                // Whoever waits for a position must learn that the watermark moved.
                let watermark = self.shared.view().watermark();
                self.shared.wake(Wake {
                    watermark,
                    topics: Vec::new(),
                });
            }
            Err(error) => {
                trouble.reason = error.to_string();
                trouble.wait = (trouble.wait * 2).min(self.options.reopen_at_most);
                trouble.next_attempt = Instant::now() + trouble.wait;
                tracing::warn!(%error, wait = ?trouble.wait, "the store still cannot write");
                self.shared.set_read_only(Some(trouble.reason.clone()));
                self.trouble = Some(trouble);
            }
        }
    }

    async fn reopen(&mut self) -> Result<(), EngineError> {
        // Failed batches may be there after all, so the watermark stands behind every position given so far.
        let watermark = Position(self.positions.next - 1);
        self.engine.stand_by().await?;
        self.shared.changes.forget(watermark);
        self.shared
            .publish(View::new(self.engine.view().await?, watermark));
        self.engine.reopen().await?;

        let positions_end = self.positions.next + POSITION_BLOCK;
        let ids_end = self
            .shared
            .ids
            .next_end()
            .unwrap_or_else(|| self.shared.ids.reserved());
        let operations = vec![
            row(&meta::NUMBERS, meta::KEY_POSITIONS, &positions_end),
            row(&meta::NUMBERS, meta::KEY_IDS, &ids_end),
        ];
        self.engine.commit(operations, Durability::Synced).await?;
        self.positions.reserved = positions_end;
        self.shared.ids.extend(ids_end);
        let view = self.engine.view().await?;
        self.shared.publish(View::new(view, watermark));
        Ok(())
    }
}
