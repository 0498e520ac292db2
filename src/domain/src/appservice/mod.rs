//! Application services: bridges and bots that the operator has registered. Which they are, and what is theirs.
//!
//! - [`registration`]: what a registration file says, and what of it is refused
//! - [`namespace`]: the regular expressions that say which users, aliases and rooms a service cares for
//! - [`line`]: how a service is asked and told something; the network behind it is the server's
//!
//! All of it is decided when the server starts: nothing here is stored, and nothing changes while it runs. `users` finds the caller
//! behind an `as_token`, `flows` asks services, `followers::appservice_sender` tells them what happens.
//! <https://spec.matrix.org/v1.19/application-service-api/>

pub mod line;
pub mod namespace;
pub mod registration;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use ruma::{OwnedUserId, RoomAliasId, RoomId, UserId};
use sha2::{Digest, Sha256};

use self::namespace::Namespace;

/// One application service.
pub struct Service {
    /// Its id, which never changes.
    pub id: String,
    /// Where it is, without a slash at the end; `None` if it wants to hear nothing.
    pub url: Option<String>,
    /// Its own user.
    pub sender: OwnedUserId,
    /// Whether its other users have limits on their requests.
    pub rate_limited: bool,
    /// Whether it wants to hear of what passes: typing, receipts, presence.
    pub receive_ephemeral: bool,
    /// Networks that it bridges to.
    pub protocols: Vec<String>,
    users: Namespace,
    aliases: Namespace,
    rooms: Namespace,
    as_token: [u8; 32],
    hs_token: String,
    fingerprint: [u8; 32],
}

impl fmt::Debug for Service {
    // Never a token in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// Whether a user is the service's: its own, or a local one of its namespaces, whether or not there is an account.
    pub fn has_user(&self, user: &UserId) -> bool {
        *user == self.sender
            || (user.server_name() == self.sender.server_name() && self.users.holds(user.as_str()))
    }

    /// Whether an alias is in one of its namespaces.
    pub fn has_alias(&self, alias: &RoomAliasId) -> bool {
        self.aliases.holds(alias.as_str())
    }

    /// Whether a room is in one of its namespaces.
    pub fn has_room(&self, room: &RoomId) -> bool {
        self.rooms.holds(room.as_str())
    }

    /// Whether it cares for aliases at all.
    pub fn cares_for_aliases(&self) -> bool {
        !self.aliases.is_empty()
    }

    /// What this server shows it that it is this server.
    pub fn hs_token(&self) -> &str {
        &self.hs_token
    }

    /// Changes when other users are the service's.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    fn owns_user(&self, user: &UserId) -> bool {
        *user == self.sender
            || (user.server_name() == self.sender.server_name()
                && self.users.holds_alone(user.as_str()))
    }
}

/// A name that is not the caller's to take or to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exclusive {
    /// An application service has it for itself.
    #[error("an application service has this name for itself")]
    Taken,
    /// The application service asks for a name outside of its namespaces.
    #[error("this name is in no namespace of the application service")]
    Outside,
}

/// Two registrations that cannot both hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// The key that has the same value in both.
    pub key: &'static str,
    /// The places of the two in the list.
    pub places: (usize, usize),
}

/// All of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Services {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    all: Vec<Arc<Service>>,
    by_token: HashMap<[u8; 32], Arc<Service>>,
}

impl Services {
    /// These services.
    ///
    /// # Errors
    /// If two have the same id, token or user.
    pub fn new(services: Vec<Service>) -> Result<Self, Duplicate> {
        let (mut ids, mut tokens, mut senders) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (place, service) in services.iter().enumerate() {
            let earlier = [
                ("id", ids.insert(service.id.clone(), place)),
                ("as_token", tokens.insert(service.as_token, place)),
                (
                    "sender_localpart",
                    senders.insert(service.sender.clone(), place),
                ),
            ];
            for (key, earlier) in earlier {
                if let Some(earlier) = earlier {
                    let places = (earlier, place);
                    return Err(Duplicate { key, places });
                }
            }
        }
        let all: Vec<_> = services.into_iter().map(Arc::new).collect();
        let by_token = all.iter().map(|it| (it.as_token, it.clone())).collect();
        Ok(Self {
            inner: Arc::new(Inner { all, by_token }),
        })
    }

    /// All of them, in the order of the settings.
    pub fn all(&self) -> &[Arc<Service>] {
        &self.inner.all
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inner.all.is_empty()
    }

    /// The service whose `as_token` this is.
    pub fn by_token(&self, token: &str) -> Option<&Arc<Service>> {
        // A hash of it is looked up: how long that takes says nothing of the token.
        (!self.is_empty())
            .then(|| self.inner.by_token.get(&hash(token)))
            .flatten()
    }

    /// Whether someone (a service, or a person) may make a user or log in as one.
    ///
    /// # Errors
    /// [`Exclusive`] if not.
    pub fn check_user(&self, by: Option<&Service>, user: &UserId) -> Result<(), Exclusive> {
        if by.is_some_and(|service| service.sender == *user) {
            return Ok(());
        }
        if by.is_some_and(|service| !service.has_user(user)) {
            return Err(Exclusive::Outside);
        }
        self.nobody_elses(by, |service| service.owns_user(user))
    }

    /// Whether someone may make or remove an alias.
    ///
    /// # Errors
    /// [`Exclusive`] if not.
    pub fn check_alias(&self, by: Option<&Service>, alias: &RoomAliasId) -> Result<(), Exclusive> {
        if by.is_some_and(|service| !service.has_alias(alias)) {
            return Err(Exclusive::Outside);
        }
        self.nobody_elses(by, |service| service.aliases.holds_alone(alias.as_str()))
    }

    fn nobody_elses(
        &self,
        by: Option<&Service>,
        owns: impl Fn(&Service) -> bool,
    ) -> Result<(), Exclusive> {
        let mut others = self.all().iter();
        let taken = others.any(|it| by.is_none_or(|by| by.id != it.id) && owns(it));
        if taken { Err(Exclusive::Taken) } else { Ok(()) }
    }

    /// The networks that services bridge to, each once.
    pub fn protocols(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let all = self.all().iter().flat_map(|service| &service.protocols);
        all.map(String::as_str)
            .filter(|protocol| seen.insert(*protocol))
            .collect()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
