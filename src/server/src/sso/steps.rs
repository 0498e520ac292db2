//! Logins that are under way: each waits, in memory, for what the person's browser does next.
//!
//! A step is found by an id that only the browser's next request holds, and is bound to a cookie of that browser: whoever is made to follow someone
//! else's link has not the cookie. It is taken out when it is asked for, so that nothing happens twice. After a restart people begin again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openidconnect::url::Url;
use sha2::{Digest, Sha256};
use vatra_domain::{
    clock::Millis,
    random::{Random, token},
    schema::UserSid,
    users::Identity,
};

/// How long a step waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);
/// How many steps there are at most.
const CAPACITY: usize = 20_000;

/// What someone logs in for.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// A client that waits behind this URL gets a token.
    Login(Url),
    /// A session of user-interactive authentication, of this user, gets its stage.
    Confirm(String, UserSid),
}

/// What is waited for.
#[derive(Debug)]
pub(crate) enum Step {
    /// That the person wants to confirm what their session is for.
    Confirming { session: String, user: UserSid },
    /// That the provider sends them back.
    Asked {
        provider: String,
        nonce: String,
        verifier: String,
        purpose: Purpose,
    },
    /// That they choose a name for their new account.
    Naming { identity: Identity, redirect: Url },
    /// That they let the client in.
    Allowing { user: UserSid, redirect: Url },
}

struct Waiting {
    cookie: [u8; 32],
    until: Millis,
    step: Step,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Steps {
    waiting: Mutex<HashMap<[u8; 32], Waiting>>,
}

impl Steps {
    /// A step for the browser with this cookie; gives its id.
    pub(crate) fn put(&self, random: &dyn Random, cookie: &str, step: Step, now: Millis) -> String {
        let mut all = self.all();
        if all.len() >= CAPACITY {
            all.retain(|_, waiting| waiting.until > now);
        }
        if all.len() >= CAPACITY {
            // All of them young: someone makes them in bulk. Those that have waited longest go.
            forget_half(&mut all);
        }
        let id = token(random, 43);
        let life = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        let waiting = Waiting {
            cookie: hash(cookie),
            until: now.saturating_add(life),
            step,
        };
        all.insert(hash(&id), waiting);
        id
    }

    /// The step of an id, which is there no more from now on. `None` if there is none, or if it is another browser's.
    pub(crate) fn take(&self, id: &str, cookie: &str, now: Millis) -> Option<Step> {
        let waiting = self.all().remove(&hash(id))?;
        // Hashes are compared: how long that takes tells nothing of what they are made from.
        let theirs = waiting.cookie == hash(cookie) && waiting.until > now;
        theirs.then_some(waiting.step)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<[u8; 32], Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget_half(all: &mut HashMap<[u8; 32], Waiting>) {
    let mut ends: Vec<Millis> = all.values().map(|waiting| waiting.until).collect();
    let half = ends.len() / 2;
    if half < ends.len() {
        let (_, &mut middle, _) = ends.select_nth_unstable(half);
        // Many may have begun in the same millisecond.
        let older = all
            .values()
            .filter(|waiting| waiting.until < middle)
            .count();
        let mut left = half.saturating_sub(older);
        all.retain(|_, waiting| {
            let even = waiting.until == middle && left > 0;
            left -= usize::from(even);
            waiting.until >= middle && !even
        });
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use vatra_domain::random::SystemRandom;

    use super::*;

    fn step(number: u64) -> Step {
        Step::Confirming {
            session: number.to_string(),
            user: UserSid(number),
        }
    }

    #[test]
    fn a_step_is_taken_once_by_the_browser_that_it_is_for_and_soon() {
        let steps = Steps::default();
        let put = |now| steps.put(&SystemRandom, "cookie", step(1), now);
        let id = put(0);
        assert!(steps.take(&id, "cookie", 1).is_some());
        assert!(steps.take(&id, "cookie", 1).is_none());
        let id = put(0);
        assert!(steps.take(&id, "other", 1).is_none());
        assert!(steps.take(&id, "cookie", 1).is_none(), "it has been tried");
        let id = put(0);
        assert!(steps.take(&id, "cookie", 900_000).is_none());
        assert!(steps.take("", "cookie", 0).is_none());
    }

    #[test]
    fn steps_in_bulk_take_no_more_room_and_the_newest_stay() {
        let steps = Steps::default();
        let first = steps.put(&SystemRandom, "c", step(0), 0);
        for number in 0..u64::try_from(CAPACITY).unwrap() {
            steps.put(&SystemRandom, "c", step(number), 1);
        }
        let last = steps.put(&SystemRandom, "c", step(1), 2);
        assert!(steps.all().len() <= CAPACITY);
        assert!(steps.take(&first, "c", 3).is_none());
        assert!(steps.take(&last, "c", 3).is_some());
    }
}
