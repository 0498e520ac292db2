//! Tells other servers that keys of local users changed, and forgets what was known of users of other servers with whom no room is
//! shared any more.
//!
//! - [`run`] takes the rows of [`schema::KEY_NEWS`], one a changed device, and puts a unit for each server of the user's rooms into the
//!   federation sender's outbox, in one batch. Whatever is killed when, no change is untold.
//! - [`KeyNews`] is the follower: where a user of another server leaves, or the last local user, what is stored of devices is
//!   not current any more; where a local user joins, servers that hear of them for the first time are told of their devices.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#device-management>

use std::collections::BTreeSet;

use async_trait::async_trait;
use ruma::{OwnedServerName, OwnedUserId, UserId, events::TimelineEventType};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use tokio_util::sync::CancellationToken;
use vatra_store::{Batch, CommitError, Direction, Position, Range};

use super::{FollowError, Follower};
use crate::{
    e2ee::{E2ee, E2eeError, KeysOf},
    rooms::{Reader, RoomError, Rooms, membership_of},
    schema::{self, LogRow, Membership, RoomSid, UserSid, topic},
};

/// Its name among the followers.
const NAME: &str = "key_news";
/// How many changes are read at a time.
const PAGE: usize = 200;
/// How many servers are told with one batch.
const SERVERS: usize = 200;
/// The most devices of a user that a server is told of at once.
const MAX_DEVICES: usize = 100;

/// Tells of keys. Cheap to clone.
#[derive(Clone)]
pub struct KeyNews {
    e2ee: E2ee,
    rooms: Rooms,
    names: bool,
}

/// One change: whose, which device (or the cross-signing keys), and when.
struct News {
    user: UserSid,
    device: String,
    at: Position,
}

impl KeyNews {
    /// `names` is whether other servers are told what users call their devices.
    pub fn new(e2ee: E2ee, rooms: Rooms, names: bool) -> Self {
        Self { e2ee, rooms, names }
    }

    /// Tells of changes as they come, until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let store = self.rooms.store();
        let topics = [topic::any_device_list()];
        let tell = || self.tell_all();
        super::whenever(store, &topics, "telling of changed keys", &shutdown, tell).await;
    }

    /// Tells everything that is there.
    async fn tell_all(&self) -> Result<(), FollowError> {
        let mut range = Range::all();
        loop {
            let view = self.rooms.store().view();
            let rows = view
                .range(&schema::KEY_NEWS, range, Direction::Forward, PAGE)
                .await?;
            let Some((last, _)) = rows.last().cloned() else {
                return Ok(());
            };
            range = Range::all().after(&last);
            let mut news: Vec<_> = rows
                .into_iter()
                .map(|((user, device), at)| News { user, device, at })
                .collect();
            // Of each user the oldest first, as the numbers of the units say.
            news.sort_unstable_by_key(|news| (news.user, news.at));
            for news in news {
                self.tell(&news).await?;
            }
        }
    }

    async fn tell(&self, news: &News) -> Result<(), FollowError> {
        let reader = self.rooms.reader();
        let servers = self.audience(&reader, news.user, None).await?;
        let units = match reader.user_id(news.user).await? {
            Some(user) if !servers.is_empty() => Some(self.unit(&reader, &user, news).await?),
            _ => None,
        };
        let mut servers: Vec<_> = servers.into_iter().collect();
        loop {
            let rest = servers.split_off(servers.len().min(SERVERS));
            let mut batch = Batch::new();
            if let Some(unit) = &units {
                for server in servers {
                    let (server, unit) = (server.to_string(), unit.clone());
                    batch.put_at_position(&schema::EDU_OUTBOX, move |position| {
                        ((server, position, 0), unit)
                    });
                }
                batch.wake(topic::elsewhere());
            }
            if rest.is_empty() {
                let key = (news.user, news.device.clone());
                batch.assert_equals(&schema::KEY_NEWS, &key, &news.at);
                batch.delete(&schema::KEY_NEWS, &key);
                if units.is_some() && !news.device.is_empty() {
                    batch.put(&schema::TOLD_LISTS, &news.user, &news.at);
                }
            }
            match self.rooms.store().write(batch).await {
                // It changed once more: that is told next.
                Ok(_) | Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
            }
            if rest.is_empty() {
                return Ok(());
            }
            servers = rest;
        }
    }

    /// The other servers of the user's rooms, but for one of them.
    async fn audience(
        &self,
        reader: &Reader,
        user: UserSid,
        but: Option<RoomSid>,
    ) -> Result<BTreeSet<OwnedServerName>, RoomError> {
        let mut servers = BTreeSet::new();
        for (room, row) in reader.rooms_of(user).await? {
            if row.membership == Membership::Join && but != Some(room) {
                servers.extend(reader.other_servers(room, usize::MAX).await?);
            }
        }
        Ok(servers)
    }

    /// What they are told.
    async fn unit(
        &self,
        reader: &Reader,
        user: &OwnedUserId,
        news: &News,
    ) -> Result<String, FollowError> {
        let devices = [news.device.clone()];
        let keys = self.e2ee.keys_of(None, user, &devices).await;
        let keys = keys.map_err(stored)?.unwrap_or_default();
        let unit = if news.device.is_empty() {
            let content = json!({
                "user_id": user, "master_key": keys.master, "self_signing_key": keys.self_signing,
            });
            json!({ "edu_type": "m.signing_key_update", "content": without_nulls(content) })
        } else {
            let told = reader.view().get(&schema::TOLD_LISTS, &news.user).await?;
            let place = (news.user, news.device.clone());
            let exists = reader.view().contains(&schema::DEVICES, &place).await?;
            let content = self.device(user, news, keys, (told, exists));
            json!({ "edu_type": "m.device_list_update", "content": without_nulls(content) })
        };
        Ok(unit.to_string())
    }

    fn device(
        &self,
        user: &OwnedUserId,
        news: &News,
        mut keys: KeysOf,
        (told, exists): (Option<Position>, bool),
    ) -> Value {
        let keys = keys.devices.remove(&news.device);
        let shown = keys.map(|keys| Shown::new(&keys, self.names));
        let deleted = (!exists).then_some(true);
        let previous: Vec<u64> = told.into_iter().map(|told| told.0).collect();
        let (keys, name) = shown.map(|shown| (shown.keys, shown.name)).unzip();
        json!({
            "user_id": user, "device_id": news.device, "stream_id": news.at.0, "prev_id": previous,
            "deleted": deleted, "device_display_name": name.flatten(), "keys": keys,
        })
    }
}

/// A device as other servers see it: its keys as they were signed, and its name apart.
#[derive(Debug)]
pub struct Shown {
    /// The keys without `unsigned`.
    pub keys: Box<RawValue>,
    /// The name.
    pub name: Option<String>,
}

impl Shown {
    /// Takes the name from beside the keys; it is not told unless `names`.
    pub fn new(keys: &RawValue, names: bool) -> Self {
        let read = serde_json::from_str::<Map<String, Value>>(keys.get());
        let mut object = read.unwrap_or_default();
        let unsigned = object.remove("unsigned");
        let name = unsigned
            .as_ref()
            .and_then(|unsigned| unsigned.get("device_display_name"));
        let name = name.and_then(Value::as_str).map(str::to_owned);
        Self {
            // What was read as an object can be written as one.
            keys: to_raw_value(&object).unwrap_or_else(|_| RawValue::NULL.to_owned()),
            name: name.filter(|_| names),
        }
    }
}

fn without_nulls(mut content: Value) -> Value {
    if let Some(content) = content.as_object_mut() {
        content.retain(|_, value| !value.is_null());
    }
    content
}

/// The only way in which stored keys cannot be had.
fn stored(error: E2eeError) -> FollowError {
    match error {
        E2eeError::Store(error) => error.into(),
        other => RoomError::Unresolvable(other.to_string()).into(),
    }
}

#[async_trait]
impl Follower for KeyNews {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn follow(
        &self,
        page: &[(Position, LogRow)],
        batch: &mut Batch,
    ) -> Result<(), FollowError> {
        let Some((first, _)) = page.first() else {
            return Ok(());
        };
        let since = Position(first.0.saturating_sub(1));
        let rooms: BTreeSet<RoomSid> = page.iter().map(|(_, row)| row.room).collect();
        let store = self.rooms.store();
        let reader = self.rooms.reader();
        let mut parted = BTreeSet::new();
        for room in rooms {
            if store.changed_since(topic::members(room), since) {
                let moved = Moved::read(&reader, room, page).await?;
                parted.extend(self.parted(&reader, room, &moved.left).await?);
                self.joined(&reader, room, &moved, batch).await?;
            }
        }
        let parted: Vec<_> = parted.into_iter().collect();
        let outdated = self.e2ee.outdate(reader.view(), batch, &parted).await;
        outdated.map_err(stored)
    }

    async fn stored(&self, _: &[(Position, LogRow)]) {}
}

impl KeyNews {
    /// Users of other servers of whom this server may hear nothing more, since they or the last local user left a room.
    async fn parted(
        &self,
        reader: &Reader,
        room: RoomSid,
        left: &BTreeSet<OwnedUserId>,
    ) -> Result<Vec<UserSid>, RoomError> {
        let own = self.rooms.server_name();
        let mut found = Vec::new();
        for user in left.iter().filter(|user| user.server_name() != own) {
            found.extend(reader.user_sid(user).await?);
        }
        let a_local = left.iter().any(|user| user.server_name() == own);
        // The one who is there may have come back just now: then something may have been missed all the same.
        if a_local && reader.local_members(room).await? <= 1 {
            let members = reader.members(room, Membership::Join, usize::MAX).await?;
            found.extend(members.into_iter().map(|(user, _)| user));
        }
        Ok(found)
    }

    /// What those who joined a room make known: of a user of another server something may have been missed while no room was shared;
    /// servers that share no other room with a local user are told of the user's devices.
    async fn joined(
        &self,
        reader: &Reader,
        room: RoomSid,
        moved: &Moved,
        batch: &mut Batch,
    ) -> Result<(), FollowError> {
        let own = self.rooms.server_name();
        for user in &moved.joined {
            let Some(sid) = reader.user_sid(user).await? else {
                continue;
            };
            if user.server_name() != own {
                let missed = moved.left.contains(user);
                let met = self.e2ee.met_again(reader.view(), batch, sid, missed).await;
                met.map_err(stored)?;
                continue;
            }
            let mut servers = reader.other_servers(room, usize::MAX).await?;
            if servers.is_empty() || !reader.is_joined(sid, room).await? {
                continue;
            }
            let known = self.audience(reader, sid, Some(room)).await?;
            servers.retain(|server| !known.contains(server));
            if !servers.is_empty() {
                self.introduce(reader, (user, sid), &servers).await?;
            }
        }
        Ok(())
    }

    /// Tells servers of all devices of a user. Numbered like the last change: nothing is new.
    async fn introduce(
        &self,
        reader: &Reader,
        (user, sid): (&OwnedUserId, UserSid),
        servers: &[OwnedServerName],
    ) -> Result<(), FollowError> {
        let view = reader.view();
        let at = view.get(&schema::DEVICE_LISTS, &sid).await?;
        let range = Range::prefix(&(sid,));
        let devices = view
            .range(&schema::DEVICES, range, Direction::Forward, MAX_DEVICES)
            .await?;
        let mut units = Vec::new();
        for ((_, device), _) in devices {
            let news = News {
                user: sid,
                device,
                at: at.unwrap_or(Position::ZERO),
            };
            units.push(self.unit(reader, user, &news).await?);
        }
        // Apart from the page, since a room can have thousands of servers; what is told twice does no harm.
        for servers in servers.chunks(SERVERS) {
            let mut batch = Batch::new();
            for server in servers {
                for (number, unit) in (0..).zip(units.clone()) {
                    let server = server.to_string();
                    batch.put_at_position(&schema::EDU_OUTBOX, move |position| {
                        ((server, position, number), unit)
                    });
                }
            }
            batch.wake(topic::elsewhere());
            self.rooms.store().write(batch).await?;
        }
        Ok(())
    }
}

/// Who came and who went in a room within a page of the log.
#[derive(Default)]
struct Moved {
    left: BTreeSet<OwnedUserId>,
    joined: BTreeSet<OwnedUserId>,
}

impl Moved {
    /// Whom the page's events make come and go, also if they came back at once, and whom its changes of state do.
    async fn read(
        reader: &Reader,
        room: RoomSid,
        page: &[(Position, LogRow)],
    ) -> Result<Self, RoomError> {
        let mut moved = Self::default();
        let (Some((first, _)), Some((last, _))) = (page.first(), page.last()) else {
            return Ok(moved);
        };
        let since = Position(first.0.saturating_sub(1));
        for change in reader.member_changes(room, since, *last).await? {
            let users = if change.joined {
                &mut moved.joined
            } else {
                &mut moved.left
            };
            users.insert(change.user);
        }
        for (_, row) in page.iter().filter(|(_, row)| row.room == room) {
            let Some(event) = reader.event_by_sid(row.event).await? else {
                continue;
            };
            if event.pdu.kind != TimelineEventType::RoomMember {
                continue;
            }
            let user = event.pdu.state_key.as_deref();
            let user = user.and_then(|user| UserId::parse(user).ok());
            if membership_of(&event.pdu) != Some(Membership::Join) {
                moved.left.extend(user);
            } else if let Some(user) = user.filter(|user| moved.left.contains(user)) {
                moved.joined.insert(user);
            }
        }
        Ok(moved)
    }
}
