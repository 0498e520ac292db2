//! Short ids: what the rows call users, rooms, events and state keys.

use serde::{Deserialize, Serialize};
use vatra_store::{impl_value, key_newtype};

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);
        key_newtype!($name(u64));
        impl_value!($name);
    };
}

sid! {
    /// A user known to this server, local or not.
    UserSid
}
sid! {
    /// A room known to this server.
    RoomSid
}
sid! {
    /// An event stored or mentioned.
    EventSid
}
sid! {
    /// A pair of event type and state key.
    StateKeySid
}
sid! {
    /// A node of a state tree. Never reused.
    NodeId
}
sid! {
    /// Where an event stands in its room. Live events are [`RoomOrder::STRIDE`] apart, so that events that arrive
    /// late find room before the gap they fill. Larger is newer; means nothing outside its room.
    RoomOrder
}

impl RoomOrder {
    /// The order of a room's first event.
    pub const FIRST: RoomOrder = RoomOrder(1 << 62);
    /// The distance between two live events.
    pub const STRIDE: u64 = 1 << 20;

    /// The order of the next live event.
    pub fn next(self) -> RoomOrder {
        RoomOrder(self.0.saturating_add(Self::STRIDE))
    }
}
