//! Who may do what in a room: the power levels in force, with the creators' privilege of room version 12.

use std::sync::Arc;

use ruma::{
    OwnedUserId,
    events::{
        StateEventType,
        room::power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource},
    },
    room_version_rules::AuthorizationRules,
    state_res::events::RoomCreateEvent,
};

use super::{Room, RoomError, RoomGuard};
use crate::event::pdu::Pdu;

/// The power levels that a create event and a power levels event (or its absence) give.
///
/// # Errors
/// [`RoomError::Forbidden`] when one of them cannot be read; then nobody has power.
pub fn power_levels(
    create: &Pdu,
    levels: Option<&Pdu>,
    rules: &AuthorizationRules,
) -> Result<RoomPowerLevels, RoomError> {
    let unreadable = |error: String| {
        RoomError::Forbidden(format!("the room's power levels cannot be read: {error}"))
    };
    let creators = RoomCreateEvent::new(create)
        .creators(rules)
        .map_err(unreadable)?;
    let source = match levels {
        Some(levels) => {
            let content: RoomPowerLevelsEventContent = levels
                .content_as()
                .map_err(|error| unreadable(error.to_string()))?;
            RoomPowerLevelsSource::Original(content)
        }
        None => RoomPowerLevelsSource::None,
    };
    Ok(RoomPowerLevels::new(
        source,
        rules,
        creators.into_iter().collect::<Vec<OwnedUserId>>(),
    ))
}

impl RoomGuard {
    /// The power levels in force now.
    pub async fn power_levels(&mut self) -> Result<RoomPowerLevels, RoomError> {
        let create = self
            .state_event(&StateEventType::RoomCreate, "")
            .await?
            .ok_or(RoomError::UnknownRoom)?;
        let levels = self
            .state_event(&StateEventType::RoomPowerLevels, "")
            .await?;
        let room: Arc<Room> = Arc::clone(&self.room);
        power_levels(
            &create.pdu,
            levels.as_ref().map(|event| &*event.pdu),
            &room.rules.authorization,
        )
    }
}
