//! How long what is said in a room is kept.

use serde::Deserialize;

use crate::clock::Millis;

/// The server's policy, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long it is in rooms that say nothing of it; for good, if absent.
    pub default: Option<Millis>,
    /// No room's messages are emptied sooner.
    pub least: Option<Millis>,
    /// The messages of rooms with a policy are emptied no later.
    pub most: Option<Millis>,
}

/// The content of `m.room.retention`, of which nonsense is no policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(super) struct OfRoom {
    /// How long messages are kept at most.
    #[serde(default)]
    pub(super) max_lifetime: Option<Millis>,
    /// How long they are kept at least.
    #[serde(default)]
    pub(super) min_lifetime: Option<Millis>,
}

impl Policy {
    /// After how long messages of a room are emptied; `None` is never.
    pub(super) fn lifetime(&self, room: Option<OfRoom>) -> Option<Millis> {
        let sound = |room: &OfRoom| match (room.min_lifetime, room.max_lifetime) {
            (Some(min), Some(max)) => min <= max,
            _ => true,
        };
        let room = room.filter(sound).unwrap_or_default();
        let max = match room.max_lifetime {
            Some(max) => Some(self.most.map_or(max, |most| max.min(most))),
            None => self.default,
        };
        let least = self.least.max(room.min_lifetime);
        // The server's own bound counts for more than a room's.
        let least = match self.most {
            Some(most) => least.map(|least| least.min(most)),
            None => least,
        };
        max.map(|max| max.max(least.unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rooms_policy_holds_within_the_servers() {
        let server = Policy {
            default: Some(50),
            least: Some(10),
            most: Some(100),
        };
        let room = |min, max| {
            Some(OfRoom {
                min_lifetime: min,
                max_lifetime: max,
            })
        };
        for (policy, room, expected) in [
            (server, None, Some(50)),
            (server, room(None, None), Some(50)),
            (server, room(None, Some(70)), Some(70)),
            (server, room(None, Some(1)), Some(10)),
            (server, room(None, Some(1_000)), Some(100)),
            (server, room(Some(60), None), Some(60)),
            (server, room(Some(1_000), None), Some(100)),
            // Nonsense is no policy.
            (server, room(Some(70), Some(60)), Some(50)),
            (Policy::default(), None, None),
            (Policy::default(), room(Some(5), None), None),
            (Policy::default(), room(Some(5), Some(7)), Some(7)),
        ] {
            assert_eq!(policy.lifetime(room), expected, "{room:?}");
        }
    }
}
