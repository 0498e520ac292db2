//! Row types of accounts.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vatra_store::{DecodeError, Position, Value, impl_value};

use super::{RoomSid, UserSid};

/// A local account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// The argon2id hash of the password, in PHC form; `None` when there is none to log in with.
    pub password: Option<String>,
    /// May use the admin API.
    pub admin: bool,
    /// Gone for good; the name is not given again.
    pub deactivated: bool,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created: u64,
    /// What only some accounts are.
    #[serde(skip)]
    pub flags: AccountFlags,
}

/// What a row of an account says at its end, if there is anything to say: older rows have none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountFlags {
    /// An admin keeps its user out, who keeps their sessions.
    pub locked: bool,
    /// An admin lets its user read, and hardly write.
    pub suspended: bool,
}

impl AccountFlags {
    const LOCKED: u8 = 1;
    const SUSPENDED: u8 = 2;

    fn bits(self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.locked, Self::LOCKED) | bit(self.suspended, Self::SUSPENDED)
    }

    fn of_bits(bits: u8) -> Self {
        Self {
            locked: bits & Self::LOCKED != 0,
            suspended: bits & Self::SUSPENDED != 0,
        }
    }
}

/// The row without its flags.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct AccountHead(AccountRow);
impl_value!(AccountHead);

impl Value for AccountRow {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = AccountHead(self.clone()).to_bytes();
        if self.flags != AccountFlags::default() {
            bytes.push(self.flags.bits());
        }
        bytes
    }

    fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        // A head is as long as it says: no row is both a head and a head with flags.
        let whole = AccountHead::from_bytes(bytes.clone());
        if let (Err(_), Some((flags, head))) = (&whole, bytes.split_last()) {
            let AccountHead(mut row) = AccountHead::from_bytes(Bytes::copy_from_slice(head))?;
            row.flags = AccountFlags::of_bits(*flags);
            return Ok(row);
        }
        whole.map(|AccountHead(row)| row)
    }
}

/// What is reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reported {
    /// An event of a room, by their ids.
    Event {
        /// The room.
        room: String,
        /// The event.
        event: String,
    },
    /// A room, by its id.
    Room(String),
    /// A user, by their id.
    User(String),
}

/// A report to the server's admins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRow {
    /// Of what.
    pub about: Reported,
    /// Why; empty if that was not said.
    pub reason: String,
    /// When, in milliseconds since the Unix epoch.
    pub ts: u64,
}
impl_value!(ReportRow);

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    /// What its user calls it.
    pub display_name: Option<String>,
    /// When it was last seen; written at most once in five minutes.
    pub last_seen: Option<u64>,
    /// From where it was last seen.
    pub last_seen_ip: Option<String>,
}
impl_value!(DeviceRow);

/// How a pusher notifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PusherKind {
    /// By a push gateway.
    Http {
        /// Where it takes notifications.
        url: String,
    },
    /// By letters to the address that is the pushkey.
    Email {
        /// What the links of its letters hold that stop them.
        unsubscribe: String,
    },
}

/// What notifies a user of what they have not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PusherRow {
    /// Which application it is of.
    pub app_id: String,
    /// What the gateway knows it by.
    pub pushkey: String,
    /// How it notifies.
    pub kind: PusherKind,
    /// What the application is called.
    pub app_display_name: String,
    /// What the device is called.
    pub device_display_name: String,
    /// Which set of rules it is for.
    pub profile_tag: Option<String>,
    /// The language of what it shows.
    pub lang: String,
    /// What the client has to say to the gateway: a JSON object, without the URL.
    pub data: String,
    /// The device that set it, with which it goes; `None` if it belongs to the account.
    pub device: Option<String>,
    /// When it was last set, in milliseconds since the Unix epoch.
    pub set_at: u64,
    /// What happened up to here is not for it.
    pub since: Position,
}

/// All pushers of a user, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushersRow {
    /// At least one.
    pub pushers: Vec<PusherRow>,
}
impl_value!(PushersRow);

/// A pusher: (application id, pushkey, user).
pub type PusherKey = (String, String, UserSid);

/// An access token, kept under its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Whose.
    pub user: UserSid,
    /// Of which device.
    pub device: String,
    /// When it ends, in milliseconds since the Unix epoch; `None` for never.
    pub expires: Option<u64>,
    /// The hash of the refresh token that came with it.
    pub refresh: Option<[u8; 32]>,
    /// The hash of the refresh token it was got with: that one ends when this token is first used.
    pub replaces: Option<[u8; 32]>,
}
impl_value!(TokenRow);

/// A refresh token, kept under its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshRow {
    /// Whose.
    pub user: UserSid,
    /// Of which device.
    pub device: String,
    /// The access token it came with.
    pub access: [u8; 32],
}
impl_value!(RefreshRow);

/// One piece of account data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDataRow {
    /// When it was set.
    pub position: Position,
    /// The content, as JSON.
    pub content: String,
}
impl_value!(AccountDataRow);

/// Which account data a position set.
pub type AccountDataKey = (UserSid, RoomSid, String);

/// The room of account data that belongs to no room.
pub const GLOBAL: RoomSid = RoomSid(0);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_account_is_read_as_it_was_written_with_flags_and_from_before_there_were_any() {
        let mut row = AccountRow {
            password: Some("hash".to_owned()),
            admin: true,
            deactivated: false,
            created: 1_700_000_000_000,
            flags: AccountFlags::default(),
        };
        let plain = AccountHead(row.clone()).to_bytes();
        assert_eq!(row.to_bytes(), plain);
        assert_eq!(AccountRow::from_bytes(plain.clone().into()).unwrap(), row);
        for bits in 1..=3 {
            row.flags = AccountFlags::of_bits(bits);
            assert_eq!(AccountRow::from_bytes(row.to_bytes().into()).unwrap(), row);
        }
        for length in 0..plain.len() {
            let cut = Bytes::copy_from_slice(plain.get(..length).unwrap());
            assert!(AccountRow::from_bytes(cut).is_err());
        }
    }
}
