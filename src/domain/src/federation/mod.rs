//! What other servers send and ask: the inbound half of federation.
//!
//! | module | what |
//! |---|---|
//! | [`acl`] | which servers a room lets in |
//! | [`transaction`] | what a server tells: taken once, room by room |
//! | [`edus`] | what passes: typing, receipts, presence |
//! | `inbound` | events of rooms, as they are sent |
//! | [`membership`], [`invite`] | joining, leaving, knocking, inviting |
//! | [`history`], `at_time` | events, states, what came before and what stands nearest to a moment, for those who may see it |
//! | `access` | which server may ask about which room, and what it sees |
//! | [`devices`] | changed keys of its users, and messages to devices of this server |
//!
//! Called by the handlers of the server-server API, which have proven who asks. Invariants: nothing that a server says about
//! another server's users is believed; one slow or hostile server holds up nobody else.

mod access;
pub mod acl;
mod at_time;
pub mod devices;
pub mod edus;
mod error;
pub mod history;
mod inbound;
pub mod invite;
pub mod membership;
#[cfg(test)]
mod tests;
pub mod transaction;

pub use self::error::FederationError;
use crate::{rooms::receive::Receiver, users::Users};

/// Answers other servers. Cheap to clone.
#[derive(Clone)]
pub struct Federation {
    receiver: Receiver,
    users: Users,
}

impl Federation {
    /// Answers about the receiver's rooms, and these users.
    pub fn new(receiver: Receiver, users: Users) -> Self {
        Self { receiver, users }
    }
}
