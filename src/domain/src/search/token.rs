//! Where the next page of a search begins.

use std::{fmt, str::FromStr};

use vatra_search::{Order, Place};

use crate::{
    schema::{RoomSid, UserSid},
    sync::token::{BadToken, number},
};

/// What a page is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Nothing.
    All,
    /// What is in a room.
    Room(RoomSid),
    /// What someone has sent.
    Sender(UserSid),
}

/// Where the next page begins: `f<count>_<order>_<score>_<time>_<event>_<group>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchToken {
    /// How many were found in all, as the first page has said.
    pub count: u64,
    /// The order of the pages.
    pub order: Order,
    /// The last place that was dealt with.
    pub after: Place,
    /// What it is limited to.
    pub group: Group,
}

impl fmt::Display for SearchToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            Order::Rank => 'k',
            Order::Recent => 't',
        };
        let Place { score, time, item } = self.after;
        write!(formatter, "f{}_{order}_{score}_{time}_{item}_", self.count)?;
        match self.group {
            Group::All => write!(formatter, "a"),
            Group::Room(room) => write!(formatter, "r{}", room.0),
            Group::Sender(user) => write!(formatter, "u{}", user.0),
        }
    }
}

impl FromStr for SearchToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let mut parts = text.strip_prefix('f').ok_or(BadToken)?.split('_');
        let mut part = || parts.next().ok_or(BadToken);
        let count = number(part()?)?;
        let order = match part()? {
            "k" => Order::Rank,
            "t" => Order::Recent,
            _ => return Err(BadToken),
        };
        let after = Place {
            score: u32::try_from(number(part()?)?).map_err(|_| BadToken)?,
            time: number(part()?)?,
            item: number(part()?)?,
        };
        let group = part()?;
        let group = match (group, group.split_at_checked(1)) {
            ("a", _) => Group::All,
            (_, Some(("r", room))) => Group::Room(RoomSid(number(room)?)),
            (_, Some(("u", user))) => Group::Sender(UserSid(number(user)?)),
            _ => return Err(BadToken),
        };
        match parts.next() {
            None => Ok(Self {
                count,
                order,
                after,
                group,
            }),
            Some(_) => Err(BadToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
        for group in [
            Group::All,
            Group::Room(RoomSid(3)),
            Group::Sender(UserSid(0)),
        ] {
            for order in [Order::Rank, Order::Recent] {
                let token = SearchToken {
                    count: 7,
                    order,
                    after: Place {
                        score: u32::MAX,
                        time: u64::MAX,
                        item: 1,
                    },
                    group,
                };
                assert_eq!(token.to_string().parse(), Ok(token));
            }
        }
        for text in [
            "",
            "f",
            "f1_k_1_1_1",
            "f1_k_1_1_1_",
            "f1_k_1_1_1_b",
            "f1_k_1_1_1_r",
            "f1_k_1_1_1_r1x",
            "f1_k_1_1_1_ü",
            "f1_x_1_1_1_a",
            "f1_k_4294967296_1_1_a",
            "f+1_k_1_1_1_a",
            "f1_k_1_1_1_a_",
            "s1_2",
        ] {
            assert_eq!(text.parse::<SearchToken>(), Err(BadToken), "{text}");
        }
    }
}
