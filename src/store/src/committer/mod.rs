//! The one writer.
//!
//! It takes queued batches in order, judges their asserts, gives positions, writes a whole group as one engine write with
//! one log sync, runs the batches' `then`, and only then publishes the view and its watermark together, wakes, and
//! resolves the tickets. While it writes one group, the next one gathers in the queue.
//!
//! After an engine error the batches of the group fail with an unknown outcome, and the store is read-only until the engine
//! has been reopened and has taken a synced write; see `heal`. Numbers given to failed batches are not given again, and the
//! watermark passes over them, since their rows may turn out to be there.

mod group;
mod heal;
mod job;
mod shared;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use self::{group::Group, heal::Trouble};
pub(crate) use self::{job::Job, shared::Shared};
use crate::{
    CommitError, Durability, Engine, EngineError, Options, Position, View, Wake,
    meta::{self, row},
    reservation::Positions,
    view::ClosedView,
};

/// The most batches of a group.
const GROUP_BATCHES: usize = 1024;
/// A group takes no further batch above this size.
const GROUP_BYTES: usize = 4 << 20;
/// How much of the bulk queue joins a group when nothing else waits.
const BULK_BYTES: usize = 1 << 20;
/// How much of the bulk queue joins a group of others: enough to move on, too little to be felt.
const BULK_BYTES_BESIDE: usize = 64 << 10;

/// What the store asks of the committer.
pub(crate) enum Command {
    /// Commit this.
    Write(Job),
    /// The fresh ids run low.
    TopUp,
    /// Finish what is queued and end.
    Close(oneshot::Sender<()>),
}

/// The writer's own state.
pub(crate) struct Committer {
    engine: Arc<dyn Engine>,
    shared: Arc<Shared>,
    positions: Positions,
    options: Options,
    /// Set while the store is read-only.
    trouble: Option<Trouble>,
}

/// What the queues held.
#[derive(Default)]
struct Taken {
    jobs: Vec<Job>,
    bytes: usize,
    top_up: bool,
    close: Option<oneshot::Sender<()>>,
}

impl Taken {
    fn add(&mut self, command: Command) {
        match command {
            Command::Write(job) => self.add_job(job),
            Command::TopUp => self.top_up = true,
            Command::Close(done) => self.close = Some(done),
        }
    }

    fn add_job(&mut self, job: Job) {
        self.bytes += job.bytes();
        self.jobs.push(job);
    }

    fn is_full(&self) -> bool {
        self.close.is_some() || self.jobs.len() >= GROUP_BATCHES || self.bytes >= GROUP_BYTES
    }

    /// Takes what waits, without waiting.
    fn fill(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        bulk: &mut mpsc::UnboundedReceiver<Job>,
    ) {
        while !self.is_full() {
            let Ok(command) = commands.try_recv() else {
                break;
            };
            self.add(command);
        }
        let budget = if self.jobs.is_empty() {
            BULK_BYTES
        } else {
            BULK_BYTES_BESIDE
        };
        let end = self.bytes + budget;
        while !self.is_full() && self.bytes < end {
            let Ok(job) = bulk.try_recv() else { break };
            self.add_job(job);
        }
    }
}

/// Runs until the store is closed or its last handle is gone.
pub(crate) async fn run(
    mut committer: Committer,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut bulk: mpsc::UnboundedReceiver<Job>,
) {
    let mut closed = None;
    loop {
        let mut taken = Taken::default();
        tokio::select! {
            biased;
            // First, or a busy queue would keep the store from healing.
            outcome = heal::attempted(committer.trouble.as_mut()) => committer.healed(outcome),
            command = commands.recv() => match command {
                Some(command) => taken.add(command),
                None => break,
            },
            Some(job) = bulk.recv() => taken.add_job(job),
        }
        taken.fill(&mut commands, &mut bulk);
        closed = taken.close.take();
        committer.commit(taken.jobs, taken.top_up).await;
        if closed.is_some() {
            break;
        }
    }
    committer.finish(commands, bulk).await;
    if let Some(closed) = closed {
        // Nobody may wait any more.
        let _ = closed.send(());
    }
}

impl Committer {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        shared: Arc<Shared>,
        positions: Positions,
        options: Options,
    ) -> Self {
        Self {
            engine,
            shared,
            positions,
            options,
            trouble: None,
        }
    }

    /// Commits jobs as one group and tells everyone.
    async fn commit(&mut self, jobs: Vec<Job>, top_up: bool) {
        if jobs.is_empty() && !top_up {
            return;
        }
        self.shared.count_taken(jobs.len());
        if let Some(trouble) = &self.trouble {
            let error = CommitError::Unavailable(trouble.reason.clone());
            self.shared.count_engine_failures(jobs.len());
            jobs.into_iter().for_each(|job| job.fail(error.clone()));
            return;
        }
        let mut group = match Group::judge(&self.shared.view(), jobs, &mut self.positions).await {
            Ok(group) => group,
            Err((error, jobs)) => return self.fail(&error, jobs),
        };
        match self.write(&mut group).await {
            Ok(view) => self.publish(group, view),
            Err(error) => {
                let jobs = group.into_failed(&self.shared);
                self.fail(&error, jobs);
            }
        }
    }

    /// Writes the group's rows and the ends of the number blocks, and takes the view after it.
    async fn write(&mut self, group: &mut Group) -> Result<View, EngineError> {
        let watermark = Position(self.positions.next - 1);
        let mut operations = std::mem::take(&mut group.operations);
        let positions_end = self.positions.next_end(0);
        let ids_end = self.shared.ids.next_end();
        operations.extend(positions_end.map(|end| row(&meta::NUMBERS, meta::KEY_POSITIONS, &end)));
        operations.extend(ids_end.map(|end| row(&meta::NUMBERS, meta::KEY_IDS, &end)));
        if operations.is_empty() {
            return Ok(View::new(self.shared.view().engine().clone(), watermark));
        }
        // A number may be given out only once the end of its block survives a power cut.
        let reserves = positions_end.is_some() || ids_end.is_some();
        let durability = if reserves {
            Durability::Synced
        } else {
            self.options.durability
        };
        self.engine.commit(operations, durability).await?;
        if let Some(end) = positions_end {
            self.positions.reserved = end;
        }
        if let Some(end) = ids_end {
            self.shared.ids.extend(end);
        }
        Ok(View::new(self.engine.view().await?, watermark))
    }

    fn publish(&mut self, group: Group, view: View) {
        let watermark = view.watermark();
        let Group {
            accepted,
            refused,
            topics,
            ..
        } = group;
        self.shared.count_group(accepted.len());
        let resolved: Vec<_> = accepted
            .into_iter()
            .map(|(job, position)| (job.run_then(position), position))
            .collect();
        self.shared.changes.mark(&topics, watermark);
        self.shared.publish(view);
        if !resolved.is_empty() {
            self.shared.wake(Wake { watermark, topics });
        }
        for (ticket, position) in resolved {
            // Nobody may be interested.
            let _ = ticket.send(Ok(position));
        }
        Group::refuse(refused, &self.shared);
    }

    /// Turns the store read-only and fails the jobs, whose outcome is unknown.
    fn fail(&mut self, error: &EngineError, jobs: Vec<Job>) {
        let reason = error.to_string();
        tracing::error!(%reason, batches = jobs.len(), "the store cannot write; it is read-only until it can");
        self.shared.count_engine_failures(jobs.len());
        let error = CommitError::Unavailable(reason.clone());
        self.trouble(reason);
        jobs.into_iter().for_each(|job| job.fail(error.clone()));
    }

    /// Commits what was submitted before the end, refuses the rest, and closes the engine.
    async fn finish(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut bulk: mpsc::UnboundedReceiver<Job>,
    ) {
        self.shared.set_closed();
        commands.close();
        bulk.close();
        let mut closing = Vec::new();
        loop {
            let mut taken = Taken::default();
            taken.fill(&mut commands, &mut bulk);
            let Taken { jobs, close, .. } = taken;
            let ended =
                jobs.is_empty() && close.is_none() && commands.is_empty() && bulk.is_empty();
            closing.extend(close);
            self.commit(jobs, false).await;
            if ended {
                break;
            }
        }
        let watermark = self.shared.view().watermark();
        self.shared
            .publish(View::new(Arc::new(ClosedView), watermark));
        if let Err(error) = self.engine.close().await {
            tracing::error!(%error, "the store did not close cleanly");
        }
        for done in closing {
            let _ = done.send(());
        }
    }
}
