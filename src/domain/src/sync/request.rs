//! What a client asks of /sync.

use std::time::Duration;

use ruma::api::client::filter::FilterDefinition;

use super::token::SyncToken;

/// Where the client wants the state of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateField {
    /// `state`: before the timeline.
    #[default]
    Before,
    /// `state_after`: after the timeline.
    After,
    /// The same, by the name it had before the spec took it.
    AfterUnstable,
}

/// One /sync request, with its filter resolved.
#[derive(Debug, Clone, Default)]
pub struct SyncRequest {
    /// How far the client has read; `None` for a first sync.
    pub since: Option<SyncToken>,
    /// How long to wait when there is nothing new.
    pub timeout: Duration,
    /// The whole state of every room, and an answer at once.
    pub full_state: bool,
    /// What the client wants to see.
    pub filter: FilterDefinition,
    /// Events name their room, as they do everywhere but in /sync.
    pub room_ids: bool,
    /// Where it wants the state.
    pub state: StateField,
}
