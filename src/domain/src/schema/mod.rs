//! Every map of the store, on one page: the database at a glance.
//!
//! A map is a keyspace, a number that is the first byte of its keys, and the types of key and value.
//! Its doc comment says what a row is, who writes it (the *owner*) and about how large it is. Numbers are
//! never reused: 1..=63 rooms and servers, 64..=95 users, 96..=109 media, 110..=111 servers, 112..=127 followers.
//!
//! To add a map: declare it here, put its row type in the owner's file beside this page, and if old stores
//! need rows for it, add a migration to [`migrations`].

use vatra_store::{Keyspace, Map, Migration, Position};

mod appservices;
mod e2ee;
mod followers;
mod ids;
mod mail;
mod media;
mod migrations;
mod remote;
mod rooms;
mod users;

pub use self::{
    appservices::{OutsideLogRow, ServiceRow, ServiceTransactionRow},
    e2ee::{
        BackupKeyRow, BackupRow, DehydratedRow, FallbackKeyRow, KeyStateRow, KeyUsage,
        RemoteListRow, SignedRow, UserSignatureRow,
    },
    followers::{
        DestinationRow, FollowerRow, NoticeRow, OutTransactionRow, PusherStateRow, RetainedRow,
        RoomServerRow,
    },
    ids::{EventSid, NodeId, RoomOrder, RoomSid, StateKeySid, UserSid},
    mail::{
        EmailPurpose, EmailRow, EmailSessionRow, MailListRow, MailOutcomeRow, MailRow, ToldRoom,
        ToldRow,
    },
    media::{
        BlobId, BlobRow, MediaContent, MediaRow, MediaState, QuarantineRow, ThumbnailKey,
        ThumbnailRow,
    },
    remote::{BackoffRow, InTransactionRow, KeyDocumentRow, ServerKeyRow},
    rooms::{
        AliasRow, DeltaRow, EventHead, EventRow, EventTail, GapRow, HeadRow, LogRow, Membership,
        MembershipRow, NodeRow, OutsideRow, PendingJoinRow, ReceiptKey, ReceiptRow, RelationRow,
        RoomRow, StateChange, StateRoot, Status, TxnRow,
    },
    users::{
        AccountDataKey, AccountDataRow, AccountFlags, AccountRow, DeviceRow, GLOBAL, PusherKey,
        PusherKind, PusherRow, PushersRow, RefreshRow, ReportRow, Reported, TokenRow,
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

    /// The kind of [`elsewhere`].
    pub const ELSEWHERE: u8 = 5;

    /// Something waits in [`super::EDU_OUTBOX`].
    pub fn elsewhere() -> Topic {
        Topic {
            kind: ELSEWHERE,
            id: 0,
        }
    }

    /// The kind of [`notices`].
    pub const NOTICES: u8 = 7;

    /// There is something new to notify the user of, or a new pusher, or something was read.
    pub fn notices(user: UserSid) -> Topic {
        Topic {
            kind: NOTICES,
            id: user.0,
        }
    }

    /// The kind of [`device_list`] and [`any_device_list`].
    pub const DEVICE_LIST: u8 = 16;
    /// The kind of [`members`].
    pub const MEMBERS: u8 = 17;

    /// The kind of [`devices`].
    pub const DEVICES: u8 = 18;

    /// Something of the user's devices changed that only they see: messages to them, what is left of their keys, whom the user has signed.
    pub fn devices(user: UserSid) -> Topic {
        Topic {
            kind: DEVICES,
            id: user.0,
        }
    }

    /// A user's devices or cross-signing keys changed: those who share a room with the user may see it in /sync.
    pub fn device_list(user: UserSid) -> Topic {
        Topic {
            kind: DEVICE_LIST,
            id: user.0,
        }
    }

    /// Somebody's devices or cross-signing keys changed.
    pub fn any_device_list() -> Topic {
        Topic {
            kind: DEVICE_LIST,
            id: 0,
        }
    }

    /// A membership of the room changed.
    pub fn members(room: RoomSid) -> Topic {
        Topic {
            kind: MEMBERS,
            id: room.0,
        }
    }

    // The kinds below wake nobody: they narrow down what changed, so that a reader who was woken knows what it need not read.

    /// The kind of [`state`].
    pub const STATE: u8 = 33;
    /// The kind of [`relations`].
    pub const RELATIONS: u8 = 34;
    /// The kind of [`receipts`].
    pub const RECEIPTS: u8 = 35;
    /// The kind of [`own_receipts`].
    pub const OWN_RECEIPTS: u8 = 36;

    /// The kind of [`newly_subscribed`].
    pub const NEWLY_SUBSCRIBED: u8 = 37;
    /// The kind of [`outside_invites`].
    pub const OUTSIDE_INVITES: u8 = 38;
    /// The kind of [`erased`].
    pub const ERASED: u8 = 50;

    /// There is a new row in [`super::ERASED`].
    pub fn erased() -> Topic {
        Topic {
            kind: ERASED,
            id: 0,
        }
    }

    /// Someone has set a pusher: there is a row of no room in [`super::SUBSCRIBED`].
    pub fn newly_subscribed() -> Topic {
        Topic {
            kind: NEWLY_SUBSCRIBED,
            id: 0,
        }
    }

    /// Something waits in [`super::OUTSIDE_INVITES`].
    pub fn outside_invites() -> Topic {
        Topic {
            kind: OUTSIDE_INVITES,
            id: 0,
        }
    }

    /// The room's current state changed.
    pub fn state(room: RoomSid) -> Topic {
        Topic {
            kind: STATE,
            id: room.0,
        }
    }

    /// An event of the room got something that relates to it.
    pub fn relations(room: RoomSid) -> Topic {
        Topic {
            kind: RELATIONS,
            id: room.0,
        }
    }

    /// Someone has read on in the room.
    pub fn receipts(room: RoomSid) -> Topic {
        Topic {
            kind: RECEIPTS,
            id: room.0,
        }
    }

    /// The user has read on in some room.
    pub fn own_receipts(user: UserSid) -> Topic {
        Topic {
            kind: OWN_RECEIPTS,
            id: user.0,
        }
    }

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

    /// Something of the user's own changed: account data, devices.
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
    migrations::ALL
}

// ---------------------------------------------------------------- the whole store (owner: users)

/// Whose store this is, under 0: the name that its user ids end in. One row.
pub const SERVER_NAME: Map<u8, String> = Map::new(Keyspace::Index, 63, "server_name");

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
/// The room in which the server speaks to a user (owner: flows). 8 bytes.
pub const NOTICE_ROOMS: Map<UserSid, RoomSid> = Map::new(Keyspace::Index, 49, "notice_rooms");
/// Events that something relates to, or did before it was redacted, by their ids: a page of events asks here once which of
/// its relations are worth reading. 60 bytes a row.
pub const RELATED: Map<(RoomSid, String), ()> = Map::new(Keyspace::Index, 32, "related");
/// Gaps of the room order: before the event that stands there, events are missing. 100 bytes a row.
pub const GAPS: Map<(RoomSid, RoomOrder), GapRow> = Map::new(Keyspace::Index, 37, "gaps");
/// The missing events of gaps, by their ids, and before which place they belong. 80 bytes a row.
pub const MISSING: Map<(RoomSid, String), RoomOrder> = Map::new(Keyspace::Index, 38, "missing");
/// What a local user may know of a room that this server is not in. 4 kB a row.
pub const OUTSIDE: Map<(UserSid, RoomSid), OutsideRow> = Map::new(Keyspace::Index, 39, "outside");
/// How many users of another server are joined to a room; under the empty name, of all other servers. 50 bytes a row.
pub const JOINED_SERVERS: Map<(RoomSid, String), i64> =
    Map::new(Keyspace::Index, 40, "joined_servers");
/// Joins that another server has been asked for and that are not there yet. 200 bytes a row.
pub const PENDING_JOINS: Map<(RoomSid, UserSid), PendingJoinRow> =
    Map::new(Keyspace::Index, 41, "pending_joins");
/// Member events of local users that another server has let in, and tells the room's other servers of. 10 bytes a row.
pub const TOLD_ELSEWHERE: Map<EventSid, ()> = Map::new(Keyspace::Index, 42, "told_elsewhere");

/// How far each application service was told of the log, by its id. 80 bytes a row.
pub const SERVICES: Map<String, ServiceRow> = Map::new(Keyspace::Index, 44, "services");
/// Users of an application service who are joined to a room, as of the service's cursor. 30 bytes a row.
pub const SERVICE_MEMBERS: Map<(String, RoomSid, UserSid), ()> =
    Map::new(Keyspace::Index, 45, "service_members");
/// Rooms that an application service lists: (service, its name for the network, room). 40 bytes a row.
pub const NETWORK_ROOMS: Map<(String, String, RoomSid), ()> =
    Map::new(Keyspace::Index, 46, "network_rooms");
/// Memberships of local users of rooms that this server is not in, as they came: what the log does not tell. 40 bytes a row.
pub const OUTSIDE_LOG: Map<Position, OutsideLogRow> = Map::new(Keyspace::Stream, 47, "outside_log");

/// Replies in threads, in room order: the id of the thread's root. 80 bytes a row.
pub const THREAD_REPLIES: Map<(RoomSid, RoomOrder), String> =
    Map::new(Keyspace::Stream, 56, "thread_replies");
/// When visible events were sent, in milliseconds, as their servers say. 40 bytes a row.
pub const EVENT_TIMES: Map<(RoomSid, u64, RoomOrder), EventSid> =
    Map::new(Keyspace::Stream, 57, "event_times");

/// What the log does not tell of events: that they were filled in before a gap, or emptied because their time was over. By when that was; the
/// search index reads it beside the log. 20 bytes a row.
pub const PAST: Map<(Position, EventSid), ()> = Map::new(Keyspace::Stream, 58, "past");

/// How far the rooms that do not keep their messages for good were gone through (owner: followers). Of the range of rooms. 30 bytes a row.
pub const RETAINED: Map<RoomSid, RetainedRow> = Map::new(Keyspace::Index, 59, "retained");

// ---------------------------------------------------------------- users (owner: users)

/// A local account. 200 bytes a row.
pub const ACCOUNTS: Map<UserSid, AccountRow> = Map::new(Keyspace::Index, 64, "accounts");
/// Users who ended their account and wanted what they had said erased, and when that was. 8 bytes.
pub const ERASED: Map<UserSid, Position> = Map::new(Keyspace::Index, 48, "erased");
/// Whose account someone has who is known to an identity provider: (the provider's id, what it calls them). Of the range of rooms. 80 bytes a
/// row.
pub const IDENTITIES: Map<(String, String), UserSid> = Map::new(Keyspace::Index, 8, "identities");
/// The same by user. Of the range of rooms. 80 bytes a row.
pub const USER_IDENTITIES: Map<(UserSid, String, String), ()> =
    Map::new(Keyspace::Index, 9, "user_identities");
/// Local accounts that are guests. Of the range of rooms. 8 bytes a row.
pub const GUESTS: Map<UserSid, ()> = Map::new(Keyspace::Index, 7, "guests");
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
/// Tokens that let another device log in: (expiry in milliseconds since the Unix epoch, SHA-256 of the token). 45 bytes a row, kept
/// two minutes.
pub const LOGIN_TOKENS: Map<(u64, [u8; 32]), UserSid> =
    Map::new(Keyspace::Index, 74, "login_tokens");
/// A user's pushers; users without have no row. 500 bytes a pusher, thirty at most.
pub const PUSHERS: Map<UserSid, PushersRow> = Map::new(Keyspace::Index, 94, "pushers");
/// Local parts in lower case that are taken. 40 bytes a row.
pub const TAKEN_NAMES: Map<String, UserSid> = Map::new(Keyspace::Index, 73, "taken_names");

/// A user's e-mail addresses, canonical. 60 bytes a row.
pub const EMAILS: Map<(UserSid, String), EmailRow> = Map::new(Keyspace::Index, 75, "emails");
/// Whose an e-mail address is: one account's at most. 50 bytes a row.
pub const EMAIL_OWNERS: Map<String, UserSid> = Map::new(Keyspace::Index, 95, "email_owners");
/// Attempts to show that an e-mail address is one's own: (expiry in milliseconds since the Unix epoch, session id). Of the range of
/// rooms, where numbers are left. 250 bytes a row, kept a day.
pub const EMAIL_SESSIONS: Map<(u64, String), EmailSessionRow> =
    Map::new(Keyspace::Index, 60, "email_sessions");
/// The session of a client's secret, an address and a purpose, by the SHA-256 of these. Of the range of rooms. 80 bytes a row.
pub const EMAIL_SESSIONS_ASKED: Map<[u8; 32], String> =
    Map::new(Keyspace::Index, 61, "email_sessions_asked");

// ---------------------------------------------------------------- end-to-end encryption (owner: e2ee)

/// A device's identity keys. 600 bytes a row.
pub const DEVICE_KEYS: Map<(UserSid, String), SignedRow> =
    Map::new(Keyspace::Index, 76, "device_keys");
/// One-time keys that were not handed out, in the order they came. 300 bytes a row, some 50 a device.
pub const ONE_TIME_KEYS: Map<OneTimeKeyKey, String> =
    Map::new(Keyspace::Index, 77, "one_time_keys");
/// (user, device, algorithm, when it was uploaded, key id).
pub type OneTimeKeyKey = (UserSid, String, String, Position, String);
/// Hashes of one-time keys that were handed out, so that an upload which is repeated brings none of them back. 60 bytes a
/// row, some hundred a device.
pub const CLAIMED_KEYS: Map<(UserSid, String, Position, [u8; 32]), ()> =
    Map::new(Keyspace::Index, 78, "claimed_keys");
/// What a device has left of one-time and fallback keys. The row that every upload and claim asserts. 80 bytes a row.
pub const KEY_STATES: Map<(UserSid, String), KeyStateRow> =
    Map::new(Keyspace::Index, 79, "key_states");
/// A device's fallback key of an algorithm. 350 bytes a row.
pub const FALLBACK_KEYS: Map<(UserSid, String, String), FallbackKeyRow> =
    Map::new(Keyspace::Index, 80, "fallback_keys");
/// A user's cross-signing keys. 400 bytes a row, at most three a user.
pub const CROSS_SIGNING_KEYS: Map<(UserSid, KeyUsage), SignedRow> =
    Map::new(Keyspace::Index, 81, "cross_signing_keys");
/// Whose master keys a user has signed: (signer, signed user, the master key). Only the signer sees it. 200 bytes a row.
pub const USER_SIGNATURES: Map<(UserSid, UserSid, String), UserSignatureRow> =
    Map::new(Keyspace::Index, 82, "user_signatures");
/// When a user signed whose master key. 30 bytes a row.
pub const USER_SIGNATURE_LOG: Map<(UserSid, Position, UserSid), ()> =
    Map::new(Keyspace::Stream, 83, "user_signature_log");
/// When a user's devices or cross-signing keys last changed. 20 bytes a row.
pub const DEVICE_LISTS: Map<UserSid, Position> = Map::new(Keyspace::Index, 84, "device_lists");
/// Whose devices or cross-signing keys changed when; one row a user, the newest. 20 bytes a row.
pub const DEVICE_LIST_LOG: Map<(Position, UserSid), ()> =
    Map::new(Keyspace::Stream, 85, "device_list_log");
/// Messages that wait for a device: the event, as JSON. 1 kB a row (at most 66 kB).
pub const INBOX: Map<(UserSid, String, Position), String> = Map::new(Keyspace::Stream, 86, "inbox");
/// The versions of a user's key backup. 300 bytes a row.
pub const BACKUPS: Map<(UserSid, u64), BackupRow> = Map::new(Keyspace::Index, 87, "backups");
/// The keys of a backup: (user, version, room id, session id). 600 bytes a row, thousands a user.
pub const BACKUP_KEYS: Map<(UserSid, u64, String, String), BackupKeyRow> =
    Map::new(Keyspace::Bulk, 88, "backup_keys");
/// A user's dehydrated device. 5 kB a row.
pub const DEHYDRATED: Map<UserSid, DehydratedRow> = Map::new(Keyspace::Index, 89, "dehydrated");
/// Keys of local users that changed and that other servers have not been told of: (user, device), or (user, "") for the
/// cross-signing keys. The federation sender's neighbour `key_news` takes them out. 40 bytes a row.
pub const KEY_NEWS: Map<(UserSid, String), Position> = Map::new(Keyspace::Index, 90, "key_news");
/// What is known of the devices of a user of another server; the keys are in [`DEVICE_KEYS`] and [`CROSS_SIGNING_KEYS`].
/// 200 bytes a row.
pub const REMOTE_LISTS: Map<UserSid, RemoteListRow> = Map::new(Keyspace::Index, 91, "remote_lists");
/// The number of the last unit that told other servers of a local user's keys. 15 bytes a row.
pub const TOLD_LISTS: Map<UserSid, Position> = Map::new(Keyspace::Index, 93, "told_lists");
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

/// When media was last read, to a day: (server name, media id). No row: not since the day after it came. 80 bytes a row.
pub const MEDIA_READS: Map<(String, String), u64> = Map::new(Keyspace::Index, 103, "media_reads");

/// Media that is kept from everyone, whether it is here or not: (server name, media id). 110 bytes a row.
pub const QUARANTINED: Map<(String, String), QuarantineRow> =
    Map::new(Keyspace::Index, 104, "quarantined");
/// How many bytes a local user's media has. 45 bytes a row.
pub const USER_MEDIA_BYTES: Map<String, i64> = Map::new(Keyspace::Index, 105, "user_media_bytes");
/// Events that show media, as of the cursor of the follower `media_shown` (owner: followers): (server name, media id, event). 90 bytes a row.
pub const MEDIA_SHOWN: Map<(String, String, EventSid), ()> =
    Map::new(Keyspace::Index, 106, "media_shown");
/// The same by event (owner: followers). 90 bytes a row.
pub const SHOWN_MEDIA: Map<(EventSid, String, String), ()> =
    Map::new(Keyspace::Index, 107, "shown_media");
/// Media that was shown by an event that is empty now, and when the last such event was found so, in milliseconds since the Unix epoch (owner:
/// followers): (server name, media id). 90 bytes a row.
pub const RETRACTED_MEDIA: Map<(String, String), u64> =
    Map::new(Keyspace::Index, 108, "retracted_media");

// ---------------------------------------------------------------- other servers (owner: remote)

/// What a server has last published of its keys, by its name. 600 bytes a row.
pub const KEY_DOCUMENTS: Map<String, KeyDocumentRow> =
    Map::new(Keyspace::Index, 34, "key_documents");
/// OpenID tokens: (expiry in milliseconds since the Unix epoch, SHA-256 of the token). 45 bytes a row, kept an hour.
pub const OPENID_TOKENS: Map<(u64, [u8; 32]), UserSid> =
    Map::new(Keyspace::Index, 35, "openid_tokens");
/// Transactions that were taken from other servers, and their answers: (day, server, transaction id). 120 bytes a row and 60 an
/// event, kept two days.
pub const IN_TRANSACTIONS: Map<(u64, String, String), InTransactionRow> =
    Map::new(Keyspace::Index, 36, "in_transactions");
/// Servers that do not answer, by name. 120 bytes a row.
pub const BACKOFFS: Map<String, BackoffRow> = Map::new(Keyspace::Index, 110, "backoffs");
/// Signing keys: (server name, key id). Of this server too, so that a key it no longer uses still verifies. 100 bytes a row.
pub const SERVER_KEYS: Map<(String, String), ServerKeyRow> =
    Map::new(Keyspace::Index, 111, "server_keys");

// ---------------------------------------------------------------- followers (owner: followers)

/// How far each follower is, by its name. 20 bytes a row.
pub const FOLLOWERS: Map<String, FollowerRow> = Map::new(Keyspace::Index, 112, "followers");
/// Items that a follower could not deal with, and why: (follower, position). 200 bytes a row.
pub const SET_ASIDE: Map<(String, Position), String> = Map::new(Keyspace::Index, 113, "set_aside");
/// The other servers of a room, as of the federation sender's cursor. 60 bytes a row.
pub const ROOM_SERVERS: Map<(RoomSid, String), RoomServerRow> =
    Map::new(Keyspace::Index, 114, "room_servers");
/// The rooms of another server: those it is in, and those it left with something still to be told. 40 bytes a row.
pub const SERVER_ROOMS: Map<(String, RoomSid), ()> = Map::new(Keyspace::Index, 115, "server_rooms");
/// What other servers are to be told of a room: events of local users, and relayed ones. 35 bytes a row.
pub const OUTBOX: Map<(RoomSid, Position), EventSid> = Map::new(Keyspace::Stream, 116, "outbox");
/// Servers that are sent to. 60 bytes a row.
pub const DESTINATIONS: Map<String, DestinationRow> =
    Map::new(Keyspace::Index, 117, "destinations");
/// The transaction that a server has not taken yet. At most 80 kB a row, one a server.
pub const OUT_TRANSACTIONS: Map<String, OutTransactionRow> =
    Map::new(Keyspace::Index, 118, "out_transactions");
/// Events of other servers' users that this server tells the room's other servers of: those it let in itself (`send_join` and its
/// like). Written in the batch that makes the event visible, read by the federation sender. 10 bytes a row.
pub const RELAYED: Map<EventSid, ()> = Map::new(Keyspace::Index, 119, "relayed");
/// Units that must reach other servers (to-device messages, device lists), as JSON of an EDU: (server, position, a number within the
/// batch). Whoever writes some wakes [`topic::elsewhere`]; the federation sender moves them into transactions. 1 kB a row, 60 kB at most.
pub const EDU_OUTBOX: Map<(String, Position, u64), String> =
    Map::new(Keyspace::Stream, 120, "edu_outbox");
/// The transaction that an application service has not taken yet, by its id. 1 kB a row (at most 65 kB), one a service.
pub const SERVICE_TRANSACTIONS: Map<String, ServiceTransactionRow> =
    Map::new(Keyspace::Index, 126, "service_transactions");
/// How far a pusher is. Made and deleted with it, and also the way from a pushkey to its users. 80 bytes a row.
pub const PUSHER_STATES: Map<PusherKey, PusherStateRow> =
    Map::new(Keyspace::Index, 122, "pusher_states");
/// The users with pushers in a room, as of the cursor of the follower `notices`; of no room (number zero), users whose rooms are not
/// entered yet. 20 bytes a row.
pub const SUBSCRIBED: Map<(RoomSid, UserSid), ()> = Map::new(Keyspace::Index, 123, "subscribed");
/// What users with pushers are notified of and have not read, by when it happened. 100 bytes a row, some hundreds a user.
pub const NOTICES: Map<(UserSid, Position), NoticeRow> = Map::new(Keyspace::Stream, 124, "notices");
/// Invites to rooms that this server is not in, which stand in no log; `notices` takes them out. 25 bytes a row.
pub const OUTSIDE_INVITES: Map<(Position, UserSid), RoomSid> =
    Map::new(Keyspace::Stream, 125, "outside_invites");

// ---------------------------------------------------------------- mail (owner: mail)

/// Mail that waits to be sent: (0 urgent, 1 other; when it is due, in milliseconds since the Unix epoch; Message-ID). 5 kB a row,
/// 100 kB at most.
pub const MAIL_QUEUE: Map<(u64, u64, String), MailRow> =
    Map::new(Keyspace::Index, 121, "mail_queue");
/// What became of mail: (0 sent, 1 failed; when, in milliseconds since the Unix epoch; Message-ID). Of the range of rooms. 100 bytes a
/// row; kept an hour if it was sent, else thirty days.
pub const MAIL_OUTCOMES: Map<(u64, u64, String), MailOutcomeRow> =
    Map::new(Keyspace::Index, 62, "mail_outcomes");
/// What letters have told a user at an address; made with the first, deleted with the pusher. 30 bytes a room that was told of and not read.
pub const TOLD_BY_MAIL: Map<(UserSid, String), ToldRow> =
    Map::new(Keyspace::Index, 127, "told_by_mail");
