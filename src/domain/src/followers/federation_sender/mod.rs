//! Tells other servers what happens here: events of local users, and what passes (typing, receipts, presence).
//!
//! - [`FederationSender`] is the follower: it reads the log once for all destinations. For each event it keeps the book of which
//!   servers are in which room (`servers`), by the change of state at that very position; an event of a local user gets one
//!   row in the outbox of its room. The servers of the room are woken in memory.
//! - `destinations` holds those that have something to be told: a task for each, which ends when there is nothing left, or when the server
//!   does not answer; then it is begun again when its wait is over or the server is heard from.
//! - `choice` picks what a destination is told next; `transaction` fixes and stores what is sent before the first attempt, and sends it until it is taken.
//! - `passing` gathers what passes; it is lost when a destination does not answer. Units that must arrive (to-device messages, device lists)
//!   are rows of [`schema::EDU_OUTBOX`], which move into transactions.
//!
//! Nothing is written per destination when something is said; a destination has one row, which moves when a transaction is
//! taken. What a destination has not got is found by the outboxes of its rooms. It gets what happened while one of its users
//! was joined, and the event by which the last one went.
//! <https://spec.matrix.org/v1.19/server-server-api/#transactions>

mod choice;
mod destinations;
mod passing;
mod servers;
#[cfg(test)]
mod tests;
mod transaction;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use ruma::{OwnedServerName, events::TimelineEventType};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vatra_store::{Batch, Position};

pub use self::destinations::DestinationView;
use self::{destinations::Destinations, servers::RoomServers};
use super::{FollowError, Follower};
use crate::{
    clock::SharedClock,
    remote::Remote,
    rooms::{Rooms, ephemeral::Ephemeral},
    schema::{self, LogRow, RoomSid},
};

/// Its name among the followers.
const NAME: &str = "federation_sender";

/// The sender. Cheap to clone.
#[derive(Clone)]
pub struct FederationSender {
    inner: Arc<Inner>,
}

struct Inner {
    rooms: Rooms,
    servers: RoomServers,
    destinations: Destinations,
    ephemeral: Ephemeral,
}

/// What a sender is made of.
pub struct Parts {
    /// The rooms.
    pub rooms: Rooms,
    /// How others are reached.
    pub remote: Remote,
    /// What passes.
    pub ephemeral: Ephemeral,
    /// The time.
    pub clock: SharedClock,
    /// Where the tasks of destinations run.
    pub tasks: TaskTracker,
    /// When they end.
    pub shutdown: CancellationToken,
}

impl FederationSender {
    /// A sender that has not begun: start it with [`super::run`] and [`FederationSender::run`].
    pub fn new(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                servers: RoomServers::new(parts.rooms.clone()),
                destinations: Destinations::new(&parts),
                rooms: parts.rooms,
                ephemeral: parts.ephemeral,
            }),
        }
    }

    /// Wakes destinations whose wait is over or that are heard from, and gathers what passes, until the shutdown.
    pub async fn run(self) {
        let waits = self.inner.destinations.clone().run();
        tokio::join!(waits, passing::run(&self.inner));
    }

    /// How the sender stands with a server.
    ///
    /// # Errors
    /// The store's.
    pub async fn destination(
        &self,
        server: &ruma::ServerName,
    ) -> Result<DestinationView, FollowError> {
        self.inner.destinations.view(server).await
    }

    /// The other servers in a room, as far as the log has been read.
    ///
    /// # Errors
    /// The store's.
    pub async fn servers_in(&self, room: RoomSid) -> Result<Arc<[OwnedServerName]>, FollowError> {
        self.inner.servers.now(room).await
    }
}

#[async_trait]
impl Follower for FederationSender {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn follow(
        &self,
        page: &[(Position, LogRow)],
        batch: &mut Batch,
    ) -> Result<(), FollowError> {
        let inner = &*self.inner;
        let reader = inner.rooms.reader();
        let own = inner.rooms.server_name();
        let mut book = inner.servers.open_book(&reader);
        for (position, row) in page {
            book.turn(row.room, *position).await?;
            if !book.concerns_anyone(row.room, *position).await? {
                continue;
            }
            let Some(event) = reader.event_by_sid(row.event).await? else {
                continue;
            };
            let mut ours = event.pdu.sender.server_name() == own;
            if ours && event.pdu.kind == TimelineEventType::RoomMember {
                let told = reader.view().contains(&schema::TOLD_ELSEWHERE, &row.event);
                ours = !told.await?;
            }
            if ours || reader.view().contains(&schema::RELAYED, &row.event).await? {
                batch.put(&schema::OUTBOX, &(row.room, *position), &row.event);
            }
        }
        book.close(batch);
        Ok(())
    }

    async fn stored(&self, page: &[(Position, LogRow)]) {
        let Some((last, _)) = page.last().copied() else {
            return;
        };
        let rooms: BTreeSet<RoomSid> = page.iter().map(|(_, row)| row.room).collect();
        self.inner.servers.forget(rooms.iter());
        // A destination learns of all its rooms of the page at once: its cursor must not pass one that it has not heard of.
        let mut told: BTreeMap<OwnedServerName, Vec<RoomSid>> = BTreeMap::new();
        for room in rooms {
            match self.inner.servers.told(room, page).await {
                Ok(servers) => {
                    for server in servers {
                        told.entry(server).or_default().push(room);
                    }
                }
                Err(error) => {
                    // The destinations find it when they are next begun.
                    tracing::warn!(%error, "the servers of a room cannot be read");
                }
            }
        }
        for (server, rooms) in told {
            self.inner.destinations.wake(&server, &rooms, last);
        }
    }
}
