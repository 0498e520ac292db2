//! Who is there. In memory only: after a restart everyone is offline until heard of.
//! <https://spec.matrix.org/v1.19/client-server-api/#presence>

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ruma::{api::client::filter::Filter, presence::PresenceState};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio_util::sync::CancellationToken;
use vatra_store::{Batch, Position, Store};

use super::super::{Reader, RoomError, Rooms, visible::Viewer};
use crate::{
    clock::SharedClock,
    event::filter,
    schema::{Membership, MembershipRow, RoomSid, UserSid, topic},
};

/// Who has not been heard of for so long is offline. A poll may wait two minutes.
const SILENT_MS: u64 = 150_000;
/// The same for users of other servers, which tell of changes only.
const SILENT_ELSEWHERE_MS: u64 = 1_800_000;

/// The longest status, in bytes.
pub const MAX_STATUS: usize = 2048;

/// Who is there.
#[derive(Clone)]
pub struct Presences {
    store: Store,
    clock: SharedClock,
    enabled: bool,
    /// The newest change of anyone: most polls need look no further.
    newest: Arc<AtomicU64>,
    users: Arc<Mutex<BTreeMap<UserSid, Presence>>>,
    /// The last poll's presence could not be told: said once, not for each poll.
    untold: Arc<AtomicBool>,
}

/// One user's presence.
#[derive(Debug, Clone)]
pub struct Presence {
    /// Online, away or offline.
    pub state: PresenceState,
    /// What they say about it.
    pub status: Option<String>,
    /// When they were last active, in milliseconds since the Unix epoch.
    pub active: u64,
    changed: Position,
    /// For how long nothing need be heard of them, in milliseconds.
    silent_ms: u64,
}

impl Presence {
    /// When this server learnt of it.
    pub fn changed(&self) -> Position {
        self.changed
    }
}

impl Presences {
    /// Everyone is offline.
    pub(super) fn new(store: Store, clock: SharedClock, enabled: bool) -> Self {
        Self {
            store,
            clock,
            enabled,
            newest: Arc::default(),
            users: Arc::default(),
            untold: Arc::default(),
        }
    }

    /// Whether this server shows presence.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// A user's presence; offline if nothing is known.
    pub fn get(&self, user: UserSid) -> Option<Presence> {
        self.users().get(&user).cloned()
    }

    /// Sets a user's presence, and tells those who share a room with them if it changed. `status` stays as it is if `None`.
    pub async fn set(
        &self,
        reader: &Reader,
        user: UserSid,
        state: PresenceState,
        status: Option<Option<String>>,
    ) -> Result<(), RoomError> {
        let active = self.clock.now();
        self.change(reader, user, state, status, Some((active, SILENT_MS)))
            .await
    }

    /// A user polls, and is there. A poll is a read: it is answered whether or not the others can be told, and the next one tries
    /// again.
    pub async fn polled(&self, reader: &Reader, user: UserSid, state: PresenceState) {
        let told = self.set(reader, user, state, None).await;
        let before = self.untold.swap(told.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (told, before) {
            tracing::warn!(%error, "nobody is told who is there until this works again");
        }
    }

    /// Another server tells the presence of one of its users, who was last active so many milliseconds ago.
    pub async fn told(
        &self,
        reader: &Reader,
        user: UserSid,
        state: PresenceState,
        status: Option<String>,
        ago: u64,
    ) -> Result<(), RoomError> {
        let known = [
            PresenceState::Online,
            PresenceState::Unavailable,
            PresenceState::Offline,
        ];
        if !known.contains(&state) {
            return Ok(());
        }
        let status = status.filter(|status| status.len() <= MAX_STATUS);
        let active = self.clock.now().saturating_sub(ago);
        // It is silence that counts, however long ago they were active.
        let heard = Some((active, SILENT_ELSEWHERE_MS.saturating_add(ago)));
        self.change(reader, user, state, Some(status), heard).await
    }

    /// `heard`: when the user was last active, and for how long nothing more need be heard of them.
    async fn change(
        &self,
        reader: &Reader,
        user: UserSid,
        state: PresenceState,
        status: Option<Option<String>>,
        heard: Option<(u64, u64)>,
    ) -> Result<(), RoomError> {
        if !self.enabled {
            return Ok(());
        }
        let now = self.clock.now();
        let before = {
            let mut users = self.users();
            let before = users.get(&user).cloned();
            let entry = users.entry(user).or_insert(Presence {
                state: PresenceState::Offline,
                status: None,
                active: now,
                changed: Position(0),
                silent_ms: SILENT_MS,
            });
            if let Some((active, silent_ms)) = heard {
                (entry.active, entry.silent_ms) = (active, silent_ms);
            }
            let status = status.unwrap_or_else(|| entry.status.clone());
            let changed = entry.state != state || entry.status != status;
            entry.state = state.clone();
            entry.status = status;
            if !changed {
                return Ok(());
            }
            before
        };
        let told = self.tell(reader, user).await;
        if told.is_err() {
            self.take_back(user, &state, before);
        }
        told
    }

    /// Nobody was told: the user is as before, so that the next attempt is a change again. Unless someone else has changed it meanwhile.
    fn take_back(&self, user: UserSid, state: &PresenceState, before: Option<Presence>) {
        let mut users = self.users();
        let known = before.as_ref().map_or(Position(0), |before| before.changed);
        let still = |now: &Presence| now.state == *state && now.changed == known;
        if !users.get(&user).is_some_and(still) {
            return;
        }
        match before {
            Some(before) => users.insert(user, before),
            None => users.remove(&user),
        };
    }

    /// Tells those who share a room with a user that their presence has changed.
    async fn tell(&self, reader: &Reader, user: UserSid) -> Result<(), RoomError> {
        let mut batch = Batch::new();
        batch.wake(topic::user(user));
        for (room, row) in reader.rooms_of(user).await? {
            if row.membership == Membership::Join {
                batch.wake(topic::presence(room));
            }
        }
        let users = Arc::clone(&self.users);
        let newest = Arc::clone(&self.newest);
        batch.then(move |position| {
            newest.fetch_max(position.0, Ordering::AcqRel);
            if let Some(entry) = users
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_mut(&user)
            {
                entry.changed = position;
            }
        });
        self.store.write(batch).await?;
        Ok(())
    }

    /// Whose presence changed after a position. Costs a look at everyone's if anyone's did.
    pub fn changed_after(&self, since: Position) -> Vec<(UserSid, Presence)> {
        if Position(self.newest.load(Ordering::Acquire)) <= since {
            return Vec::new();
        }
        let users = self.users();
        let changed = users
            .iter()
            .filter(|(_, presence)| presence.changed > since);
        changed
            .map(|(user, presence)| (*user, presence.clone()))
            .collect()
    }

    /// Turns those offline who have not been heard of for a while, until `shutdown`.
    pub async fn run(self, rooms: Rooms, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_secs(20));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = self.clock.now();
            let gone: Vec<UserSid> = {
                let users = self.users();
                let silent = users.iter().filter(|(_, presence)| {
                    presence.state != PresenceState::Offline
                        && now.saturating_sub(presence.active) > presence.silent_ms
                });
                silent.map(|(user, _)| *user).collect()
            };
            for user in gone {
                let reader = rooms.reader();
                if let Err(error) = self
                    .change(&reader, user, PresenceState::Offline, None, None)
                    .await
                {
                    tracing::debug!(%error, "someone could not be turned offline");
                }
            }
        }
    }

    /// Presence events, for one viewer, of those who share a room with them: what changed after `since`, and those whom the
    /// viewer meets for the first time.
    pub async fn events(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        wanted: &Filter,
        since: Option<Position>,
        newcomers: &BTreeSet<UserSid>,
        rooms: &[(RoomSid, MembershipRow)],
    ) -> Result<Vec<Box<RawValue>>, RoomError> {
        let newest = Position(self.newest.load(Ordering::Acquire));
        if !self.enabled || (newcomers.is_empty() && since.is_some_and(|since| newest <= since)) {
            return Ok(Vec::new());
        }
        let new: Vec<(UserSid, Presence)> = {
            let users = self.users();
            let changed = users.iter().filter(|(user, presence)| {
                since.is_none_or(|since| presence.changed > since) || newcomers.contains(user)
            });
            changed
                .map(|(user, presence)| (*user, presence.clone()))
                .collect()
        };
        let mut events = Vec::new();
        for (user, presence) in new {
            let Some(user_id) = reader.user_id(user).await? else {
                continue;
            };
            if !filter::event_matches(wanted, "m.presence", &user_id)
                || !self.shares(reader, viewer, user, rooms).await?
            {
                continue;
            }
            let event = json!({ "type": "m.presence", "sender": user_id, "content": self.content(&presence) });
            events.extend(to_raw_value(&event).ok());
        }
        Ok(events)
    }

    /// The content of a presence event.
    pub fn content(&self, presence: &Presence) -> Value {
        let ago = self.clock.now().saturating_sub(presence.active);
        let mut content = serde_json::Map::new();
        let mut put = |name: &str, value: Value| content.insert(name.to_owned(), value);
        put("presence", json!(presence.state));
        put("last_active_ago", json!(ago));
        put(
            "currently_active",
            json!(presence.state == PresenceState::Online && ago < 60_000),
        );
        if let Some(status) = &presence.status {
            put("status_msg", json!(status));
        }
        Value::Object(content)
    }

    async fn shares(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        user: UserSid,
        rooms: &[(RoomSid, MembershipRow)],
    ) -> Result<bool, RoomError> {
        if user == viewer.sid {
            return Ok(true);
        }
        for (room, row) in rooms {
            if row.membership == Membership::Join && reader.is_joined(user, *room).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<UserSid, Presence>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
