//! Push rules: what an event means to one user. Pure: everything it needs is handed in.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules>. Called by `rooms::unread` and by the followers that deliver.

use futures::FutureExt;
use ruma::{
    OwnedRoomId, OwnedUserId, UInt,
    events::{AnySyncTimelineEvent, room::power_levels::RoomPowerLevels},
    push::{Action, PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset},
    serde::Raw,
};

use crate::event::{client::client_json, pdu::Pdu};

/// What the rules may ask about the user and the room.
#[derive(Debug, Clone)]
pub struct Context {
    /// Whose rules.
    pub user: OwnedUserId,
    /// What the user is called in the room.
    pub display_name: String,
    /// How many are in the room.
    pub members: u64,
    /// The power levels, if they can be read.
    pub power: Option<RoomPowerLevels>,
    /// The room.
    pub room: OwnedRoomId,
}

/// What the rules say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The user is to be told.
    pub notify: bool,
    /// And so that it stands out.
    pub highlight: bool,
}

/// Judges an event by a user's rules. One's own events never notify.
pub fn evaluate(rules: &Ruleset, pdu: &Pdu, context: &Context) -> Outcome {
    let event: Raw<AnySyncTimelineEvent> = Raw::from_json(client_json(pdu, true, None));
    let room = PushConditionRoomCtx::new(
        context.room.clone(),
        UInt::new_saturating(context.members),
        context.user.clone(),
        context.display_name.clone(),
    );
    let room = match &context.power {
        Some(power) => room.with_power_levels(PushConditionPowerLevelsCtx::from(power.clone())),
        None => room,
    };
    // Asynchronous only for thread subscriptions, which are not asked for: the future is ready at once.
    let Some(actions) = rules.get_actions(&event, &room).now_or_never() else {
        return Outcome::default();
    };
    let notify = actions.iter().any(Action::should_notify);
    Outcome {
        notify,
        highlight: notify && actions.iter().any(Action::is_highlight),
    }
}
