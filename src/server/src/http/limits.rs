//! Limits on requests that cost or annoy: logins, registrations, messages, joins, invites, media.
//!
//! Each kind has a bucket per key (a user, or a name that someone tries to log in as) that refills steadily. Off when
//! `rate_limits.enabled` is false.

use std::num::NonZeroU32;

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::DashMapStateStore,
};

use super::error::Error;

type Keyed = RateLimiter<String, DashMapStateStore<String>, DefaultClock>;

/// How many keys a kind remembers before the full buckets are forgotten.
const KEYS: usize = 10_000;

/// The limits of this server.
pub struct Rates {
    enabled: bool,
    login: Keyed,
    register: Keyed,
    send: Keyed,
    join: Keyed,
    invite: Keyed,
    media: Keyed,
}

impl Rates {
    /// Limits that hold if `enabled`.
    pub fn new(enabled: bool) -> Self {
        let per_second = |rate: u32, burst: u32| {
            let (rate, burst) = (
                NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN),
                NonZeroU32::new(burst),
            );
            RateLimiter::keyed(
                Quota::per_second(rate).allow_burst(burst.unwrap_or(NonZeroU32::MIN)),
            )
        };
        Self {
            enabled,
            login: per_second(1, 10),
            register: per_second(1, 20),
            send: per_second(20, 200),
            join: per_second(1, 30),
            invite: per_second(1, 30),
            media: per_second(10, 100),
        }
    }

    /// An attempt to log in as `name`.
    pub(crate) fn login(&self, name: &str) -> Result<(), Error> {
        self.check(&self.login, name)
    }

    /// A registration, by anyone.
    pub(crate) fn register(&self) -> Result<(), Error> {
        self.check(&self.register, "")
    }

    /// An event sent by `user`.
    pub(crate) fn send(&self, user: &str) -> Result<(), Error> {
        self.check(&self.send, user)
    }

    /// A room joined, knocked on or made by `user`.
    pub(crate) fn join(&self, user: &str) -> Result<(), Error> {
        self.check(&self.join, user)
    }

    /// An invitation by `user`.
    pub(crate) fn invite(&self, user: &str) -> Result<(), Error> {
        self.check(&self.invite, user)
    }

    /// An upload by `user`.
    pub(crate) fn media(&self, user: &str) -> Result<(), Error> {
        self.check(&self.media, user)
    }

    fn check(&self, limiter: &Keyed, key: &str) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        if limiter.len() > KEYS {
            limiter.retain_recent();
        }
        limiter
            .check_key(&key.to_owned())
            .map_err(|until| Error::limited(until.wait_time_from(DefaultClock::default().now())))
    }
}
