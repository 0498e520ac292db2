//! Local accounts: who they are, how they log in, and what they keep on the server.
//!
//! - `accounts`: register, deactivate; `passwords`: argon2id on the blocking pool
//! - `tokens`: access and refresh tokens, of which only hashes are stored; [`Users::authenticate`]
//! - `moderation`: accounts that an admin has locked or suspended
//! - `devices`, `profile`, `account_data`, `filters`: what their names say; `openid`: tokens for third parties; `login_tokens`: tokens for one login
//! - `guests`: accounts of people who have not registered, and what becomes of them when they do
//! - `identities`: who accounts belong to in the eyes of identity providers
//! - `invite_permission`: whether a user takes invites
//! - `emails`: addresses of accounts; `validation`: how someone shows that an address is theirs
//! - `pushers`: what notifies a user; they go with the device that set them
//! - [`services`]: callers that are application services, and their users' accounts
//! - `vouched`: accounts of people whom someone else vouches for
//! - `uiaa`: sessions of user-interactive authentication, in memory
//!
//! Called by the HTTP handlers, by `flows` and by `sync`. Nothing here knows rooms: that a profile change must show in
//! the user's rooms is a flow above. To add data of a user's own: a map in `schema`, a module here, `topic::user` in the batch.

pub mod account_data;
mod accounts;
mod check;
mod devices;
pub mod emails;
mod error;
mod filters;
mod guests;
pub mod identities;
mod invite_permission;
pub mod login_tokens;
pub mod moderation;
pub mod openid;
mod passwords;
pub mod profile;
pub mod pushers;
pub mod server_name;
pub mod services;
pub mod tokens;
pub mod uiaa;
pub mod validation;
mod vouched;

use std::sync::{Arc, atomic::AtomicU64};

use dashmap::DashMap;
use quick_cache::sync::Cache;
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, push::Ruleset};
use tokio::sync::Semaphore;
use vatra_store::{Position, Store};

pub use self::{
    account_data::Ignored,
    accounts::NewAccount,
    devices::Device,
    emails::Email,
    error::{AuthFailure, UsersError},
    identities::Identity,
    tokens::{Login, Session},
    validation::{ValidatedEmail, Validations},
};
use crate::{
    appservice::{Service, Services},
    clock::SharedClock,
    ids::Ids,
    random::SharedRandom,
    schema::{TokenRow, UserSid},
};

/// Who makes a request.
#[derive(Debug, Clone)]
pub struct Requester {
    /// Who.
    pub user: OwnedUserId,
    /// Their number.
    pub sid: UserSid,
    /// With which device; application services need none.
    pub device: Option<OwnedDeviceId>,
    /// May use the admin API.
    pub admin: bool,
    /// May read, and hardly write.
    pub suspended: bool,
    /// Has no account of their own.
    pub guest: bool,
    /// The application service that acts as this user, if it is not the user themselves.
    pub service: Option<Arc<Service>>,
}

impl Requester {
    /// The device's id as keys of the store have it: empty for who has none.
    pub fn device_key(&self) -> &str {
        self.device.as_ref().map_or("", |device| device.as_str())
    }

    /// Whether there are limits on how often they may ask: for people, and for a service's users unless it was freed of them.
    pub fn is_limited(&self) -> bool {
        let service = self.service.as_ref();
        service.is_none_or(|service| service.rate_limited && self.user != service.sender)
    }
}

/// All local accounts. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    ids: Ids,
    clock: SharedClock,
    random: SharedRandom,
    server_name: OwnedServerName,
    services: Services,
    tokens: Cache<[u8; 32], Arc<Known>>,
    push_rules: Cache<UserSid, (Position, Arc<Ruleset>)>,
    ignored: Cache<UserSid, (Position, Arc<Ignored>)>,
    /// Counts token removals, so that a slow reader does not put a removed token back into the cache.
    removals: AtomicU64,
    /// Argon2 takes 19 MiB and some milliseconds of a core each: few at a time.
    hashing: Semaphore,
    uiaa: uiaa::Sessions,
    /// Of registration with the shared secret: apart, since anyone may ask for one.
    nonces: uiaa::Sessions,
    /// When each device was last written as seen.
    seen: DashMap<(UserSid, String), u64>,
    /// When each user was last there, since the start.
    active: DashMap<UserSid, u64>,
    /// The start.
    started: u64,
    /// Whether the first address of an account is written of what its owner has not read.
    notifies_new_emails: bool,
}

/// A token and what it stands for.
struct Known {
    row: TokenRow,
    requester: Requester,
    locked: bool,
}

impl Users {
    /// The accounts of `server_name` in `store`.
    pub fn new(
        store: Store,
        ids: Ids,
        clock: SharedClock,
        random: SharedRandom,
        server_name: OwnedServerName,
    ) -> Self {
        let services = Services::default();
        Self::with_services(store, ids, clock, random, server_name, services)
    }

    /// The same, some of which belong to application services.
    pub fn with_services(
        store: Store,
        ids: Ids,
        clock: SharedClock,
        random: SharedRandom,
        server_name: OwnedServerName,
        services: Services,
    ) -> Self {
        let started = clock.now();
        let inner = Inner {
            store,
            ids,
            clock,
            random,
            server_name,
            services,
            tokens: Cache::new(20_000),
            push_rules: Cache::new(20_000),
            ignored: Cache::new(20_000),
            removals: AtomicU64::new(0),
            hashing: Semaphore::new(2),
            uiaa: uiaa::Sessions::new(),
            nonces: uiaa::Sessions::new(),
            seen: DashMap::new(),
            active: DashMap::new(),
            started,
            notifies_new_emails: false,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Whether the first address of an account is written of what its owner has not read, unless they say otherwise. To be said
    /// before this is cloned.
    #[must_use]
    pub fn notifying_new_emails(mut self, on: bool) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.notifies_new_emails = on;
        }
        self
    }

    /// This server's name.
    pub fn server_name(&self) -> &ServerName {
        &self.inner.server_name
    }

    /// The sessions of user-interactive authentication.
    pub fn uiaa(&self) -> &uiaa::Sessions {
        &self.inner.uiaa
    }

    /// The nonces of registration with the shared secret: sessions that serve once.
    pub fn nonces(&self) -> &uiaa::Sessions {
        &self.inner.nonces
    }

    /// The source of tokens and ids.
    pub fn random(&self) -> &SharedRandom {
        &self.inner.random
    }

    /// The time.
    pub fn clock(&self) -> &SharedClock {
        &self.inner.clock
    }

    fn now(&self) -> u64 {
        self.inner.clock.now()
    }
}
