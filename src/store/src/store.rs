//! The handle that everyone holds.

use std::{path::Path, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Batch, CommitError, Durability, Engine, EngineError, Health, Migration, OpenError, Options,
    Position, Stats, StoreError, Ticket, Topic, View, Wake,
    committer::{self, Command, Committer, Job, Shared},
    meta::{self, row},
    migrations,
    reservation::{FreshIds, ID_BLOCK, POSITION_BLOCK, Positions},
};

struct Handle {
    engine: Arc<dyn Engine>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    bulk: mpsc::UnboundedSender<Job>,
}

/// A store: views to read, batches to write. Cheap to clone.
///
/// When the last clone is gone, or after [`Store::close`], the committer finishes what was submitted and lets go of the
/// engine.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

impl Store {
    /// Opens the store that `engine` keeps, creating it if it is empty, and brings it up to the newest schema. Must be
    /// called within a tokio runtime, on which the committer then runs.
    pub async fn open(
        engine: Arc<dyn Engine>,
        options: Options,
        migrations: &[Migration],
    ) -> Result<Store, OpenError> {
        let newest = migrations::newest(migrations)?;
        let found = Stored::read(&View::new(engine.view().await?, Position::ZERO)).await?;
        let schema = found.schema.unwrap_or(newest);
        if schema > newest {
            return Err(OpenError::NewerSchema {
                stored: schema,
                known: newest,
            });
        }
        let epoch = found
            .epoch
            .filter(|_| !options.renew_epoch)
            .unwrap_or(options.epoch.max(1));
        let positions = Positions {
            next: found.positions + 1,
            reserved: found.positions + POSITION_BLOCK,
        };
        let ids_end = found.ids + ID_BLOCK;
        let operations = vec![
            row(&meta::SCHEMA, meta::KEY_SCHEMA, &schema),
            row(&meta::NUMBERS, meta::KEY_EPOCH, &epoch),
            row(&meta::NUMBERS, meta::KEY_POSITIONS, &positions.reserved),
            row(&meta::NUMBERS, meta::KEY_IDS, &ids_end),
        ];
        engine.commit(operations, Durability::Synced).await?;

        let view = View::new(engine.view().await?, Position(found.positions));
        let shared = Arc::new(Shared::new(view, epoch, FreshIds::new(found.ids, ids_end)));
        let (commands, command_queue) = mpsc::unbounded_channel();
        let (bulk, bulk_queue) = mpsc::unbounded_channel();
        let checkpoints = options.migration_checkpoints.clone();
        let committer = Committer::new(engine.clone(), shared.clone(), positions, options);
        tokio::spawn(committer::run(committer, command_queue, bulk_queue));

        let store = Store {
            handle: Arc::new(Handle {
                engine,
                shared,
                commands,
                bulk,
            }),
        };
        if let Err(error) = migrations::run(&store, schema, migrations, checkpoints).await {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }

    /// The newest view. No lock, no I/O.
    pub fn view(&self) -> View {
        self.handle.shared.view()
    }

    /// The last position that [`Store::view`] shows.
    pub fn watermark(&self) -> Position {
        self.view().watermark()
    }

    /// A number that tokens carry beside positions; a restored backup has another.
    pub fn epoch(&self) -> u64 {
        self.handle.shared.epoch
    }

    /// Queues a batch behind those submitted before and returns at once.
    pub fn submit(&self, batch: Batch) -> Ticket {
        let (job, ticket) = Job::new(batch);
        if self.handle.shared.is_closed() {
            job.fail(CommitError::Closed);
        } else {
            self.handle.shared.count_queued();
            if let Err(mpsc::error::SendError(Command::Write(job))) =
                self.handle.commands.send(Command::Write(job))
            {
                job.fail(CommitError::Closed);
            }
        }
        ticket
    }

    /// Queues a batch of a large import: it keeps its order among other bulk batches, and yields to all that
    /// [`Store::submit`] queues.
    pub fn submit_bulk(&self, batch: Batch) -> Ticket {
        let (job, ticket) = Job::new(batch);
        if self.handle.shared.is_closed() {
            job.fail(CommitError::Closed);
        } else {
            self.handle.shared.count_queued();
            if let Err(mpsc::error::SendError(job)) = self.handle.bulk.send(job) {
                job.fail(CommitError::Closed);
            }
        }
        ticket
    }

    /// Submits a batch and waits until it is committed.
    pub async fn write(&self, batch: Batch) -> Result<Position, CommitError> {
        self.submit(batch).committed().await
    }

    /// A number never given before and never again, and never zero. No lock, no I/O.
    pub fn fresh_id(&self) -> Result<u64, StoreError> {
        let (id, top_up) = self.handle.shared.ids.take()?;
        if top_up {
            // A closed committer cannot top up; then the block runs out and says so.
            let _ = self.handle.commands.send(Command::TopUp);
        }
        Ok(id)
    }

    /// What commits change, from now on: one [`Wake`] per group. For the few dispatchers of the server; the queue is
    /// unbounded, so read it to the end.
    pub fn wakes(&self) -> mpsc::UnboundedReceiver<Wake> {
        self.handle.shared.subscribe_wakes()
    }

    /// The watermark as it moves: what followers wait for.
    pub fn subscribe_watermark(&self) -> watch::Receiver<Position> {
        self.handle.shared.watermark.subscribe()
    }

    /// Whether a topic may have changed after `since`: exact for what this process has seen, and yes for what lies before
    /// its memory. No I/O; it lets an idle reader compare integers.
    pub fn changed_since(&self, topic: Topic, since: Position) -> bool {
        self.handle.shared.changes.since(topic, since)
    }

    /// Rows were mended behind the back of those who remember them: every topic counts as changed up to now, so that what is kept in
    /// memory by [`Store::changed_since`] is read anew.
    pub fn forget_changes(&self) {
        let shared = &self.handle.shared;
        shared.changes.forget(*shared.watermark.borrow());
    }

    /// Whether the store can write.
    pub fn health(&self) -> Health {
        self.handle.shared.health.borrow().clone()
    }

    /// The health as it changes. Whoever keeps state in memory that [`Batch::then`] updates must read it anew when
    /// [`Health::reopens`] grows: a batch that was reported as failed may be there after all.
    pub fn subscribe_health(&self) -> watch::Receiver<Health> {
        self.handle.shared.health.subscribe()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            engine: self.handle.engine.stats(),
            ..self.handle.shared.stats()
        }
    }

    /// Copies the store into the new folder `dir` while it runs. The copy is a whole number of batches.
    pub async fn checkpoint(&self, dir: &Path) -> Result<(), EngineError> {
        self.handle.engine.checkpoint(dir).await
    }

    /// Finishes what was submitted, refuses everything later, and lets go of the engine. Views already taken stay
    /// readable.
    pub async fn close(&self) {
        self.handle.shared.set_closed();
        let (done, closed) = oneshot::channel();
        if self.handle.commands.send(Command::Close(done)).is_ok() {
            // An error means that the committer has already ended.
            let _ = closed.await;
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Store({} at {})",
            self.handle.engine.name(),
            self.watermark()
        )
    }
}

/// The store's own rows as found at start. Zero where there are none yet.
struct Stored {
    schema: Option<u32>,
    epoch: Option<u64>,
    positions: u64,
    ids: u64,
}

impl Stored {
    async fn read(view: &View) -> Result<Self, StoreError> {
        Ok(Self {
            schema: view.get(&meta::SCHEMA, &meta::KEY_SCHEMA).await?,
            epoch: view.get(&meta::NUMBERS, &meta::KEY_EPOCH).await?,
            positions: view
                .get(&meta::NUMBERS, &meta::KEY_POSITIONS)
                .await?
                .unwrap_or(0),
            ids: view.get(&meta::NUMBERS, &meta::KEY_IDS).await?.unwrap_or(0),
        })
    }
}
