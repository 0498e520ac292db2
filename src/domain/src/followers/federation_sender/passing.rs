//! What passes: typing, receipts and presence of local users, for the servers of their rooms. In memory only.
//!
//! The newest of a kind replaces the older ones: a destination that is slow is told once. Nothing is kept for a destination
//! that does not answer.
//! <https://spec.matrix.org/v1.19/server-server-api/#edus>

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use ruma::{OwnedServerName, OwnedUserId};
use serde_json::{Value, json};
use tracing::debug;
use vatra_store::{Position, Wake};

use super::{super::FollowError, Inner};
use crate::{
    rooms::Reader,
    schema::{Membership, RoomSid, topic},
};

/// How often presence is told.
const PRESENCE: Duration = Duration::from_secs(1);
/// The most users in one unit about presence.
const MAX_USERS: usize = 100;
/// The most units that wait for a destination.
const MAX_UNITS: usize = 1000;

/// What a unit is about: a newer one replaces it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// Whether someone types.
    Typing(RoomSid, OwnedUserId),
    /// What someone has read, in a thread.
    Receipt(RoomSid, OwnedUserId, String),
}

/// What waits for one destination.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    units: BTreeMap<About, Value>,
    presence: BTreeMap<OwnedUserId, Value>,
}

/// The same, while it is being gathered.
pub(super) type Passing = Gathered;

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty() && self.presence.is_empty()
    }

    pub(super) fn take(&mut self) -> Gathered {
        std::mem::take(self)
    }

    /// What did not find room goes back, unless there is something newer.
    pub(super) fn put_back(&mut self, leftover: Gathered) {
        for (about, unit) in leftover.units {
            self.units.entry(about).or_insert(unit);
        }
        for (user, update) in leftover.presence {
            self.presence.entry(user).or_insert(update);
        }
    }

    fn unit(&mut self, about: About, unit: Value) {
        if self.units.len() < MAX_UNITS {
            self.units.insert(about, unit);
        }
    }

    fn presence(&mut self, user: OwnedUserId, update: Value) {
        if self.presence.len() < MAX_UNITS {
            self.presence.insert(user, update);
        }
    }

    /// Units for a transaction, as JSON, and what is left.
    pub(super) fn split(mut self, most: usize, most_bytes: usize) -> (Vec<String>, Gathered) {
        let mut edus = Vec::new();
        let mut bytes = 0;
        let mut push = Vec::new();
        while most > 0
            && push.len() < MAX_USERS
            && let Some((_, update)) = self.presence.pop_first()
        {
            push.push(update);
        }
        if !push.is_empty() {
            let edu = json!({ "edu_type": "m.presence", "content": { "push": push } }).to_string();
            bytes += edu.len();
            edus.push(edu);
        }
        while edus.len() < most
            && bytes < most_bytes
            && let Some((_, unit)) = self.units.pop_first()
        {
            let edu = unit.to_string();
            bytes += edu.len();
            edus.push(edu);
        }
        (edus, self)
    }
}

/// Gathers until the shutdown.
pub(super) async fn run(inner: &Inner) {
    let store = inner.rooms.store();
    let mut wakes = store.wakes();
    let mut gatherer = Gatherer {
        inner,
        receipts_since: store.watermark(),
        presence_since: store.watermark(),
        typing: HashMap::new(),
    };
    let mut ticks = tokio::time::interval(PRESENCE);
    loop {
        let outcome = tokio::select! {
            () = inner.destinations.shutdown().cancelled() => return,
            _ = ticks.tick() => gatherer.presence().await,
            wake = wakes.recv() => match wake {
                Some(wake) => {
                    let mut all = vec![wake];
                    while let Ok(wake) = wakes.try_recv() {
                        all.push(wake);
                    }
                    gatherer.woken(&all).await
                }
                // The store is closed.
                None => return,
            },
        };
        if let Err(error) = outcome {
            debug!(%error, "what passes could not be read: it is not told");
        }
    }
}

struct Gatherer<'a> {
    inner: &'a Inner,
    receipts_since: Position,
    presence_since: Position,
    /// Who was told to be typing.
    typing: HashMap<RoomSid, BTreeSet<OwnedUserId>>,
}

impl Gatherer<'_> {
    async fn woken(&mut self, wakes: &[Wake]) -> Result<(), FollowError> {
        let since = self.receipts_since;
        let reader = self.inner.rooms.reader();
        // Not the reader's: what it shows beyond these wakes has a wake of its own.
        let last = wakes.last().map_or(since, |wake| wake.watermark);
        self.receipts_since = last;
        let topics = || wakes.iter().flat_map(|wake| &wake.topics);
        if topics().any(|topic| topic.kind == topic::ELSEWHERE) {
            self.inner.destinations.knock_all().await?;
        }
        let rooms: BTreeSet<RoomSid> = topics()
            .filter(|topic| topic.kind == topic::ROOM)
            .map(|topic| RoomSid(topic.id))
            .collect();
        for room in rooms {
            let servers = self.inner.servers.now(room).await?;
            if servers.is_empty() {
                self.typing.remove(&room);
                continue;
            }
            self.typing(&reader, room, &servers).await?;
            self.receipts(&reader, room, since, &servers).await?;
        }
        Ok(())
    }

    async fn typing(
        &mut self,
        reader: &Reader,
        room: RoomSid,
        servers: &[OwnedServerName],
    ) -> Result<(), FollowError> {
        let own = self.inner.rooms.server_name();
        let users = self.inner.ephemeral.typing.users(room).into_iter();
        let now: BTreeSet<_> = users.filter(|user| user.server_name() == own).collect();
        let before = self.typing.remove(&room).unwrap_or_default();
        let changed: Vec<_> = now.symmetric_difference(&before).cloned().collect();
        if !changed.is_empty()
            && let Some(known) = reader.room_by_sid(room).await?
        {
            for user in changed {
                let content =
                    json!({ "room_id": known.id, "user_id": user, "typing": now.contains(&user) });
                let unit = json!({ "edu_type": "m.typing", "content": content });
                for server in servers {
                    let about = About::Typing(room, user.clone());
                    self.inner
                        .destinations
                        .pass(server, |passing| passing.unit(about, unit.clone()));
                }
            }
        }
        if !now.is_empty() {
            self.typing.insert(room, now);
        }
        Ok(())
    }

    async fn receipts(
        &self,
        reader: &Reader,
        room: RoomSid,
        since: Position,
        servers: &[OwnedServerName],
    ) -> Result<(), FollowError> {
        let changed = self
            .inner
            .ephemeral
            .receipts
            .changed(reader, room, since)
            .await?;
        if changed.is_empty() {
            return Ok(());
        }
        let own = self.inner.rooms.server_name();
        let Some(known) = reader.room_by_sid(room).await? else {
            return Ok(());
        };
        for ((_, user, kind, thread), row) in changed {
            let Some(user) = reader.user_id(user).await? else {
                continue;
            };
            // Private ones stay here.
            if kind != "m.read" || user.server_name() != own {
                continue;
            }
            let mut data = json!({ "ts": row.ts });
            if let (false, Some(data)) = (thread.is_empty(), data.as_object_mut()) {
                data.insert("thread_id".to_owned(), json!(thread));
            }
            let receipt = json!({ &user: { "data": data, "event_ids": [row.event_id] } });
            let content = json!({ &known.id: { "m.read": receipt } });
            let unit = json!({ "edu_type": "m.receipt", "content": content });
            for server in servers {
                let about = About::Receipt(room, user.clone(), thread.clone());
                self.inner
                    .destinations
                    .pass(server, |passing| passing.unit(about, unit.clone()));
            }
        }
        Ok(())
    }

    async fn presence(&mut self) -> Result<(), FollowError> {
        let presences = &self.inner.ephemeral.presence;
        let changed = presences.changed_after(self.presence_since);
        if changed.is_empty() {
            return Ok(());
        }
        let own = self.inner.rooms.server_name();
        let reader = self.inner.rooms.reader();
        for (user, presence) in changed {
            self.presence_since = self.presence_since.max(presence.changed());
            let Some(id) = reader.user_id(user).await? else {
                continue;
            };
            if id.server_name() != own {
                continue;
            }
            let mut told = BTreeSet::new();
            for (room, row) in reader.rooms_of(user).await? {
                if row.membership == Membership::Join {
                    told.extend(self.inner.servers.now(room).await?.iter().cloned());
                }
            }
            let mut update = presences.content(&presence);
            if let Some(update) = update.as_object_mut() {
                update.insert("user_id".to_owned(), json!(id));
            }
            for server in told {
                self.inner.destinations.pass(&server, |passing| {
                    passing.presence(id.clone(), update.clone())
                });
            }
        }
        Ok(())
    }
}
