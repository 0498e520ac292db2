//! End-to-end encryption as a server sees it: public keys, signatures and ciphertext that it keeps and hands out.
//!
//! - `parse`: what may be a key; `verify`: its signatures, checked with vodozemac
//! - `device_keys`, `one_time`: what a device uploads; `claim`: one-time keys, each handed out once
//! - `cross_signing`, `signatures`: a user's three keys, and who has signed what
//! - `query`: all of that, as another user may see it
//! - `changes`: the fact that a user's keys changed, recorded with its position. What follows from it (who shares a room
//!   and must hear) is worked out above, in `sync`
//! - `remote_lists`: the same of users of other servers, as their servers tell
//! - `inbox`: messages to devices, until they are acknowledged; `outbox`: those for devices of other servers
//! - `backup`: room keys that their user encrypted; `dehydrated`: a device that is kept for its user
//! - `check`: what `vatra check` asks of these rows
//! - `forget`: what goes when a device or an account goes; what a restored backup must not hand out again
//!
//! Called by the HTTP handlers, by `flows` (which split local from remote users), by `users` (a device that goes takes its
//! keys along) and by `sync`. Nothing here knows rooms or the network. All users are local but where it says otherwise; the caller has seen to it.

mod backup;
mod backup_keys;
mod changes;
mod check;
mod claim;
mod cross_signing;
mod dehydrated;
mod device_keys;
mod error;
mod forget;
mod inbox;
mod one_time;
mod outbox;
mod parse;
mod query;
mod remote_lists;
mod signatures;
#[cfg(test)]
mod tests;
mod verify;

use std::{hash::RandomState, sync::Arc};

use quick_cache::sync::Cache;
use tokio::sync::Mutex;
use vatra_store::{Position, Store};

pub use self::{
    backup::{BackupInfo, NewBackup},
    backup_keys::{BackupChange, RoomSessions, SessionData},
    changes::{Changed, device_list_changed},
    claim::{ClaimedKeys, Claims},
    cross_signing::{SigningKeys, Uploaded, is_signing_key},
    dehydrated::NewDehydrated,
    device_keys::KeysUpload,
    error::{E2eeError, Failure},
    forget::{after_restore, forget_account, forget_device},
    inbox::{Messages, Recipient, SenderTxn, Waiting},
    query::KeysOf,
    remote_lists::{RemoteChange, RemoteDevice, RemoteList, checked_keys},
    signatures::{Failures, SignedObjects},
};
use crate::{
    ids::Ids,
    schema::{KeyStateRow, UserSid},
};

/// The most one-time keys a device can have waiting. Clients keep 50 to 100.
pub const MAX_ONE_TIME_KEYS: usize = 1_000;
/// The longest id of a device, a key or a session, in bytes.
pub const MAX_ID: usize = 255;
/// The largest key object with its signatures, in bytes.
pub const MAX_KEY: usize = 16 << 10;
/// The largest message to a device, in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;
/// The most devices that one request may send to, its wildcards counted as the devices they stand for.
pub const MAX_RECIPIENTS: usize = 10_000;
/// The most users or devices that one request may ask about.
pub const MAX_ASKED: usize = 10_000;

/// Keys, signatures and messages to devices. Cheap to clone.
#[derive(Clone)]
pub struct E2ee {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    ids: Ids,
    /// What devices have left of keys, as of a position.
    states: Cache<(UserSid, String), (Position, Arc<KeyStateRow>)>,
    /// Devices for which nothing waited, as of a position.
    nothing_waits: Cache<(UserSid, String), Position>,
    /// Claims of one device share one of these locks.
    turns: [Mutex<()>; 64],
    hasher: RandomState,
}

impl E2ee {
    /// The keys in `store`.
    pub fn new(store: Store, ids: Ids) -> Self {
        let inner = Inner {
            store,
            ids,
            states: Cache::new(20_000),
            nothing_waits: Cache::new(20_000),
            turns: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }
}
