//! What passes: typing, receipts, presence.
//!
//! Typing and presence live in memory and take positions without rows: an empty batch whose position is written down before
//! the watermark shows it. Receipts are rows, one for each user, type and thread of a room.

mod presence;
mod receipts;
mod typing;

use vatra_store::Store;

pub use self::{
    presence::{MAX_STATUS, Presence, Presences},
    receipts::Receipts,
    typing::Typing,
};
use crate::clock::SharedClock;

/// Typing, receipts and presence. Cheap to clone.
#[derive(Clone)]
pub struct Ephemeral {
    /// Who types where.
    pub typing: Typing,
    /// Who has read what.
    pub receipts: Receipts,
    /// Who is there.
    pub presence: Presences,
}

impl Ephemeral {
    /// Of the rooms in `store`; presence only if it is `enabled`.
    pub fn new(store: Store, clock: SharedClock, presence: bool) -> Self {
        Self {
            typing: Typing::new(store.clone(), clock.clone()),
            receipts: Receipts::new(store.clone(), clock.clone()),
            presence: Presences::new(store, clock, presence),
        }
    }
}
