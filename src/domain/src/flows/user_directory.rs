//! Searching for people: by parts of their names, and only those whom one may see.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>. Seen are the people of the searcher's rooms and of public
//! rooms. A word is found anywhere in a name, so that names in scripts without spaces are found too. Names are those of
//! profiles: what someone calls themselves in one room is that room's. A search reads the accounts of this server, bounded.

use ruma::events::StateEventType;
use serde_json::{Map, Value};
use vatra_store::{Direction, Range};

use super::FlowError;
use crate::{
    rooms::Reader,
    schema::{self, Membership, UserSid},
    users::Users,
};

/// How many people are given at most.
pub const MOST: usize = 100;
/// How many accounts a search looks at.
const SCANNED: usize = 100_000;
/// How many are read at once.
const PAGE: usize = 500;
/// How many that match are tried for whether they may be seen.
const TRIED: usize = 2_000;
/// How long a term may be, in bytes, and how many words of it count.
const TERM: usize = 512;
const WORDS: usize = 16;

/// Someone who was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Their id.
    pub user: ruma::OwnedUserId,
    /// Their name.
    pub display_name: Option<String>,
    /// Their picture.
    pub avatar_url: Option<String>,
}

/// Those whom the term matches best, and whether there are more.
///
/// # Errors
/// [`FlowError::InvalidParam`] for a term that is too long.
pub async fn search(
    users: &Users,
    reader: &Reader,
    searcher: UserSid,
    term: &str,
    limit: usize,
) -> Result<(Vec<Found>, bool), FlowError> {
    if term.len() > TERM {
        return Err(FlowError::InvalidParam(format!(
            "search_term has more than {TERM} bytes"
        )));
    }
    let term = Term::new(term);
    let mut matches: Vec<(u8, UserSid, Found)> = Vec::new();
    let mut range = Range::all();
    let mut scanned = 0;
    while !term.words.is_empty() && scanned < SCANNED {
        let rows = reader
            .view()
            .range(&schema::ACCOUNTS, range, Direction::Forward, PAGE)
            .await?;
        let Some((last, _)) = rows.last() else { break };
        range = Range::all().after(last);
        scanned += rows.len();
        for (sid, account) in &rows {
            if *sid == searcher || account.deactivated {
                continue;
            }
            let Some(user) = reader.user_id(*sid).await? else {
                continue;
            };
            let profile = users.profile(*sid).await?;
            let text = |field: &str| profile.get(field)?.as_str().map(str::to_owned);
            let display_name = text("displayname");
            if let Some(rank) = term.rank(display_name.as_deref(), user.as_str()) {
                let found = Found {
                    user,
                    display_name,
                    avatar_url: text("avatar_url"),
                };
                matches.push((rank, *sid, found));
            }
        }
    }
    matches.sort_by(|one, other| (one.0, &one.2.user).cmp(&(other.0, &other.2.user)));
    let limit = limit.min(MOST);
    let mut results = Vec::new();
    for (_, sid, found) in matches.into_iter().take(TRIED) {
        if !may_see(reader, searcher, sid).await? {
            continue;
        }
        if results.len() == limit {
            return Ok((results, true));
        }
        results.push(found);
    }
    Ok((results, false))
}

/// Whether two people share a room, or the other one is in a public one.
async fn may_see(reader: &Reader, searcher: UserSid, other: UserSid) -> Result<bool, FlowError> {
    let joined = |row: &schema::MembershipRow| row.membership == Membership::Join;
    let theirs = reader.rooms_of(other).await?;
    for (room, _) in theirs.iter().filter(|(_, row)| joined(row)) {
        if reader.is_joined(searcher, *room).await? {
            return Ok(true);
        }
    }
    for (room, _) in theirs.iter().filter(|(_, row)| joined(row)) {
        let rules = reader
            .state_event(*room, &StateEventType::RoomJoinRules, "")
            .await?;
        let rules: Option<Map<String, Value>> = rules.and_then(|event| event.pdu.content_as().ok());
        let rule = rules.and_then(|mut rules| rules.remove("join_rule"));
        if rule.as_ref().and_then(Value::as_str) == Some("public") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is searched for, in lower case.
struct Term {
    whole: String,
    words: Vec<String>,
}

impl Term {
    fn new(term: &str) -> Self {
        let whole = term.trim().to_lowercase();
        Self {
            words: whole
                .split_whitespace()
                .take(WORDS)
                .map(str::to_owned)
                .collect(),
            whole,
        }
    }

    /// How well someone is meant; 0 is best. `None` if a word is neither in their name nor in their id.
    fn rank(&self, name: Option<&str>, id: &str) -> Option<u8> {
        let name = name.unwrap_or_default().to_lowercase();
        let id = id.to_lowercase();
        let local = id
            .split(':')
            .next()
            .unwrap_or_default()
            .trim_start_matches('@');
        let there = |word: &String| name.contains(word.as_str()) || id.contains(word.as_str());
        if !self.words.iter().all(there) {
            return None;
        }
        let whole = self.whole.as_str();
        Some(if name == whole || id == whole || local == whole {
            0
        } else if name.starts_with(whole) || local.starts_with(whole) || id.starts_with(whole) {
            1
        } else {
            2
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_script_are_found_by_their_parts() {
        for (term, name, expected) in [
            ("cooper ALICE", "Alice Cooper", Some(2)),
            ("alice cooper", "Alice Cooper", Some(0)),
            ("太郎", "山田太郎", Some(2)),
            ("山田", "山田太郎", Some(1)),
            ("МАРИЯ", "Мария Иванова", Some(1)),
            ("영희", "김영희", Some(2)),
            ("محمد", "محمد علي", Some(1)),
            ("@someone:b.example", "x", Some(0)),
            ("some", "x", Some(1)),
            ("bob", "Alice Cooper", None),
        ] {
            let rank = Term::new(term).rank(Some(name), "@someone:b.example");
            assert_eq!(rank, expected, "{term} {name}");
        }
        assert!(Term::new("  ").words.is_empty());
    }
}
