//! Row types of rooms.

use bytes::Bytes;
use ruma::events::room::member::MembershipState;
use serde::{Deserialize, Serialize};
use vatra_store::{DecodeError, Key, Position, Value, impl_value};

use super::{EventSid, NodeId, RoomOrder, RoomSid, StateKeySid, UserSid};

/// The root of a state tree; `None` is the empty state (before the create event).
pub type StateRoot = Option<NodeId>;

/// A room this server knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRow {
    /// The room id.
    pub room_id: String,
    /// The room version's id, such as `12`.
    pub version: String,
}
impl_value!(RoomRow);

/// A room's head: what the next event builds on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRow {
    /// Counts appends; makes two heads with equal content different.
    pub generation: u64,
    /// The forward extremities: short id, event id, depth.
    pub extremities: Vec<(EventSid, String, u64)>,
    /// The root of the current state.
    pub root: StateRoot,
    /// The room order of the newest live event.
    pub order: RoomOrder,
}
impl_value!(HeadRow);

/// What this server thinks of an event. Only `Visible` events are shown to clients and followers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Known for its content only (an auth event, an invite's state); not placed in the room.
    Outlier,
    /// Failed the auth rules; never enters state, never an extremity.
    Rejected,
    /// Valid in its own place but not against the current state.
    SoftFailed,
    /// A redaction whose target has not arrived.
    Held,
    /// Accepted.
    Visible,
}

/// An event as stored: a small header, then the signed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// What is known beside the bytes.
    pub head: EventHead,
    /// The PDU, as signed (or as redacted, once `redacted_by` or `expired` is set).
    pub pdu: Bytes,
}

/// What the store knows of an event beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHead {
    /// Its room.
    pub room: RoomSid,
    /// The room's version, without which the bytes cannot be read.
    pub version: String,
    /// Its id: needed by every answer, and not in the bytes from room version 3 on.
    pub event_id: String,
    /// Its status.
    pub status: Status,
    /// When it became visible; zero while it is not.
    pub position: Position,
    /// Where it stands in the room; zero for outliers.
    pub order: RoomOrder,
    /// The state before it.
    pub root_before: StateRoot,
    /// The state event it replaced, if it is a state event.
    pub replaces: Option<EventSid>,
    /// The redaction that emptied it.
    pub redacted_by: Option<EventSid>,
    /// The local device and transaction that made it: (user, device, transaction id).
    pub transaction: Option<(UserSid, String, String)>,
    /// What only some events have.
    #[serde(skip)]
    pub tail: EventTail,
}

/// What a row says behind its head, if there is anything to say: older rows have none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventTail {
    /// The state after it. Of state events, and of all events whose place in the room was worked out; `None` is not known or
    /// (for what is no state event) the same as before it.
    pub root_after: Option<StateRoot>,
    /// When it came, events before it were missing.
    pub gapped: bool,
    /// It was emptied here because its time was over: it is what a redaction would leave of it.
    pub expired: bool,
}

impl EventTail {
    const AFTER: u8 = 1;
    const NODE: u8 = 2;
    const GAPPED: u8 = 4;
    const EXPIRED: u8 = 8;

    fn write(self, out: &mut Vec<u8>) {
        let mut flags = if self.gapped { Self::GAPPED } else { 0 };
        if self.expired {
            flags |= Self::EXPIRED;
        }
        if let Some(root) = self.root_after {
            flags |= Self::AFTER | root.map_or(0, |_| Self::NODE);
        }
        out.push(flags);
        if let Some(Some(NodeId(node))) = self.root_after {
            out.extend_from_slice(&node.to_le_bytes());
        }
    }

    /// The tail and its length.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (flags, rest) = bytes.split_first()?;
        let mut tail = Self {
            root_after: (flags & Self::AFTER != 0).then_some(None),
            gapped: flags & Self::GAPPED != 0,
            expired: flags & Self::EXPIRED != 0,
        };
        if flags & Self::NODE == 0 {
            return Some((tail, 1));
        }
        let node = u64::from_le_bytes(*rest.first_chunk::<8>()?);
        tail.root_after = Some(Some(NodeId(node)));
        Some((tail, 9))
    }
}

/// Set in the length of a row's head when a tail follows it.
const HAS_TAIL: u32 = 1 << 31;

impl Value for EventRow {
    fn to_bytes(&self) -> Vec<u8> {
        let head = postcard_bytes(&self.head);
        let mut out = Vec::with_capacity(13 + head.len() + self.pdu.len());
        let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
        let tail = self.head.tail != EventTail::default();
        let marked = if tail { length | HAS_TAIL } else { length };
        out.extend_from_slice(&marked.to_le_bytes());
        out.extend_from_slice(&head);
        if tail {
            self.head.tail.write(&mut out);
        }
        out.extend_from_slice(&self.pdu);
        out
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let damaged = || DecodeError::new("event row");
        let (marked, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let marked = u32::from_le_bytes(*marked);
        let length = usize::try_from(marked & !HAS_TAIL).map_err(|_| damaged())?;
        let (head, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let mut head = EventHead::from_bytes(Bytes::copy_from_slice(head))?;
        let mut start = 4 + length;
        if marked & HAS_TAIL != 0 {
            let (tail, length) = EventTail::read(rest).ok_or_else(damaged)?;
            head.tail = tail;
            start += length;
        }
        Ok(EventRow {
            head,
            pdu: bytes.slice(start..),
        })
    }
}
impl_value!(EventHead);

fn postcard_bytes(head: &EventHead) -> Vec<u8> {
    Value::to_bytes(head)
}

/// An event in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRow {
    /// Its room.
    pub room: RoomSid,
    /// The event.
    pub event: EventSid,
    /// Where it stands in the room.
    pub order: RoomOrder,
}
impl_value!(LogRow);

/// A node of a state tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRow {
    /// Entries, ordered by key.
    Leaf(Vec<(StateKeySid, EventSid)>),
    /// Sixteen children, by the next four bits of the scrambled key.
    Branch(Vec<Option<NodeId>>),
}
impl_value!(NodeRow);

/// One key of the state that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The key.
    pub key: StateKeySid,
    /// The event before.
    pub old: Option<EventSid>,
    /// The event after.
    pub new: Option<EventSid>,
}

/// A change of a room's current state. Very many changes are not listed: then there is none here, and the difference to
/// the root before tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaRow {
    /// The state after it.
    pub root: StateRoot,
    /// What changed.
    pub changes: Vec<StateChange>,
}
impl_value!(DeltaRow);

/// A user's membership of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Membership {
    /// In the room.
    Join,
    /// Invited.
    Invite,
    /// Asked to be let in.
    Knock,
    /// Not in the room, having left, been kicked or refused.
    Leave,
    /// Banned.
    Ban,
}

impl Membership {
    /// The word of the spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }

    /// All of them, in key order.
    pub const ALL: [Membership; 5] = [
        Self::Join,
        Self::Invite,
        Self::Knock,
        Self::Leave,
        Self::Ban,
    ];

    /// Reads the `membership` of a member event; `None` for what the spec does not know.
    pub fn from_state(state: &MembershipState) -> Option<Self> {
        match state {
            MembershipState::Join => Some(Self::Join),
            MembershipState::Invite => Some(Self::Invite),
            MembershipState::Knock => Some(Self::Knock),
            MembershipState::Leave => Some(Self::Leave),
            MembershipState::Ban => Some(Self::Ban),
            _ => None,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Join => 1,
            Self::Invite => 2,
            Self::Knock => 3,
            Self::Leave => 4,
            Self::Ban => 5,
        }
    }
}

impl Key for Membership {
    fn encode(&self, out: &mut Vec<u8>) {
        self.number().encode(out);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let number = u8::decode(input)?;
        Self::ALL
            .into_iter()
            .find(|it| it.number() == number)
            .ok_or_else(|| DecodeError::new("membership"))
    }
}

/// A user's membership of a room, by user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipRow {
    /// The membership.
    pub membership: Membership,
    /// The event that says so.
    pub event: EventSid,
    /// Since when this row says so: the log position of the change.
    pub position: Position,
    /// The user has forgotten the room (only after leaving).
    pub forgotten: bool,
    /// Until when the user was joined: the log position at which the last join ended, [`MembershipRow::STILL`] while
    /// joined, zero if never.
    pub joined_until: Position,
}
impl_value!(MembershipRow);

impl MembershipRow {
    /// The `joined_until` of who is joined.
    pub const STILL: Position = Position(u64::MAX);

    /// Whether the user has ever been joined.
    pub fn was_joined(&self) -> bool {
        self.joined_until > Position(0)
    }
}

/// An event that relates to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationRow {
    /// The relating event.
    pub event: EventSid,
    /// Its `rel_type`.
    pub rel_type: String,
    /// Its event type.
    pub kind: String,
    /// Its sender.
    pub sender: UserSid,
    /// The `key` of an annotation.
    pub key: Option<String>,
}
impl_value!(RelationRow);

/// What a client's transaction made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnRow {
    /// The event's id; empty for endpoints that make no event.
    pub event_id: String,
}
impl_value!(TxnRow);

/// (room, user, receipt type, thread): the thread is empty for unthreaded receipts, else `main` or the root's event id.
pub type ReceiptKey = (RoomSid, UserSid, String, String);

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRow {
    /// The event read up to.
    pub event_id: String,
    /// Where that event stands in the room.
    pub order: RoomOrder,
    /// When the receipt was sent, in milliseconds since the Unix epoch.
    pub ts: u64,
    /// When this server learnt of it.
    pub position: Position,
}
impl_value!(ReceiptRow);

/// A local alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRow {
    /// The room it points to.
    pub room: String,
    /// Who made it.
    pub creator: String,
}
impl_value!(AliasRow);

/// Events that are missing before one that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapRow {
    /// The event that has none before it.
    pub event: EventSid,
    /// The ids of those it follows that are not there.
    pub missing: Vec<String>,
}
impl_value!(GapRow);

/// What a local user may know of a room that this server is not in: invited to it, or having knocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideRow {
    /// Stripped state events, as JSON.
    pub state: Vec<String>,
    /// Servers that are in the room.
    pub servers: Vec<String>,
}
impl_value!(OutsideRow);

/// A join that another server has been asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingJoinRow {
    /// The server.
    pub server: String,
    /// The room.
    pub room: String,
    /// The room's version.
    pub version: String,
    /// Who joins.
    pub user: String,
}
impl_value!(PendingJoinRow);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_row_is_read_as_it_was_written_with_and_without_a_tail() {
        let head = EventHead {
            room: RoomSid(1),
            version: "12".to_owned(),
            event_id: "$e".to_owned(),
            status: Status::Visible,
            position: Position(3),
            order: RoomOrder(4),
            root_before: None,
            replaces: None,
            redacted_by: None,
            transaction: None,
            tail: EventTail::default(),
        };
        let pdu = Bytes::from_static(b"{}");
        for root_after in [None, Some(None), Some(Some(NodeId(u64::MAX)))] {
            for (gapped, expired) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut row = EventRow {
                    head: head.clone(),
                    pdu: pdu.clone(),
                };
                row.head.tail = EventTail {
                    root_after,
                    gapped,
                    expired,
                };
                let bytes = Bytes::from(row.to_bytes());
                assert_eq!(EventRow::from_bytes(bytes.clone()).unwrap(), row);
                for cut in 0..bytes.len() - pdu.len() {
                    assert!(EventRow::from_bytes(bytes.slice(..cut)).is_err());
                }
            }
        }
    }
}
