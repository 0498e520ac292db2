//! The answer of `GET /sync`, as it is written on the wire.
//!
//! Not ruma's type, for two reasons: events are spliced in as they were copied from their signed bytes, and `state_after`
//! has two names (`state_after` and `org.matrix.msc4222.state_after`), chosen by what the client asked for.
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync>

use std::collections::BTreeMap;

use ruma::{OwnedRoomId, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct SyncResponse {
    /// The next `since`.
    pub next_batch: String,
    /// The rooms.
    #[serde(skip_serializing_if = "RoomsSection::is_empty")]
    pub rooms: RoomsSection,
    /// Presence of people this user shares a room with.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub presence: Events,
    /// The user's global account data.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub account_data: Events,
    /// Messages to the device.
    #[serde(skip_serializing_if = "Events::is_empty")]
    pub to_device: Events,
    /// Whose keys changed.
    #[serde(skip_serializing_if = "DeviceLists::is_empty")]
    pub device_lists: DeviceLists,
    /// How many one-time keys the device has left, by algorithm.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub device_one_time_keys_count: BTreeMap<String, u64>,
    /// Algorithms whose fallback key was not handed out.
    pub device_unused_fallback_key_types: Vec<String>,
    /// The two before this say something new.
    #[serde(skip)]
    pub keys_changed: bool,
}

impl SyncResponse {
    /// Whether there is nothing in it but the token.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
            && self.presence.is_empty()
            && self.account_data.is_empty()
            && self.to_device.is_empty()
            && self.device_lists.is_empty()
            && !self.keys_changed
    }
}

/// Users by what became of their keys.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeviceLists {
    /// Their devices or cross-signing keys changed, or they share a room now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<OwnedUserId>,
    /// They share no room any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<OwnedUserId>,
}

impl DeviceLists {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

/// Events, in an object of their own.
#[derive(Debug, Default, Serialize)]
pub struct Events {
    /// The events.
    pub events: Vec<Box<RawValue>>,
}

impl Events {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Rooms by what the user has to do with them.
#[derive(Debug, Default, Serialize)]
pub struct RoomsSection {
    /// Joined.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub join: BTreeMap<OwnedRoomId, JoinedRoom>,
    /// Invited to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub invite: BTreeMap<OwnedRoomId, InvitedRoom>,
    /// Knocked on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub knock: BTreeMap<OwnedRoomId, KnockedRoom>,
    /// Left, or banned from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leave: BTreeMap<OwnedRoomId, LeftRoom>,
}

impl RoomsSection {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
    }
}

/// A joined room.
#[derive(Debug, Default, Serialize)]
pub struct JoinedRoom {
    /// Members, for a name.
    #[serde(skip_serializing_if = "Summary::is_empty")]
    pub summary: Summary,
    /// Unread events of the main timeline (of the whole room if threads were not asked for).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread_notifications: Option<UnreadCounts>,
    /// Unread events by thread root.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unread_thread_notifications: BTreeMap<String, UnreadCounts>,
    /// The events.
    #[serde(skip_serializing_if = "Timeline::is_nothing")]
    pub timeline: Timeline,
    /// The state.
    #[serde(flatten)]
    pub state: State,
    /// The user's account data of the room.
    pub account_data: Events,
    /// Typing and receipts.
    pub ephemeral: Events,
}

/// A left room.
#[derive(Debug, Default, Serialize)]
pub struct LeftRoom {
    /// The events up to the leaving.
    #[serde(skip_serializing_if = "Timeline::is_nothing")]
    pub timeline: Timeline,
    /// The state.
    #[serde(flatten)]
    pub state: State,
}

/// A room the user is invited to.
#[derive(Debug, Default, Serialize)]
pub struct InvitedRoom {
    /// What an invited person may know.
    pub invite_state: Events,
}

/// A room the user has knocked on.
#[derive(Debug, Default, Serialize)]
pub struct KnockedRoom {
    /// What a person who knocks may know.
    pub knock_state: Events,
}

/// A piece of a room's timeline.
#[derive(Debug, Default, Serialize)]
pub struct Timeline {
    /// The events, oldest first.
    pub events: Vec<Box<RawValue>>,
    /// There are events between `since` and the first one here.
    pub limited: bool,
    /// Where to read on backwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
}

impl Timeline {
    /// Whether it says nothing.
    pub fn is_nothing(&self) -> bool {
        self.events.is_empty() && !self.limited
    }
}

/// The state of a room: before its timeline, or after it when the client asked so.
#[derive(Debug, Serialize)]
pub enum State {
    /// The state before the timeline.
    #[serde(rename = "state")]
    Before(Events),
    /// The state after the timeline.
    #[serde(rename = "state_after")]
    After(Events),
    /// The same under its name before it was in the spec.
    #[serde(rename = "org.matrix.msc4222.state_after")]
    AfterUnstable(Events),
}

impl State {
    /// The events in it.
    pub fn events(&self) -> &[Box<RawValue>] {
        let (Self::Before(events) | Self::After(events) | Self::AfterUnstable(events)) = self;
        &events.events
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Before(Events::default())
    }
}

/// What a client needs to name a room.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Up to five others.
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    pub heroes: Option<Vec<OwnedUserId>>,
    /// How many are joined.
    #[serde(
        rename = "m.joined_member_count",
        skip_serializing_if = "Option::is_none"
    )]
    pub joined: Option<u64>,
    /// How many are invited.
    #[serde(
        rename = "m.invited_member_count",
        skip_serializing_if = "Option::is_none"
    )]
    pub invited: Option<u64>,
}

impl Summary {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Unread counts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UnreadCounts {
    /// Events that notify.
    pub notification_count: u64,
    /// Those of them that highlight.
    pub highlight_count: u64,
}

impl From<crate::rooms::unread::Counts> for UnreadCounts {
    fn from(counts: crate::rooms::unread::Counts) -> Self {
        Self {
            notification_count: counts.notify,
            highlight_count: counts.highlight,
        }
    }
}
