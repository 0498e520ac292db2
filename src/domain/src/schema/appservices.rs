//! Row types of application services.

use serde::{Deserialize, Serialize};
use vatra_store::{Position, impl_value};

use super::{EventSid, RoomSid, UserSid};

/// How far an application service was told of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// What is at or before it was told, is in the transaction that waits, or is of no interest.
    pub cursor: Position,
    /// Which users the rows of [`super::SERVICE_MEMBERS`] were written for.
    pub fingerprint: [u8; 32],
    /// How many items of the log could not be dealt with.
    pub set_aside: u64,
    /// How often in a row it has not taken the transaction that waits.
    pub failures: u32,
    /// When it is tried again, in milliseconds since the Unix epoch.
    pub retry_at: u64,
    /// Why it did not take it.
    pub error: Option<String>,
}
impl_value!(ServiceRow);

/// A transaction that a service has not taken yet: its content never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTransactionRow {
    /// Its id.
    pub id: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made: u64,
    /// Its events, in the order of the log.
    pub events: Vec<EventSid>,
    /// Units of what passes, as JSON; at most about 60 kB.
    pub ephemeral: Vec<String>,
}
impl_value!(ServiceTransactionRow);

/// A membership of a local user of a room that this server is not in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideLogRow {
    /// Whose.
    pub user: UserSid,
    /// Of which room.
    pub room: RoomSid,
    /// The member event.
    pub event: EventSid,
}
impl_value!(OutsideLogRow);
