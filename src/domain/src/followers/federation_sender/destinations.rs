//! Who has something to be told, and the tasks that tell it.
//!
//! A destination is idle, served by its one task, or waiting because it did not answer. Its task ends when nothing is left; nothing is
//! kept in memory for one that waits: what it has missed is found in the store when it is begun again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dashmap::DashMap;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};
use vatra_store::{Direction, Position, Range, View};

use super::{
    super::FollowError,
    NAME, Parts,
    passing::Passing,
    transaction::{Maker, Turn},
};
use crate::{
    clock::{Millis, SharedClock},
    remote::Remote,
    rooms::Rooms,
    schema::{self, BackoffRow, DestinationRow, RoomSid},
};

/// How often waits are looked at.
const TICK: Duration = Duration::from_millis(500);
/// The wait after a failure of this server's own, in milliseconds.
const OWN_FAILURE_MS: Millis = 5_000;

/// How the sender stands with a server.
#[derive(Debug, Clone)]
pub struct DestinationView {
    /// What is stored of it.
    pub row: DestinationRow,
    /// Why and until when it is left alone.
    pub backoff: Option<BackoffRow>,
    /// The rooms of which it has not been told everything.
    pub behind_in: usize,
}

/// What one destination has to be told.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The rooms ...
    pub(super) rooms: BTreeSet<RoomSid>,
    /// ... which are all there are up to this position: nothing after it is sent, or something before it would be passed over.
    pub(super) upto: Position,
}

impl Pending {
    /// Reads all of it from the store: a few small reads for each of the server's rooms.
    pub(super) async fn load(
        &mut self,
        view: &View,
        server: &ServerName,
    ) -> Result<(), FollowError> {
        let name = server.to_string();
        let follower = view.get(&schema::FOLLOWERS, &NAME.to_owned()).await?;
        let upto = follower.map_or(Position::ZERO, |row| row.cursor);
        let sent = view.get(&schema::DESTINATIONS, &name).await?;
        let sent = sent.map_or(Position::ZERO, |row| row.sent);
        let range = Range::prefix(&(name.clone(),));
        let rooms = view
            .range(&schema::SERVER_ROOMS, range, Direction::Forward, usize::MAX)
            .await?;
        let keys: Vec<_> = rooms
            .into_iter()
            .map(|((_, room), ())| (room, name.clone()))
            .collect();
        let rows = view.get_many(&schema::ROOM_SERVERS, &keys).await?;
        for ((room, _), row) in keys.into_iter().zip(rows) {
            let Some(row) = row.filter(|row| row.until.is_none_or(|until| until > sent)) else {
                continue;
            };
            let range = Range::prefix(&(room,));
            let newest = view
                .first(&schema::OUTBOX, range, Direction::Backward)
                .await?;
            if newest.is_some_and(|((_, at), _)| at > sent && at >= row.since) {
                self.rooms.insert(room);
            }
        }
        self.upto = self.upto.max(upto);
        Ok(())
    }
}

/// All destinations. Cheap to clone.
#[derive(Clone)]
pub(super) struct Destinations {
    inner: Arc<Inner>,
}

struct Inner {
    rooms: Rooms,
    remote: Remote,
    clock: SharedClock,
    maker: Maker,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    known: DashMap<OwnedServerName, Known>,
    /// Who did not answer, and until when they are left alone.
    waits: Mutex<BTreeMap<OwnedServerName, Millis>>,
}

/// A destination in memory.
#[derive(Default)]
struct Known {
    running: bool,
    /// Everything that the store has for it is in `rooms`, or was sent.
    loaded: bool,
    /// Rooms of which it has something to be told ...
    rooms: BTreeSet<RoomSid>,
    /// ... which are all there are up to this position.
    upto: Position,
    /// Something waits in the outbox of units.
    knocked: bool,
    passing: Passing,
}

impl Destinations {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                rooms: parts.rooms.clone(),
                remote: parts.remote.clone(),
                clock: parts.clock.clone(),
                maker: Maker::new(
                    parts.rooms.clone(),
                    parts.remote.clone(),
                    parts.clock.clone(),
                ),
                tasks: parts.tasks.clone(),
                shutdown: parts.shutdown.clone(),
                known: DashMap::new(),
                waits: Mutex::default(),
            }),
        }
    }

    /// Something was said in rooms that the server is in: these are all of them up to a position of the log.
    pub(super) fn wake(&self, server: &ServerName, rooms: &[RoomSid], upto: Position) {
        self.tell(server, |known| {
            known.rooms.extend(rooms);
            known.upto = known.upto.max(upto);
        });
    }

    /// When the sender ends.
    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.inner.shutdown
    }

    /// Something waits for these servers in the outbox of units, or will be found there not to.
    pub(super) async fn knock_all(&self) -> Result<(), FollowError> {
        let view = self.inner.rooms.store().view();
        let mut range = Range::all();
        loop {
            let first = view
                .first(&schema::EDU_OUTBOX, range, Direction::Forward)
                .await?;
            let Some(((server, _, _), _)) = first else {
                return Ok(());
            };
            if let Ok(name) = ServerName::parse(&server) {
                self.tell(&name, |known| known.knocked = true);
            }
            range = Range::all().after(&(server, Position::MAX, u64::MAX));
        }
    }

    /// Something passes that the server may see.
    pub(super) fn pass(&self, server: &ServerName, add: impl FnOnce(&mut Passing)) {
        self.tell(server, |known| add(&mut known.passing));
    }

    fn tell(&self, server: &ServerName, add: impl FnOnce(&mut Known)) {
        if self.waits().contains_key(server) {
            return;
        }
        let mut known = self.inner.known.entry(server.to_owned()).or_default();
        add(&mut known);
        if !known.running {
            known.running = true;
            self.spawn(server);
        }
    }

    fn spawn(&self, server: &ServerName) {
        let serving = self.clone().serve(server.to_owned());
        self.inner.tasks.spawn(serving);
    }

    /// Begins a destination that waited.
    fn begin(&self, server: &ServerName) {
        self.waits().remove(server);
        self.tell(server, |_| {});
    }

    /// The task of a destination.
    async fn serve(self, server: OwnedServerName) {
        let mut pending = Pending::default();
        loop {
            let turn = tokio::select! {
                () = self.inner.shutdown.cancelled() => return,
                turn = self.turn(&server, &mut pending) => turn,
            };
            let until = match turn {
                Ok(Turn::Delivered) => continue,
                Ok(Turn::Nothing) => {
                    let Some(mut known) = self.inner.known.get_mut(&server) else {
                        return;
                    };
                    if known.rooms.is_empty() && known.passing.is_empty() && !known.knocked {
                        known.running = false;
                        return;
                    }
                    continue;
                }
                Ok(Turn::Wait(until)) => until,
                Err(error) => {
                    warn!(%server, %error, "what a server is to be told cannot be read or written");
                    self.inner.clock.now().saturating_add(OWN_FAILURE_MS)
                }
            };
            debug!(%server, until, "a server is told nothing for a while");
            // First forgotten: whoever wakes it in between begins it anew, and it reads from the store what it has missed.
            self.inner.known.remove(&server);
            self.waits().insert(server, until);
            return;
        }
    }

    async fn turn(&self, server: &ServerName, pending: &mut Pending) -> Result<Turn, FollowError> {
        let (loaded, passing) = {
            let Some(mut known) = self.inner.known.get_mut(server) else {
                return Ok(Turn::Nothing);
            };
            pending.rooms.append(&mut known.rooms);
            pending.upto = pending.upto.max(known.upto);
            known.knocked = false;
            (known.loaded, known.passing.take())
        };
        if !loaded {
            pending
                .load(&self.inner.rooms.store().view(), server)
                .await?;
            if let Some(mut known) = self.inner.known.get_mut(server) {
                known.loaded = true;
            }
        }
        let turn = self.inner.maker.turn(server, pending, passing).await?;
        if let Some(mut known) = self.inner.known.get_mut(server) {
            known.loaded &= !turn.reload;
            if let Some(leftover) = turn.leftover {
                known.passing.put_back(leftover);
            }
        }
        Ok(turn.turn)
    }

    /// Begins those whose wait is over or who are heard from; at the start, all who have something to be told.
    pub(super) async fn run(self) {
        let mut heard = self.inner.remote.heard();
        if let Err(error) = self.begin_all().await {
            warn!(%error, "what other servers have missed cannot be read");
        }
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = self.inner.shutdown.cancelled() => return,
                _ = ticks.tick() => {
                    let now = self.inner.clock.now();
                    let due: Vec<_> = {
                        let waits = self.waits();
                        let due = waits.iter().filter(|(_, until)| **until <= now);
                        due.map(|(server, _)| server.clone()).collect()
                    };
                    for server in due {
                        self.begin(&server);
                    }
                }
                server = heard.recv() => match server {
                    Ok(server) => {
                        if self.waits().contains_key(&server) {
                            self.begin(&server);
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        let all: Vec<_> = self.waits().keys().cloned().collect();
                        for server in all {
                            self.begin(&server);
                        }
                    }
                    // The other end lives as long as this.
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    async fn begin_all(&self) -> Result<(), FollowError> {
        self.knock_all().await?;
        let view = self.inner.rooms.store().view();
        // Whoever was being told something, also without a room: a message to a device needs none.
        let mut range = Range::all();
        while let Some((server, _)) = view
            .first(&schema::OUT_TRANSACTIONS, range, Direction::Forward)
            .await?
        {
            if let Ok(name) = ServerName::parse(&server) {
                self.begin(&name);
            }
            range = Range::all().after(&server);
        }
        let mut range = Range::all();
        loop {
            let first = view
                .first(&schema::SERVER_ROOMS, range, Direction::Forward)
                .await?;
            let Some(((server, _), ())) = first else {
                return Ok(());
            };
            range = Range::all().after(&(server.clone(), RoomSid(u64::MAX)));
            let Ok(name) = ServerName::parse(&server) else {
                continue;
            };
            let mut pending = Pending::default();
            pending.load(&view, &name).await?;
            if !pending.rooms.is_empty() {
                self.begin(&name);
            }
        }
    }

    pub(super) async fn view(&self, server: &ServerName) -> Result<DestinationView, FollowError> {
        let view = self.inner.rooms.store().view();
        let row = view.get(&schema::DESTINATIONS, &server.to_string()).await?;
        let mut pending = Pending::default();
        pending.load(&view, server).await?;
        Ok(DestinationView {
            row: row.unwrap_or_default(),
            backoff: self.inner.remote.backoff(server).await,
            behind_in: pending.rooms.len(),
        })
    }

    fn waits(&self) -> MutexGuard<'_, BTreeMap<OwnedServerName, Millis>> {
        self.inner
            .waits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
