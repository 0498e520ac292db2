//! Keys of users wherever they live: those of this server are asked here, those of others would be asked there.
//!
//! This server does not speak to others yet: their users are reported as failures, as those of a server that does not
//! answer are.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedServerName, OwnedUserId, ServerName};

use crate::{
    e2ee::{ClaimedKeys, Claims, E2ee, E2eeError, KeysOf, MAX_ASKED, Messages},
    users::Requester,
};

/// What is asked, by where the users live.
#[derive(Debug)]
pub struct Split<T> {
    /// On this server.
    pub local: BTreeMap<OwnedUserId, T>,
    /// Elsewhere, by server.
    pub remote: BTreeMap<OwnedServerName, BTreeMap<OwnedUserId, T>>,
}

impl<T> Split<T> {
    /// Splits by the server in the users' ids.
    pub fn new(server: &ServerName, asked: BTreeMap<OwnedUserId, T>) -> Self {
        let mut split = Self {
            local: BTreeMap::new(),
            remote: BTreeMap::new(),
        };
        for (user, what) in asked {
            let map = if user.server_name() == server {
                &mut split.local
            } else {
                split
                    .remote
                    .entry(user.server_name().to_owned())
                    .or_default()
            };
            map.insert(user, what);
        }
        split
    }
}

/// An answer, and the servers that gave none.
#[derive(Debug, Default)]
pub struct Answer<T> {
    /// What was found.
    pub found: T,
    /// Servers whose users are missing from it.
    pub unreachable: BTreeSet<OwnedServerName>,
}

/// The keys of users: of all devices of each, or of those listed. Users without an account are missing.
///
/// # Errors
/// [`E2eeError::TooLarge`] for more than [`MAX_ASKED`] users or devices.
pub async fn query(
    e2ee: &E2ee,
    server: &ServerName,
    viewer: &Requester,
    asked: BTreeMap<OwnedUserId, Vec<String>>,
) -> Result<Answer<BTreeMap<OwnedUserId, KeysOf>>, E2eeError> {
    if asked
        .values()
        .map(|devices| devices.len().max(1))
        .sum::<usize>()
        > MAX_ASKED
    {
        let message = format!("more than {MAX_ASKED} users or devices in one request");
        return Err(E2eeError::TooLarge(message));
    }
    let split = Split::new(server, asked);
    let mut found = BTreeMap::new();
    for (user, devices) in split.local {
        let keys = e2ee
            .keys_of(Some((&viewer.user, viewer.sid)), &user, &devices)
            .await?;
        found.extend(keys.map(|keys| (user, keys)));
    }
    let unreachable = split.remote.into_keys().collect();
    Ok(Answer { found, unreachable })
}

/// One key of each device, never to be handed out again.
///
/// # Errors
/// [`E2eeError::TooLarge`] for more than [`MAX_ASKED`] devices.
pub async fn claim(
    e2ee: &E2ee,
    server: &ServerName,
    claims: Claims,
) -> Result<Answer<ClaimedKeys>, E2eeError> {
    let split = Split::new(server, claims);
    let found = e2ee.claim(&split.local).await?;
    let unreachable = split.remote.into_keys().collect();
    Ok(Answer { found, unreachable })
}

/// Sends messages to devices.
///
/// # Errors
/// [`E2eeError::InvalidParam`] if one of the users lives elsewhere: a message that nobody will deliver is not taken.
pub async fn send_to_devices(
    e2ee: &E2ee,
    server: &ServerName,
    sender: &Requester,
    (kind, txn): (&str, &str),
    messages: Messages,
) -> Result<(), E2eeError> {
    let split = Split::new(server, messages);
    if let Some(server) = split.remote.keys().next() {
        let message = format!("messages to devices cannot be delivered to {server}");
        return Err(E2eeError::InvalidParam(message));
    }
    let txn = crate::e2ee::SenderTxn {
        sid: sender.sid,
        device: sender.device.as_str(),
        id: txn,
    };
    e2ee.send(&sender.user, Some(txn), kind, &split.local).await
}
