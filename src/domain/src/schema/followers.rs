//! Row types of followers.

use serde::{Deserialize, Serialize};
use vatra_store::{Position, impl_value};

use super::{EventSid, RoomOrder, RoomSid};

/// How far a follower has read the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerRow {
    /// The last position that it has dealt with.
    pub cursor: Position,
    /// How many items it has set aside.
    pub set_aside: u64,
}
impl_value!(FollowerRow);

/// Up to where a room was gone through by the times of its events, because some are too old.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RetainedRow {
    /// When the last event was sent, in milliseconds since the Unix epoch.
    pub ts: u64,
    /// Where it stands in the room.
    pub order: RoomOrder,
}
impl_value!(RetainedRow);

impl RetainedRow {
    /// Before all events.
    pub const START: Self = Self {
        ts: 0,
        order: RoomOrder(0),
    };
}

/// A server's part in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomServerRow {
    /// How many of its users are joined.
    pub members: u64,
    /// Since when some are: what was said before is not for it.
    pub since: Position,
    /// When the last one went, if nobody is joined: that event is still for it.
    pub until: Option<Position>,
}
impl_value!(RoomServerRow);

impl RoomServerRow {
    /// Whether what happened at a position is for the server.
    pub fn was_there(&self, at: Position) -> bool {
        self.since <= at && self.until.is_none_or(|until| at <= until)
    }
}

/// A server that is sent to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationRow {
    /// Everything for it up to here was delivered, or left to it to ask for.
    pub sent: Position,
    /// When it last took a transaction, in milliseconds since the Unix epoch.
    pub success: u64,
    /// It was away for long: only the newest event of each room is sent, up to a position, beginning with a room.
    pub catch_up: Option<(Position, RoomSid)>,
    /// How many transactions it has refused for good.
    pub set_aside: u64,
    /// What went wrong last.
    pub error: Option<String>,
}
impl_value!(DestinationRow);

/// A transaction that was or is being sent: its content never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutTransactionRow {
    /// Its id.
    pub id: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made: u64,
    /// Its events.
    pub events: Vec<EventSid>,
    /// Its ephemeral units, as JSON.
    pub edus: Vec<String>,
    /// What [`DestinationRow::sent`] becomes when it is taken.
    pub sent: Position,
    /// What [`DestinationRow::catch_up`] becomes.
    pub catch_up: Option<(Position, RoomSid)>,
    /// How often it was refused.
    pub refusals: u32,
}
impl_value!(OutTransactionRow);

/// An event that a user with pushers is notified of and, as far as is known, has not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRow {
    /// Its room.
    pub room: RoomSid,
    /// The event.
    pub event: EventSid,
    /// Where it stands in the room; zero for an invite to a room that this server is not in.
    pub order: RoomOrder,
    /// The root of the thread that it is in.
    pub thread: Option<String>,
    /// It is the user's own invite.
    pub invite: bool,
    /// It highlights.
    pub highlight: bool,
    /// What the rule wants it to look like: a JSON object of tweaks.
    pub tweaks: String,
    /// When it was noticed, in milliseconds since the Unix epoch.
    pub ts: u64,
}
impl_value!(NoticeRow);

/// How far a pusher is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PusherStateRow {
    /// What was noticed up to here has been told, or has given way.
    pub sent: Position,
    /// The count of unread events that was told last.
    pub badge: u64,
    /// How often in a row the gateway did not take something.
    pub failures: u32,
    /// When it is tried again, in milliseconds since the Unix epoch.
    pub retry_at: u64,
    /// What went wrong, while it does.
    pub error: Option<String>,
}
impl_value!(PusherStateRow);
