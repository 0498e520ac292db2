//! Every map of the store, on one page: the database at a glance.
//!
//! A map is a keyspace, a number that is the first byte of its keys, and the types of key and value.
//! Its doc comment says what a row is, who writes it (the *owner*) and about how large it is. Numbers are
//! never reused: 1..=63 rooms, 64..=95 users, 96..=111 media, 112..=127 followers.
//!
//! To add a map: declare it here, put its row type in the owner's file beside this page, and if old stores
//! need rows for it, add a migration to [`migrations`].

use vatra_store::{Keyspace, Map, Migration, Position};

mod ids;
mod media;
mod migrations;
mod rooms;
mod users;

pub use self::{
    ids::{EventSid, NodeId, RoomOrder, RoomSid, StateKeySid, UserSid},
    media::{BlobId, BlobRow, MediaContent, MediaRow, MediaState, ThumbnailKey, ThumbnailRow},
    rooms::{
        AliasRow, DeltaRow, EventHead, EventRow, HeadRow, LogRow, Membership, MembershipRow,
        NodeRow, ReceiptKey, ReceiptRow, RelationRow, RoomRow, StateChange, StateRoot, Status,
        TxnRow,
    },
    users::{
        AccountDataKey, AccountDataRow, AccountRow, DeviceRow, GLOBAL, RefreshRow, ReportRow,
        Reported, TokenRow,
    },
};

/// What the topics of the store's wake-ups are about.
pub mod topic {
    use vatra_store::Topic;

    use super::{RoomSid, UserSid};

    /// The kind of [`room`].
    pub const ROOM: u8 = 1;
    /// The kind of [`user`].
    pub const USER: u8 = 2;
    /// The kind of [`membership`].
    pub const MEMBERSHIP: u8 = 3;

    /// The kind of [`presence`].
    pub const PRESENCE: u8 = 4;

    /// Someone in the room came or went. Wakes like [`room`], but nothing of the room itself changed.
    pub fn presence(room: RoomSid) -> Topic {
        Topic {
            kind: PRESENCE,
            id: room.0,
        }
    }

    /// Something in the room changed that its members may see in /sync.
    pub fn room(room: RoomSid) -> Topic {
        Topic {
            kind: ROOM,
            id: room.0,
        }
    }

    /// Something of the user's own changed: account data, to-device messages, devices.
    pub fn user(user: UserSid) -> Topic {
        Topic {
            kind: USER,
            id: user.0,
        }
    }

    /// The user's membership of some room changed.
    pub fn membership(user: UserSid) -> Topic {
        Topic {
            kind: MEMBERSHIP,
            id: user.0,
        }
    }
}

/// The migrations that bring an older store up to this schema, in order.
pub fn migrations() -> &'static [Migration] {
    &[Migration {
        version: 2,
        name: "the times of events, and the replies in threads",
        run: migrations::times_and_threads,
    }]
}

// ---------------------------------------------------------------- ids (owner: ids)

/// User id to short id. 50 bytes a row.
pub const USER_SIDS: Map<String, UserSid> = Map::new(Keyspace::Index, 1, "user_sids");
/// Short id to user id. 50 bytes a row.
pub const USER_IDS: Map<UserSid, String> = Map::new(Keyspace::Index, 2, "user_ids");
/// Room id to short id. 60 bytes a row.
pub const ROOM_SIDS: Map<String, RoomSid> = Map::new(Keyspace::Index, 3, "room_sids");
/// (event type, state key) to short id. 60 bytes a row.
pub const STATE_KEY_SIDS: Map<(String, String), StateKeySid> =
    Map::new(Keyspace::Index, 4, "state_key_sids");
/// Short id to (event type, state key). 60 bytes a row.
pub const STATE_KEYS: Map<StateKeySid, (String, String)> =
    Map::new(Keyspace::Index, 5, "state_keys");
/// Event id to short id; ids only mentioned by other events have one too. 60 bytes a row.
pub const EVENT_SIDS: Map<OwnedEventIdKey, EventSid> = Map::new(Keyspace::Index, 6, "event_sids");
/// An event id as a key.
pub type OwnedEventIdKey = String;

// ---------------------------------------------------------------- rooms (owner: rooms)

/// A room this server knows: id, version. 100 bytes a row.
pub const ROOMS: Map<RoomSid, RoomRow> = Map::new(Keyspace::Index, 10, "rooms");
/// A room's head: forward extremities, state root, next order. The row every append asserts. 200 bytes.
pub const ROOM_HEADS: Map<RoomSid, HeadRow> = Map::new(Keyspace::Index, 11, "room_heads");
/// An event: the signed bytes and what this server knows of it. 1 kB a row (at most 66 kB).
pub const EVENTS: Map<EventSid, EventRow> = Map::new(Keyspace::Bulk, 12, "events");
/// The room order: where a visible event stands in its room. 30 bytes a row.
pub const TIMELINE: Map<(RoomSid, RoomOrder), EventSid> =
    Map::new(Keyspace::Stream, 13, "timeline");
/// The room's part of the log: when this server's clients learn of an event. 40 bytes a row.
pub const ROOM_LOG: Map<(RoomSid, Position), LogRow> = Map::new(Keyspace::Stream, 14, "room_log");
/// The log that followers read. 40 bytes a row.
pub const LOG: Map<Position, LogRow> = Map::new(Keyspace::Stream, 15, "log");
/// A node of the persistent state trees. 0.2 to 2 kB a row; one to three rows a state change.
pub const STATE_NODES: Map<NodeId, NodeRow> = Map::new(Keyspace::Index, 16, "state_nodes");
/// The current state by name: (room, event type, state key). 90 bytes a row.
pub const CURRENT_STATE: Map<(RoomSid, String, String), EventSid> =
    Map::new(Keyspace::Index, 17, "current_state");
/// A change of the room's current state and the root after it. 60 bytes and 24 a changed key.
pub const STATE_DELTAS: Map<(RoomSid, Position), DeltaRow> =
    Map::new(Keyspace::Stream, 18, "state_deltas");
/// A user's relation to a room, by user. 60 bytes a row.
pub const MEMBERSHIPS: Map<(UserSid, RoomSid), MembershipRow> =
    Map::new(Keyspace::Index, 19, "memberships");
/// A room's users by membership; the value is the membership event. 30 bytes a row.
pub const ROOM_MEMBERS: Map<(RoomSid, Membership, UserSid), EventSid> =
    Map::new(Keyspace::Index, 20, "room_members");
/// How many users of a room have a membership. 20 bytes a row, five a room.
pub const MEMBER_COUNTS: Map<(RoomSid, Membership), i64> =
    Map::new(Keyspace::Index, 21, "member_counts");
/// Which events relate to an event (by its id, since it may be unknown), in room order. 100 bytes a row.
pub const RELATIONS: Map<(RoomSid, String, RoomOrder), RelationRow> =
    Map::new(Keyspace::Index, 22, "relations");
/// The event that a client's transaction made: (user, device, endpoint and room, transaction id). 120 bytes a row.
pub const TRANSACTIONS: Map<(UserSid, String, String, String), TxnRow> =
    Map::new(Keyspace::Index, 23, "transactions");
/// A redaction waiting for its target to arrive: target event id to the redaction. 70 bytes a row.
pub const HELD_REDACTIONS: Map<(RoomSid, String), EventSid> =
    Map::new(Keyspace::Index, 24, "held_redactions");
/// A user's newest receipt in a room, by type and thread. 120 bytes a row.
pub const RECEIPTS: Map<ReceiptKey, ReceiptRow> = Map::new(Keyspace::Index, 25, "receipts");
/// Which receipt a position set; rows of replaced receipts are removed. 60 bytes a row.
pub const RECEIPT_LOG: Map<(RoomSid, Position, UserSid), ReceiptKey> =
    Map::new(Keyspace::Stream, 26, "receipt_log");
/// A local alias and where it points. 100 bytes a row.
pub const ALIASES: Map<String, AliasRow> = Map::new(Keyspace::Index, 27, "aliases");
/// The local aliases of a room. 60 bytes a row.
pub const ROOM_ALIASES: Map<(RoomSid, String), ()> = Map::new(Keyspace::Index, 28, "room_aliases");
/// Rooms that the directory lists. 10 bytes a row.
pub const PUBLIC_ROOMS: Map<RoomSid, ()> = Map::new(Keyspace::Index, 29, "public_rooms");

/// Replies in threads, in room order: the id of the thread's root. 80 bytes a row.
pub const THREAD_REPLIES: Map<(RoomSid, RoomOrder), String> =
    Map::new(Keyspace::Stream, 56, "thread_replies");
/// When visible events were sent, in milliseconds, as their servers say. 40 bytes a row.
pub const EVENT_TIMES: Map<(RoomSid, u64, RoomOrder), EventSid> =
    Map::new(Keyspace::Stream, 57, "event_times");

// ---------------------------------------------------------------- users (owner: users)

/// A local account. 200 bytes a row.
pub const ACCOUNTS: Map<UserSid, AccountRow> = Map::new(Keyspace::Index, 64, "accounts");
/// A user's devices. 100 bytes a row.
pub const DEVICES: Map<(UserSid, String), DeviceRow> = Map::new(Keyspace::Index, 65, "devices");
/// Access tokens by their SHA-256. 120 bytes a row.
pub const TOKENS: Map<[u8; 32], TokenRow> = Map::new(Keyspace::Index, 66, "tokens");
/// Refresh tokens by their SHA-256. 120 bytes a row.
pub const REFRESH_TOKENS: Map<[u8; 32], RefreshRow> =
    Map::new(Keyspace::Index, 67, "refresh_tokens");
/// The access tokens of a device. 60 bytes a row.
pub const DEVICE_TOKENS: Map<(UserSid, String, [u8; 32]), ()> =
    Map::new(Keyspace::Index, 68, "device_tokens");
/// A field of a user's profile, as JSON. 80 bytes a row.
pub const PROFILES: Map<(UserSid, String), String> = Map::new(Keyspace::Index, 69, "profiles");
/// Account data. 500 bytes a row.
pub const ACCOUNT_DATA: Map<AccountDataKey, AccountDataRow> =
    Map::new(Keyspace::Index, 70, "account_data");
/// When account data changed; rows of replaced data are removed. 60 bytes a row.
pub const ACCOUNT_DATA_LOG: Map<(UserSid, Position), AccountDataKey> =
    Map::new(Keyspace::Stream, 71, "account_data_log");
/// A user's filters, as JSON. 300 bytes a row.
pub const FILTERS: Map<(UserSid, u64), String> = Map::new(Keyspace::Index, 72, "filters");
/// Local parts in lower case that are taken. 40 bytes a row.
pub const TAKEN_NAMES: Map<String, UserSid> = Map::new(Keyspace::Index, 73, "taken_names");
/// What a user reported: (user, number of the report). At most 17 kB a row, a thousand a user.
pub const REPORTS: Map<(UserSid, u64), ReportRow> = Map::new(Keyspace::Index, 92, "reports");

// ---------------------------------------------------------------- media (owner: media)

/// What a media id stands for: (server name, media id). 250 bytes a row.
pub const MEDIA: Map<(String, String), MediaRow> = Map::new(Keyspace::Index, 96, "media");
/// A file, however many ids have it as their content. 50 bytes a row.
pub const BLOBS: Map<BlobId, BlobRow> = Map::new(Keyspace::Index, 97, "blobs");
/// How many media and thumbnail rows name a blob. 45 bytes a row.
pub const BLOB_USES: Map<BlobId, i64> = Map::new(Keyspace::Index, 98, "blob_uses");
/// A thumbnail that was made. 110 bytes a row.
pub const THUMBNAILS: Map<ThumbnailKey, ThumbnailRow> = Map::new(Keyspace::Index, 99, "thumbnails");
/// Media ids that wait for their content: (user, expiry, media id). 90 bytes a row, ten a user at most.
pub const PENDING_MEDIA: Map<(String, u64, String), ()> =
    Map::new(Keyspace::Index, 100, "pending_media");
