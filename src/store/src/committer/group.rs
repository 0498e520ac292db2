//! Judging a group: asserts, positions, and the rows to write.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Job, Shared, job::guarded};
use crate::{
    CommitError, EngineError, Keyspace, Operation, PerKeyspace, Position, Topic, Value, View,
    batch::{Batch, Change},
    reservation::Positions,
};

/// A judged group.
pub(super) struct Group {
    /// The rows to write, in order.
    pub(super) operations: Vec<Operation>,
    /// The jobs that were written, with their positions.
    pub(super) accepted: Vec<(Job, Position)>,
    /// The jobs that were not, and why.
    pub(super) refused: Vec<(Job, CommitError)>,
    /// What the accepted jobs wake.
    pub(super) topics: Vec<Topic>,
}

impl Group {
    /// Judges jobs in order against the newest view and the jobs before them.
    pub(super) async fn judge(
        view: &View,
        jobs: Vec<Job>,
        positions: &mut Positions,
    ) -> Result<Self, (EngineError, Vec<Job>)> {
        let mut known = match Known::read(view, wanted(&jobs)).await {
            Ok(known) => known,
            Err(error) => return Err((error, jobs)),
        };
        let mut group = Self {
            operations: Vec::new(),
            accepted: Vec::with_capacity(jobs.len()),
            refused: Vec::new(),
            topics: Vec::new(),
        };
        for mut job in jobs {
            if positions.left() == 0 {
                // Cannot happen: half a block is more than a group. If it did, no position may be given twice.
                group.refused.push((
                    job,
                    CommitError::Unavailable("no position is left".to_owned()),
                ));
                continue;
            }
            let position = Position(positions.next);
            match known.apply(&mut job.batch, position, &mut group.operations) {
                Ok(()) => {
                    positions.next += 1;
                    group.topics.append(&mut job.batch.topics);
                    group.accepted.push((job, position));
                }
                Err(error) => group.refused.push((job, error)),
            }
        }
        Ok(group)
    }

    /// The jobs whose outcome an engine error made unknown. Those that were refused are told so: that stays true.
    pub(super) fn into_failed(self, shared: &Shared) -> Vec<Job> {
        Self::refuse(self.refused, shared);
        self.accepted.into_iter().map(|(job, _)| job).collect()
    }

    pub(super) fn refuse(refused: Vec<(Job, CommitError)>, shared: &Shared) {
        if !refused.is_empty() {
            shared.count_assert_failures(refused.len());
        }
        for (job, error) in refused {
            job.fail(error);
        }
    }
}

/// The keys of the rows that asserts and counters look at.
fn wanted(jobs: &[Job]) -> PerKeyspace<Vec<Vec<u8>>> {
    let mut wanted = PerKeyspace::<Vec<Vec<u8>>>::default();
    for Job { batch, .. } in jobs {
        for assert in &batch.asserts {
            wanted.get_mut(assert.keyspace).push(assert.key.clone());
        }
        for change in &batch.changes {
            if let Change::Add { keyspace, key, .. } = change {
                wanted.get_mut(*keyspace).push(key.clone());
            }
        }
    }
    wanted
}

/// The rows that asserts and counters of the group look at, as the group changes them.
struct Known {
    rows: PerKeyspace<HashMap<Vec<u8>, Option<Bytes>>>,
    /// True if no job looks at any row: then nothing needs to be kept up to date.
    nothing: bool,
}

impl Known {
    async fn read(view: &View, mut wanted: PerKeyspace<Vec<Vec<u8>>>) -> Result<Self, EngineError> {
        let mut known = Self {
            rows: PerKeyspace::default(),
            nothing: true,
        };
        for keyspace in Keyspace::ALL {
            let keys = std::mem::take(wanted.get_mut(keyspace));
            if keys.is_empty() {
                continue;
            }
            known.nothing = false;
            let found = view.engine().get_many(keyspace, &keys).await?;
            known
                .rows
                .get_mut(keyspace)
                .extend(keys.into_iter().zip(found));
        }
        Ok(known)
    }

    fn row(&self, keyspace: Keyspace, key: &[u8]) -> Option<&Bytes> {
        self.rows.get(keyspace).get(key).and_then(Option::as_ref)
    }

    fn set(&mut self, keyspace: Keyspace, key: &[u8], value: Option<&[u8]>) {
        if !self.nothing
            && let Some(row) = self.rows.get_mut(keyspace).get_mut(key)
        {
            *row = value.map(Bytes::copy_from_slice);
        }
    }

    /// Judges a batch; if it holds, appends its rows to `operations`. If it does not, nothing is changed.
    fn apply(
        &mut self,
        batch: &mut Batch,
        position: Position,
        operations: &mut Vec<Operation>,
    ) -> Result<(), CommitError> {
        self.check(batch)?;
        let changes = place(std::mem::take(&mut batch.changes), position)?;
        operations.reserve(changes.len());
        for change in changes {
            operations.push(self.change(change));
        }
        Ok(())
    }

    fn check(&self, batch: &Batch) -> Result<(), CommitError> {
        for assert in &batch.asserts {
            if self.row(assert.keyspace, &assert.key).map(Bytes::as_ref)
                != assert.expected.as_deref()
            {
                return Err(CommitError::AssertFailed);
            }
        }
        for change in &batch.changes {
            if let Change::Add { keyspace, key, .. } = change
                && let Some(row) = self.row(*keyspace, key)
            {
                i64::from_bytes(row.clone()).map_err(|error| {
                    CommitError::Unavailable(format!("a counter is damaged: {error}"))
                })?;
            }
        }
        Ok(())
    }

    fn change(&mut self, change: Placed) -> Operation {
        match change {
            Placed::Row(operation) => {
                match &operation {
                    Operation::Put {
                        keyspace,
                        key,
                        value,
                    } => self.set(*keyspace, key, Some(value)),
                    Operation::Delete { keyspace, key } => self.set(*keyspace, key, None),
                    Operation::DeleteRange {
                        keyspace,
                        start,
                        end,
                    } => {
                        self.delete_range(*keyspace, start, end);
                    }
                }
                operation
            }
            Placed::Add {
                keyspace,
                key,
                delta,
            } => {
                let old = self
                    .row(keyspace, &key)
                    .cloned()
                    .and_then(|row| i64::from_bytes(row).ok())
                    .unwrap_or(0);
                let value = old.saturating_add(delta).to_bytes();
                self.set(keyspace, &key, Some(&value));
                Operation::Put {
                    keyspace,
                    key,
                    value,
                }
            }
        }
    }

    fn delete_range(&mut self, keyspace: Keyspace, start: &[u8], end: &[u8]) {
        for (key, row) in self.rows.get_mut(keyspace) {
            if key.as_slice() >= start && key.as_slice() < end {
                *row = None;
            }
        }
    }
}

/// A change whose key and value are known, save for a counter's sum.
enum Placed {
    Row(Operation),
    Add {
        keyspace: Keyspace,
        key: Vec<u8>,
        delta: i64,
    },
}

/// Lets the batch make the rows that hold its position.
fn place(changes: Vec<Change>, position: Position) -> Result<Vec<Placed>, CommitError> {
    let mut placed = Vec::with_capacity(changes.len());
    for change in changes {
        placed.push(match change {
            Change::Put {
                keyspace,
                key,
                value,
            } => Placed::Row(Operation::Put {
                keyspace,
                key,
                value,
            }),
            Change::Delete { keyspace, key } => Placed::Row(Operation::Delete { keyspace, key }),
            Change::DeleteRange {
                keyspace,
                start,
                end,
            } => Placed::Row(Operation::DeleteRange {
                keyspace,
                start,
                end,
            }),
            Change::Add {
                keyspace,
                key,
                delta,
            } => Placed::Add {
                keyspace,
                key,
                delta,
            },
            Change::PutAtPosition { keyspace, make } => {
                let (key, value) =
                    guarded("put_at_position", || make(position)).ok_or_else(|| {
                        CommitError::Unavailable("the batch could not make its row".to_owned())
                    })?;
                Placed::Row(Operation::Put {
                    keyspace,
                    key,
                    value,
                })
            }
        });
    }
    Ok(placed)
}
