//! User-interactive authentication: sessions that gather completed stages.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>. A session belongs to one operation
//! (endpoint, user and the request's parameters): a stage done for one cannot be used for another. Sessions live in memory,
//! are bounded in number and end after half an hour; no password is ever kept in one.

use std::collections::BTreeMap;

use dashmap::DashMap;
use sha2::{Digest, Sha256};

use crate::{
    random::{Random, token},
    schema::UserSid,
};

/// How long a session lives, in milliseconds.
const LIFETIME_MS: u64 = 30 * 60 * 1000;
/// How many there are at most.
const CAPACITY: usize = 50_000;

/// The sessions of this server.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: DashMap<String, Session>,
}

#[derive(Debug, Clone)]
struct Session {
    /// A hash: an operation's parameters can be as large as a request.
    operation: [u8; 32],
    /// The stages that are done, and for those that show more than that they are done, what they have shown.
    completed: BTreeMap<String, Option<String>>,
    started: u64,
    /// Whose operation it is, if it is someone's.
    owner: Option<UserSid>,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A new session for an operation.
    pub fn start(&self, random: &dyn Random, operation: &str, now: u64) -> String {
        self.start_of(random, operation, None, now)
    }

    /// The same for an operation of someone's.
    pub fn start_of(
        &self,
        random: &dyn Random,
        operation: &str,
        owner: Option<UserSid>,
        now: u64,
    ) -> String {
        if self.sessions.len() >= CAPACITY {
            self.sessions
                .retain(|_, session| now.saturating_sub(session.started) < LIFETIME_MS);
        }
        if self.sessions.len() >= CAPACITY {
            // All of them young: someone is making sessions in bulk. The older half goes.
            self.forget_half();
        }
        let id = token(random, 24);
        let session = Session {
            operation: hash(operation),
            completed: BTreeMap::new(),
            started: now,
            owner,
        };
        self.sessions.insert(id.clone(), session);
        id
    }

    fn forget_half(&self) {
        let mut starts: Vec<u64> = self
            .sessions
            .iter()
            .map(|session| session.started)
            .collect();
        let half = starts.len() / 2;
        if half < starts.len() {
            let (_, &mut middle, _) = starts.select_nth_unstable(half);
            let mut left = half;
            self.sessions.retain(|_, session| {
                // Many may have begun in the same millisecond.
                let old = session.started <= middle && left > 0;
                left -= usize::from(old);
                !old
            });
        }
    }

    /// What a session has completed; `None` if there is no such session for this operation.
    pub fn completed(&self, id: &str, operation: &str, now: u64) -> Option<Vec<String>> {
        let session = self.sessions.get(id)?;
        let valid = session.operation == hash(operation)
            && now.saturating_sub(session.started) < LIFETIME_MS;
        valid.then(|| session.completed.keys().cloned().collect())
    }

    /// Whose operation a session is for; `None` if it is nobody's or there is no such session.
    pub fn owner(&self, id: &str, now: u64) -> Option<UserSid> {
        let session = self.sessions.get(id)?;
        let valid = now.saturating_sub(session.started) < LIFETIME_MS;
        session.owner.filter(|_| valid)
    }

    /// Whether there is such a session, of whatever operation.
    pub fn is_there(&self, id: &str, now: u64) -> bool {
        let session = self.sessions.get(id);
        session.is_some_and(|session| now.saturating_sub(session.started) < LIFETIME_MS)
    }

    /// A stage is done.
    pub fn complete(&self, id: &str, stage: &str) {
        self.put(id, stage, None);
    }

    /// A stage is done, and has shown something that the operation needs.
    pub fn complete_with(&self, id: &str, stage: &str, shown: String) {
        self.put(id, stage, Some(shown));
    }

    fn put(&self, id: &str, stage: &str, shown: Option<String>) {
        if let Some(mut session) = self.sessions.get_mut(id) {
            session.completed.insert(stage.to_owned(), shown);
        }
    }

    /// What a stage has shown.
    pub fn shown(&self, id: &str, stage: &str) -> Option<String> {
        self.sessions.get(id)?.completed.get(stage)?.clone()
    }

    /// The operation was done: the session cannot be used for another.
    pub fn end(&self, id: &str) {
        self.sessions.remove(id);
    }
}

fn hash(operation: &str) -> [u8; 32] {
    Sha256::digest(operation.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn sessions_in_bulk_put_an_end_to_the_oldest_ones_only() {
        let sessions = Sessions::new();
        for at in 0..CAPACITY {
            sessions.start(&SystemRandom, "bulk", u64::try_from(at / 100).unwrap_or(0));
        }
        let mine = sessions.start(&SystemRandom, "mine", 1_000);
        assert!(sessions.sessions.len() <= CAPACITY / 2 + 1);
        for _ in 0..CAPACITY / 4 {
            sessions.start(&SystemRandom, "bulk", 1_001);
        }
        assert!(sessions.completed(&mine, "mine", 1_002).is_some());
    }

    #[test]
    fn a_session_serves_its_own_operation_only_and_ends() {
        let sessions = Sessions::new();
        let id = sessions.start(&SystemRandom, "delete device A", 0);
        sessions.complete(&id, "m.login.password");
        assert_eq!(
            sessions.completed(&id, "delete device A", 1),
            Some(vec!["m.login.password".to_owned()])
        );
        assert_eq!(sessions.completed(&id, "delete device B", 1), None);
        assert_eq!(
            sessions.completed(&id, "delete device A", LIFETIME_MS),
            None
        );
        sessions.end(&id);
        assert_eq!(sessions.completed(&id, "delete device A", 1), None);
    }
}
