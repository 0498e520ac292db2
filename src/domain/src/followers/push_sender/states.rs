//! How far each pusher is: known in memory at once, stored together with that of others a little later.
//!
//! A row is written only over the one that it was made from: a pusher that is deleted or set anew meanwhile stays so.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use vatra_store::{Batch, CommitError, Store};

use super::super::FollowError;
use crate::schema::{self, PusherKey, PusherStateRow};

/// How many rows are written at a time.
const PAGE: usize = 200;

/// A state that is not stored yet.
#[derive(Debug, Clone)]
struct Unstored {
    /// What stands in the store.
    stored: PusherStateRow,
    now: PusherStateRow,
}

/// The states of all pushers.
pub(super) struct States {
    store: Store,
    unstored: Mutex<BTreeMap<PusherKey, Unstored>>,
}

impl States {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            unstored: Mutex::default(),
        }
    }

    /// How far a pusher is; `None` if it is gone.
    pub(super) async fn of(
        &self,
        pusher: &PusherKey,
    ) -> Result<Option<PusherStateRow>, FollowError> {
        let stored = self.store.view();
        let stored = stored.get(&schema::PUSHER_STATES, pusher).await?;
        let mut unstored = self.unstored();
        let known = unstored.get(pusher);
        if let Some(known) = known {
            if stored.as_ref() == Some(&known.stored) {
                return Ok(Some(known.now.clone()));
            }
            // It was deleted, or set anew.
            unstored.remove(pusher);
        }
        Ok(stored)
    }

    /// A pusher is further now. Only its own task says so.
    pub(super) fn set(&self, pusher: &PusherKey, before: PusherStateRow, now: PusherStateRow) {
        let mut unstored = self.unstored();
        match unstored.get_mut(pusher) {
            Some(known) => known.now = now,
            None => {
                let stored = before;
                unstored.insert(pusher.clone(), Unstored { stored, now });
            }
        }
    }

    /// Stores what is not stored yet.
    pub(super) async fn store(&self) -> Result<(), FollowError> {
        let rows: Vec<_> = {
            let unstored = self.unstored();
            let rows = unstored.iter();
            rows.map(|(pusher, row)| (pusher.clone(), row.clone()))
                .collect()
        };
        for page in rows.chunks(PAGE) {
            if !self.write(page).await? {
                // Some pusher has changed: the others are stored one by one.
                for row in page {
                    if !self.write(std::slice::from_ref(row)).await? {
                        self.unstored().remove(&row.0);
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes rows over those that they were made from; says whether those still stood there.
    async fn write(&self, rows: &[(PusherKey, Unstored)]) -> Result<bool, FollowError> {
        let mut batch = Batch::new();
        for (pusher, row) in rows {
            batch.assert_equals(&schema::PUSHER_STATES, pusher, &row.stored);
            batch.put(&schema::PUSHER_STATES, pusher, &row.now);
        }
        match self.store.write(batch).await {
            Ok(_) => {}
            Err(CommitError::AssertFailed) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let mut unstored = self.unstored();
        for (pusher, row) in rows {
            if let Some(known) = unstored.get_mut(pusher) {
                if known.now == row.now {
                    unstored.remove(pusher);
                } else {
                    known.stored = row.now.clone();
                }
            }
        }
        Ok(true)
    }

    fn unstored(&self) -> MutexGuard<'_, BTreeMap<PusherKey, Unstored>> {
        self.unstored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
