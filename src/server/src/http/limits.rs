//! Limits on requests that cost or annoy: logins, registrations, messages, joins, invites, media, previews, searches, letters; and those of other servers.
//!
//! Each kind has a bucket per key that refills steadily. The key is the user, or the other server; where there is none yet, the name that someone
//! tries to log in as and the address they come from (of IPv6 the network of 64 bits, which is what one customer has). Off
//! when `rate_limits.enabled` is false.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::DashMapStateStore,
};
use ruma::ServerName;
use vatra_domain::{mail::address::canonical, users::Requester};

use super::{address::Address, error::Error};

type Keyed = RateLimiter<String, DashMapStateStore<String>, DefaultClock>;

/// How many keys a kind remembers before the full buckets are forgotten.
const KEYS: usize = 10_000;

/// How many invitations someone can send at once.
const INVITES: u32 = 30;

/// How much of a name is looked at: as much as a user id can have.
const LONGEST: usize = 255;

/// The limits of this server.
pub struct Rates {
    enabled: bool,
    login: Keyed,
    login_from: Keyed,
    register: Keyed,
    nonce: Keyed,
    send: Keyed,
    join: Keyed,
    invite: Keyed,
    media: Keyed,
    preview: Keyed,
    search: Keyed,
    mail_to: Keyed,
    mail_from: Keyed,
    server: Keyed,
    server_from: Keyed,
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
        let per_letter = |period: Duration, burst: u32| {
            let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
            let quota = Quota::with_period(period).unwrap_or(Quota::per_second(NonZeroU32::MIN));
            RateLimiter::keyed(quota.allow_burst(burst))
        };
        Self {
            enabled,
            login: per_second(1, 10),
            login_from: per_second(1, 30),
            // A registration is two requests: one to hear what is asked for.
            register: per_second(1, 40),
            // Whoever has the secret makes many accounts with it; who has not only makes the server remember nonces.
            nonce: per_second(10, 200),
            send: per_second(20, 200),
            join: per_second(1, 30),
            invite: per_second(1, INVITES),
            media: per_second(10, 100),
            // A screen of messages has many links.
            preview: per_second(2, 60),
            search: per_second(2, 20),
            mail_to: per_letter(Duration::from_secs(600), 5),
            mail_from: per_letter(Duration::from_secs(10), 30),
            // A server sends one transaction after the other, of 50 events each, and asks for what it lacks one by one.
            server: per_second(100, 2_000),
            // Many servers share an address.
            server_from: per_second(500, 10_000),
        }
    }

    /// An attempt to log in as `name`, from an address.
    pub(crate) fn login(&self, name: &str, from: Option<Address>) -> Result<(), Error> {
        // The address first: who has used it up does not use up the name of someone else too.
        self.check(&self.login_from, &network(from))?;
        self.check(&self.login, &name.chars().take(LONGEST).collect::<String>())
    }

    /// An attempt to log in with a token, from an address.
    pub(crate) fn login_with_token(&self, from: Option<Address>) -> Result<(), Error> {
        self.check(&self.login_from, &network(from))
    }

    /// An attempt of `user`, who is logged in, to show their password again.
    pub(crate) fn confirm(&self, user: &str) -> Result<(), Error> {
        self.check(&self.login, user)
    }

    /// A registration from an address, or a question whether it would do.
    pub(crate) fn register(&self, from: Option<Address>) -> Result<(), Error> {
        self.check(&self.register, &network(from))
    }

    /// A question for a nonce, from an address.
    pub(crate) fn nonce(&self, from: Option<Address>) -> Result<(), Error> {
        self.check(&self.nonce, &network(from))
    }

    /// An event sent by `user`.
    pub(crate) fn send(&self, user: &Requester) -> Result<(), Error> {
        self.check_user(&self.send, user, NonZeroU32::MIN)
    }

    /// A room joined, knocked on or made by `user`.
    pub(crate) fn join(&self, user: &Requester) -> Result<(), Error> {
        self.check_user(&self.join, user, NonZeroU32::MIN)
    }

    /// An invitation by `user`.
    pub(crate) fn invite(&self, user: &Requester) -> Result<(), Error> {
        self.check_user(&self.invite, user, NonZeroU32::MIN)
    }

    /// So many invitations by `user` at once. More than the most at once count as the most.
    pub(crate) fn invites(&self, user: &Requester, count: usize) -> Result<(), Error> {
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(INVITES);
        match NonZeroU32::new(count) {
            Some(count) => self.check_user(&self.invite, user, count),
            None => Ok(()),
        }
    }

    /// A search by `user`.
    pub(crate) fn search(&self, user: &Requester) -> Result<(), Error> {
        self.check_user(&self.search, user, NonZeroU32::MIN)
    }

    /// An upload by `user`.
    pub(crate) fn media(&self, user: &Requester) -> Result<(), Error> {
        self.check_user(&self.media, user, NonZeroU32::MIN)
    }

    /// A preview of a URL for `user`.
    pub(crate) fn preview(&self, user: &Requester) -> Result<(), Error> {
        self.check_user(&self.preview, user, NonZeroU32::MIN)
    }

    /// A file fetched for someone without a token: all of them share a limit.
    pub(crate) fn media_for_anyone(&self) -> Result<(), Error> {
        self.check(&self.media, "")
    }

    /// What users do, unless the operator has freed them of limits: a bridge speaks for many people at once.
    fn check_user(
        &self,
        limiter: &Keyed,
        user: &Requester,
        count: NonZeroU32,
    ) -> Result<(), Error> {
        if !user.is_limited() {
            return Ok(());
        }
        self.check_many(limiter, user.user.as_str(), count)
    }

    /// A letter to an e-mail address, that someone asks for from an address.
    pub(crate) fn mail(&self, to: &str, from: Option<Address>) -> Result<(), Error> {
        self.check(&self.mail_from, &network(from))?;
        // However it is written; what is no address gets no letter.
        let to = canonical(to).unwrap_or_default();
        self.check(&self.mail_to, &to)
    }

    /// A request from an address that says to be another server's; its signature has not been looked at, which costs.
    pub(crate) fn server_from(&self, from: Option<Address>) -> Result<(), Error> {
        self.check(&self.server_from, &network(from))
    }

    /// A request that another server has signed.
    pub(crate) fn server(&self, name: &ServerName) -> Result<(), Error> {
        self.check(&self.server, name.as_str())
    }

    fn check(&self, limiter: &Keyed, key: &str) -> Result<(), Error> {
        self.check_many(limiter, key, NonZeroU32::MIN)
    }

    /// `count` is no more than the limiter's burst.
    fn check_many(&self, limiter: &Keyed, key: &str, count: NonZeroU32) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        if limiter.len() > KEYS {
            limiter.retain_recent();
        }
        match limiter.check_key_n(&key.to_owned(), count) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                Err(Error::limited(wait))
            }
            Err(never) => Err(Error::internal(&never)),
        }
    }
}

/// What shares a bucket: an IPv4 address, or the first half of an IPv6 address.
fn network(from: Option<Address>) -> String {
    match from {
        Some(Address(IpAddr::V6(address))) => {
            let half = (u128::from(address) >> 64) << 64;
            Ipv6Addr::from(half).to_string()
        }
        Some(Address(address)) => address.to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tried(rates: &Rates, from: &str, number: u32) -> bool {
        let from = Some(Address(from.parse().unwrap()));
        rates.login(&format!("name{number}"), from).is_ok()
    }

    #[test]
    fn an_address_is_limited_whatever_names_it_tries() {
        let rates = Rates::new(true);
        assert!((0..100).any(|number| !tried(&rates, "192.0.2.1", number)));
        assert!(tried(&rates, "192.0.2.2", 0), "another address");
        assert!((0..100).any(|number| !tried(&rates, &format!("2001:db8::{number}"), number)));
        assert!(tried(&rates, "2001:db8:0:1::1", 0), "another network");
    }

    #[test]
    fn a_server_that_asks_without_end_is_put_off_and_others_are_not() {
        let rates = Rates::new(true);
        let asks = |name: &str| rates.server(&ServerName::parse(name).unwrap()).is_ok();
        assert!((0..5_000).any(|_| !asks("flood.example")));
        assert!(asks("calm.example"));
        let from = Some(Address("192.0.2.1".parse().unwrap()));
        assert!((0..50_000).any(|_| rates.server_from(from).is_err()));
        assert!(rates.server_from(None).is_ok());
    }
}
