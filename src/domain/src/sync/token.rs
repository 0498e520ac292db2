//! Tokens: what clients hand back to say how far they have read.
//!
//! - A [`SyncToken`] `s<epoch>_<position>` is a position of the log: /sync's `since` and `next_batch`. It stays valid across
//!   restarts. When more messages to the device wait than one answer takes, a third number tells how far those were read. The epoch changes when a backup is restored; a token of another epoch or of the future is *foreign*, and
//!   /sync answers it with a fresh sync, never with silence.
//! - An [`OrderToken`] `t<order>` is a place in a room's order, between two events: /messages.
//! - A [`BatchToken`] is such a place and the moment it was given: `prev_batch`.

use std::{fmt, str::FromStr};

use vatra_store::Position;

use crate::schema::RoomOrder;

/// A string that is no token of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this server")]
pub struct BadToken;

/// A position of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncToken {
    /// The store's epoch.
    pub epoch: u64,
    /// Everything up to and including this position has been seen, but for messages to the device.
    pub position: Position,
    /// The messages to the device that have been seen: those up to here.
    pub to_device: Position,
}

impl fmt::Display for SyncToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s{}_{}", self.epoch, self.position.0)?;
        if self.to_device != self.position {
            write!(formatter, "_{}", self.to_device.0)?;
        }
        Ok(())
    }
}

impl FromStr for SyncToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let (epoch, position) = text
            .strip_prefix('s')
            .and_then(|rest| rest.split_once('_'))
            .ok_or(BadToken)?;
        let (position, to_device) = position.split_once('_').unwrap_or((position, position));
        Ok(Self {
            epoch: number(epoch)?,
            position: Position(number(position)?),
            to_device: Position(number(to_device)?),
        })
    }
}

/// A place in a room's order. Reading backwards from it gives the events before it, forwards the events at and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderToken(pub RoomOrder);

impl OrderToken {
    /// The place just before an event.
    pub fn before(order: RoomOrder) -> Self {
        Self(order)
    }

    /// The place just after an event.
    pub fn after(order: RoomOrder) -> Self {
        Self(RoomOrder(order.0.saturating_add(1)))
    }
}

impl fmt::Display for OrderToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "t{}", self.0.0)
    }
}

impl FromStr for OrderToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        if text.contains('_') {
            return text.parse().map(|BatchToken { place, .. }| place);
        }
        let order = text.strip_prefix('t').ok_or(BadToken)?;
        Ok(Self(RoomOrder(number(order)?)))
    }
}

/// A place in a room's order as a /sync of some moment gave it: `t<order>_<position>`. Where a place is asked for it is an
/// [`OrderToken`]; `/members?at=` asks for the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchToken {
    /// The place.
    pub place: OrderToken,
    /// How far the /sync that gave it had read.
    pub position: Position,
}

impl fmt::Display for BatchToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}_{}", self.place, self.position.0)
    }
}

impl FromStr for BatchToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let (place, position) = text.split_once('_').ok_or(BadToken)?;
        Ok(Self {
            place: place.parse()?,
            position: Position(number(position)?),
        })
    }
}

/// Digits only: `u64::from_str` would take a leading plus.
pub(crate) fn number(text: &str) -> Result<u64, BadToken> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadToken);
    }
    text.parse().map_err(|_| BadToken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for to_device in [77, 12] {
            let token = SyncToken {
                epoch: 3,
                position: Position(77),
                to_device: Position(to_device),
            };
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        let token = OrderToken::after(RoomOrder::FIRST);
        assert_eq!(token.to_string().parse(), Ok(token));
        let batch = BatchToken {
            place: token,
            position: Position(77),
        };
        assert_eq!(batch.to_string().parse(), Ok(batch));
        assert_eq!(batch.to_string().parse(), Ok(token));
        assert_eq!(token.to_string().parse::<BatchToken>(), Err(BadToken));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "s",
            "s1",
            "s1_",
            "s_1",
            "s+1_2",
            "s1_2x",
            "s1_2_",
            "s1_2_3_4",
            "t",
            "t-1",
            "t1_",
            "t_1",
            "t1_1_1",
            "77",
            "s1_99999999999999999999999",
        ] {
            assert_eq!(text.parse::<SyncToken>(), Err(BadToken), "{text}");
            assert_eq!(text.parse::<OrderToken>(), Err(BadToken), "{text}");
        }
    }
}
