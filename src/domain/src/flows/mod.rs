//! Operations that span modules, one file each. A flow calls down and nobody below calls it.
//!
//! - [`appservices`]: what bridges are asked: users and aliases that they may make, their networks
//! - [`create_room`]: a room and its first events, under one guard
//! - [`directory`]: aliases; [`public_rooms`]: the list of rooms
//! - [`elsewhere`]: aliases, profiles and lists of rooms of other servers
//! - [`guests`]: which rooms they may join, and how long they stay
//! - [`join`], [`leave`], [`knock`], [`invite`]: the same wherever the room or the user is; `template` asks other servers
//! - [`backfill`]: what came before, from other servers; [`at_time`]: the event nearest to a moment, also there
//! - [`keys`]: keys of users and messages to devices, wherever the users live
//! - [`membership`]: invite, join, knock, leave, kick, ban, unban, forget; [`member_state`]: the same as a state event
//! - [`notifications`]: the list of what a user was notified of
//! - [`profile`]: a changed name or picture shown in the user's rooms
//! - [`received`]: what follows from events of other servers
//! - [`purge_media`]: files that are too old, or too many
//! - [`reports`]: what people report to the admins; [`user_directory`]: finding people
//! - [`server_notices`]: what the server itself has to say to its users
//! - [`spaces`]: what a room looks like from outside, and the tree under a space
//! - [`suspended`]: what a suspended user may still send
//! - [`upgrade`]: a room in the place of another; [`settings`]: what its members had set goes over

pub mod appservices;
pub mod at_time;
pub mod backfill;
pub mod create_room;
pub mod directory;
pub mod elsewhere;
pub mod guests;
pub mod invite;
pub mod join;
pub mod keys;
pub mod knock;
pub mod leave;
pub mod member_state;
pub mod membership;
pub mod notifications;
pub mod profile;
pub mod public_rooms;
pub mod purge_media;
pub mod received;
pub mod reports;
pub mod server_notices;
pub mod settings;
pub mod spaces;
pub mod suspended;
mod template;
#[cfg(test)]
mod tests;
pub mod upgrade;
mod upgraded_levels;
pub mod user_directory;

use ruma::CanonicalJsonObject;

use crate::{
    appservice::Exclusive,
    remote::RemoteError,
    rooms::{RoomError, receive::ReceiveError},
    users::UsersError,
};

/// Why a flow ended.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// Something about a room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Something about a user.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// Another server did not do its part.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// What another server tells of a room cannot be used.
    #[error(transparent)]
    Receive(ReceiveError),
    /// No server that could be asked is known.
    #[error("no server is known that is in that room")]
    NoServers,
    /// The request asks for a state that the room cannot have.
    #[error("{0}")]
    InvalidRoomState(String),
    /// The request is not of the right shape.
    #[error("{0}")]
    BadRequest(String),
    /// The alias points somewhere already.
    #[error("the room alias is taken")]
    AliasTaken,
    /// The alias is an application service's, or none of its own.
    #[error(transparent)]
    Exclusive(#[from] Exclusive),
    /// A parameter is not what it should be.
    #[error("{0}")]
    InvalidParam(String),
    /// A canonical alias that does not point to its room.
    #[error("{0}")]
    BadAlias(String),
    /// Only a room that was left can be forgotten.
    #[error("you are still in that room")]
    StillThere,
    /// No such alias, or not on this server.
    #[error("no such room alias")]
    UnknownAlias,
    /// It is the room in which the server speaks to the user.
    #[error("an invite to the server's notices cannot be refused")]
    ServerNotices,
    /// The room lets no guests in, or another server would have to be asked.
    #[error("guests cannot join that room: register to join it")]
    NoGuests,
    /// The user wants no invites.
    #[error("that user takes no invites")]
    InviteBlocked,
    /// What is asked for cannot be done in the room's present state (unbanning who is not banned).
    #[error("{0}")]
    BadState(String),
}

impl From<ReceiveError> for FlowError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Room(error) => Self::Room(error),
            ReceiveError::Policy(error) => Self::Remote(error),
            other => Self::Receive(other),
        }
    }
}

impl From<vatra_store::StoreError> for FlowError {
    fn from(error: vatra_store::StoreError) -> Self {
        Self::Room(error.into())
    }
}

impl From<vatra_store::CommitError> for FlowError {
    fn from(error: vatra_store::CommitError) -> Self {
        Self::Room(error.into())
    }
}

/// A JSON object as event content. Numbers that canonical JSON cannot hold are the sender's mistake.
pub fn content(value: serde_json::Value) -> Result<CanonicalJsonObject, FlowError> {
    serde_json::from_value(value)
        .map_err(|error| FlowError::BadRequest(format!("not canonical JSON: {error}")))
}
