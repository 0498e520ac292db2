//! Row types of mail and of e-mail addresses.

use serde::{Deserialize, Serialize};
use vatra_store::{Position, impl_value};

use super::RoomSid;

/// Mail that waits to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailRow {
    /// To whom: one address.
    pub to: String,
    /// The subject: one line.
    pub subject: String,
    /// The content as plain text.
    pub text: String,
    /// The content as HTML.
    pub html: String,
    /// The Message-ID of the mail that it follows.
    pub follows: Option<String>,
    /// The list that it belongs to.
    pub list: Option<MailListRow>,
    /// Since when it could have been sent, in milliseconds since the Unix epoch.
    pub since: u64,
    /// From when on it is not worth sending, in milliseconds since the Unix epoch.
    pub give_up: u64,
    /// How often the mail server has put it off.
    pub attempts: u32,
}
impl_value!(MailRow);

/// A list of mail, which people can leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailListRow {
    /// Its name, as in `notifications.example.org`.
    pub id: String,
    /// The URL that takes one POST to leave it (RFC 8058).
    pub unsubscribe: String,
}

/// What became of mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailOutcomeRow {
    /// Why it was not sent; `None` if it was.
    pub error: Option<String>,
}
impl_value!(MailOutcomeRow);

/// An e-mail address of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailRow {
    /// When its owner showed that it is theirs, in milliseconds since the Unix epoch.
    pub validated: u64,
    /// When it became part of the account.
    pub added: u64,
}
impl_value!(EmailRow);

/// What an address is validated for. A session serves one purpose only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EmailPurpose {
    /// A new account.
    Register,
    /// A new password.
    Password,
    /// An address more for an account.
    Add,
}

/// An attempt to show that an e-mail address is one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailSessionRow {
    /// For what.
    pub purpose: EmailPurpose,
    /// The address, canonical.
    pub address: String,
    /// The SHA-256 of purpose, client's secret and address: also the key of the row that finds this one.
    pub asked: [u8; 32],
    /// The SHA-256 of the client's secret.
    pub secret: [u8; 32],
    /// The last `send_attempt`.
    pub attempt: u64,
    /// The SHA-256 of the token in the newest mail; `None` if it was used, or if the mail held none.
    pub token: Option<[u8; 32]>,
    /// Until when the token is good, in milliseconds since the Unix epoch.
    pub token_until: u64,
    /// When the address was validated.
    pub validated: Option<u64>,
    /// Where the browser goes then.
    pub next_link: Option<String>,
}
impl_value!(EmailSessionRow);

/// What letters have told the owner of an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldRow {
    /// A letter with everything up to here is being sent, or was: what it holds grows no more, so that it keeps its Message-ID.
    pub sending: Option<Position>,
    /// What was told of rooms and has not been read since.
    pub rooms: Vec<ToldRoom>,
}
impl_value!(ToldRow);

/// A room of which a letter has told, to no avail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldRoom {
    /// The room.
    pub room: RoomSid,
    /// The newest that was told.
    pub upto: Position,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// How long nothing more is told of it, in milliseconds.
    pub rest: u64,
}
