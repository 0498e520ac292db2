//! Keys of users and messages to devices, wherever the users live: those of this server are asked here, those of others there.
//!
//! The keys of a user of another server are kept while a room is shared with them, because their server then tells what changes.
//! <https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption>

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use ruma::{
    OneTimeKeyAlgorithm, OwnedServerName, OwnedUserId, ServerName,
    api::federation::{
        device::get_devices::v1 as get_devices,
        keys::{claim_keys::v1 as claim_keys, get_keys::v1 as get_keys},
    },
    serde::Raw,
};

use crate::{
    e2ee::{
        ClaimedKeys, Claims, E2ee, E2eeError, KeysOf, MAX_ASKED, Messages, RemoteDevice,
        RemoteList, SenderTxn, checked_keys,
    },
    remote::{Bounds, Remote, RemoteError},
    rooms::{RoomError, Rooms},
    users::Requester,
};

/// How long another server may take to answer, unless the client says how long it waits.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// How many servers are asked at once, and how many lists of one server.
const AT_ONCE: usize = 32;
/// How many lists of one server are asked for one by one, to be kept; those of others come in one answer and are not.
const MAX_LISTS: usize = 100;

/// What these operations need. Cheap to clone.
#[derive(Clone)]
pub struct UserKeys {
    /// What is stored.
    pub e2ee: E2ee,
    /// Other servers.
    pub remote: Remote,
    /// Who shares rooms.
    pub rooms: Rooms,
    /// Whether messages to devices of other servers are delivered.
    pub federates: bool,
}

/// What is asked, by where the users live.
#[derive(Debug)]
struct Split<T> {
    /// On this server.
    local: BTreeMap<OwnedUserId, T>,
    /// Elsewhere, by server.
    remote: BTreeMap<OwnedServerName, BTreeMap<OwnedUserId, T>>,
}

impl<T> Split<T> {
    /// Splits by the server in the users' ids.
    fn new(server: &ServerName, asked: BTreeMap<OwnedUserId, T>) -> Self {
        let mut split = Self {
            local: BTreeMap::new(),
            remote: BTreeMap::new(),
        };
        for (user, what) in asked {
            let map = if user.server_name() == server {
                &mut split.local
            } else {
                let server = user.server_name().to_owned();
                split.remote.entry(server).or_default()
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

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
enum NoKeys {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    E2ee(#[from] E2eeError),
}

/// Users and the devices asked for; none stands for all.
type Asked = BTreeMap<OwnedUserId, Vec<String>>;

impl UserKeys {
    /// The keys of users: of all devices of each, or of those listed. Users without an account are missing.
    ///
    /// # Errors
    /// [`E2eeError::TooLarge`] for more than [`MAX_ASKED`] users or devices.
    pub async fn query(
        &self,
        viewer: &Requester,
        asked: Asked,
        timeout: Duration,
    ) -> Result<Answer<BTreeMap<OwnedUserId, KeysOf>>, KeysError> {
        let devices = asked.values().map(|devices| devices.len().max(1));
        if devices.sum::<usize>() > MAX_ASKED {
            let message = format!("more than {MAX_ASKED} users or devices in one request");
            return Err(E2eeError::TooLarge(message).into());
        }
        let viewer = (&*viewer.user, viewer.sid);
        let split = Split::new(self.remote.server_name(), asked);
        let mut answer: Answer<BTreeMap<OwnedUserId, KeysOf>> = Answer::default();
        for (user, devices) in split.local {
            let keys = self.e2ee.keys_of(Some(viewer), &user, &devices).await?;
            answer.found.extend(keys.map(|keys| (user, keys)));
        }
        let mut unknown = Vec::new();
        for (server, users) in split.remote {
            let mut rest = Asked::new();
            for (user, devices) in users {
                match self.e2ee.known_keys(viewer, &user, &devices).await? {
                    Some(keys) => {
                        answer.found.insert(user, keys);
                    }
                    None => {
                        rest.insert(user, devices);
                    }
                }
            }
            if !rest.is_empty() {
                unknown.push((server, rest));
            }
        }
        // Boxed one by one: each owns what it needs.
        let asking: Vec<_> = unknown
            .into_iter()
            .map(|(server, users)| {
                let (keys, viewer) = (self.clone(), (viewer.0.to_owned(), viewer.1));
                async move {
                    let asked = keys.ask((&viewer.0, viewer.1), &server, users);
                    let found = tokio::time::timeout(timeout, asked).await;
                    (server, found)
                }
            })
            .collect();
        let mut answers = stream::iter(asking).buffer_unordered(AT_ONCE);
        while let Some((server, found)) = answers.next().await {
            match found {
                Ok((found, all)) => {
                    answer.found.extend(found?);
                    if !all {
                        answer.unreachable.insert(server);
                    }
                }
                Err(_) => {
                    answer.unreachable.insert(server);
                }
            }
        }
        Ok(answer)
    }

    /// Asks a server for keys of its users. Says what was found, and whether the server answered for all.
    async fn ask(
        &self,
        viewer: (&ruma::UserId, crate::schema::UserSid),
        server: &ServerName,
        users: Asked,
    ) -> (Result<BTreeMap<OwnedUserId, KeysOf>, KeysError>, bool) {
        let mut found = BTreeMap::new();
        let (mut kept, mut passing) = (Vec::new(), Asked::new());
        for (user, devices) in users {
            match self.shares(&user).await {
                Ok(true) if kept.len() < MAX_LISTS => kept.push((user, devices)),
                Ok(shared) => {
                    if shared && let Err(error) = self.e2ee.asked_for(&user).await {
                        return (Err(error.into()), false);
                    }
                    passing.insert(user, devices);
                }
                Err(error) => return (Err(error.into()), false),
            }
        }
        let listing: Vec<_> = kept
            .into_iter()
            .map(|(user, devices)| {
                let keys = self.clone();
                async move {
                    let fetched = keys.fetch_list(&user).await;
                    (user, devices, fetched)
                }
            })
            .collect();
        let mut lists = stream::iter(listing).buffer_unordered(AT_ONCE);
        let mut all = true;
        while let Some((user, devices, fetched)) = lists.next().await {
            match fetched {
                Ok(()) => match self.e2ee.known_keys(viewer, &user, &devices).await {
                    Ok(keys) => found.extend(keys.map(|keys| (user, keys))),
                    Err(error) => return (Err(error.into()), false),
                },
                // Not every server has lists, and what matters is the keys.
                Err(NoKeys::Remote(RemoteError::Answered { .. })) => {
                    if let Err(error) = self.e2ee.asked_for(&user).await {
                        return (Err(error.into()), false);
                    }
                    passing.insert(user, devices);
                }
                Err(NoKeys::Remote(_)) => all = false,
                Err(NoKeys::E2ee(error)) => return (Err(error.into()), false),
            }
        }
        if !passing.is_empty() {
            match self.ask_once(server, passing).await {
                Ok(keys) => found.extend(keys),
                Err(error) => {
                    tracing::debug!(%server, %error, "a server was asked for keys in vain");
                    all = false;
                }
            }
        }
        (Ok(found), all)
    }

    /// Asks for the keys of many users at once.
    async fn ask_once(
        &self,
        server: &ServerName,
        users: Asked,
    ) -> Result<BTreeMap<OwnedUserId, KeysOf>, RemoteError> {
        let asked = users.iter().map(|(user, devices)| {
            let devices = devices.iter().map(|device| device.as_str().into());
            (user.clone(), devices.collect())
        });
        let request = get_keys::Request::new(asked.collect());
        let mut answer = self
            .remote
            .call_within(server, request, Bounds::urgent())
            .await?;
        let found = users.into_keys().filter_map(|user| {
            let devices = answer.device_keys.remove(&user);
            let master = answer.master_keys.get(&user).map(Raw::json);
            let self_signing = answer.self_signing_keys.get(&user).map(Raw::json);
            if devices.is_none() && master.is_none() {
                return None;
            }
            let devices = devices.unwrap_or_default().into_iter();
            let devices = devices.map(|(id, keys)| RemoteDevice {
                name: name_of(&keys),
                id: id.to_string(),
                keys: keys.into_json(),
            });
            let keys = checked_keys(&user, devices, master, self_signing);
            Some((user, keys))
        });
        Ok(found.collect())
    }

    /// Asks for the whole list of a user and stores it.
    async fn fetch_list(&self, user: &OwnedUserId) -> Result<(), NoKeys> {
        let request = get_devices::Request::new(user.clone());
        let answer = self
            .remote
            .call_within(user.server_name(), request, Bounds::urgent())
            .await?;
        let devices = answer.devices.into_iter().map(|device| RemoteDevice {
            id: device.device_id.to_string(),
            keys: device.keys.into_json(),
            name: device.device_display_name,
        });
        let list = RemoteList {
            stream: answer.stream_id.into(),
            devices: devices.collect(),
            master: answer.master_key.map(Raw::into_json),
            self_signing: answer.self_signing_key.map(Raw::into_json),
        };
        Ok(self.e2ee.store_remote_list(user, &list).await?)
    }

    /// Whether a user of another server is in a room that this server is in: then their server tells what becomes of their keys.
    async fn shares(&self, user: &ruma::UserId) -> Result<bool, RoomError> {
        let reader = self.rooms.reader();
        match reader.user_sid(user).await? {
            Some(sid) => reader.shares_a_room(sid).await,
            None => Ok(false),
        }
    }

    /// One key of each device, never to be handed out again.
    ///
    /// # Errors
    /// [`E2eeError::TooLarge`] for more than [`MAX_ASKED`] devices.
    pub async fn claim(
        &self,
        claims: Claims,
        timeout: Duration,
    ) -> Result<Answer<ClaimedKeys>, E2eeError> {
        if claims.values().map(BTreeMap::len).sum::<usize>() > MAX_ASKED {
            let message = format!("more than {MAX_ASKED} devices in one request");
            return Err(E2eeError::TooLarge(message));
        }
        let split = Split::new(self.remote.server_name(), claims);
        let mut answer = Answer {
            found: self.e2ee.claim(&split.local).await?,
            unreachable: BTreeSet::new(),
        };
        let asking: Vec<_> = split
            .remote
            .into_iter()
            .map(|(server, claims)| {
                let remote = self.remote.clone();
                async move {
                    let claimed = claim_there(&remote, &server, claims);
                    let claimed = tokio::time::timeout(timeout, claimed).await;
                    (server, claimed)
                }
            })
            .collect();
        let mut answers = stream::iter(asking).buffer_unordered(AT_ONCE);
        while let Some((server, claimed)) = answers.next().await {
            match claimed {
                Ok(Ok(keys)) => answer.found.extend(keys),
                _ => {
                    answer.unreachable.insert(server);
                }
            }
        }
        Ok(answer)
    }

    /// Sends messages to devices. Those for other servers wait until their servers have taken them.
    ///
    /// # Errors
    /// As [`E2ee::send`] and [`E2ee::send_elsewhere`]; [`E2eeError::InvalidParam`] for users of other servers if nobody would deliver
    /// it. Nothing is sent then.
    pub async fn send_to_devices(
        &self,
        sender: &Requester,
        (kind, txn): (&str, &str),
        messages: Messages,
    ) -> Result<(), E2eeError> {
        let split = Split::new(self.remote.server_name(), messages);
        let txn = SenderTxn {
            sid: sender.sid,
            device: sender.device_key(),
            id: txn,
        };
        if self.e2ee.was_sent(txn, kind).await? {
            return Ok(());
        }
        self.e2ee.check_messages(&split.local)?;
        if let Some(server) = split.remote.keys().next().filter(|_| !self.federates) {
            let message = format!("messages to devices cannot be delivered to {server}");
            return Err(E2eeError::InvalidParam(message));
        }
        if !split.remote.is_empty() {
            let sent = self
                .e2ee
                .send_elsewhere(&sender.user, txn, kind, &split.remote);
            sent.await?;
        }
        // In the end, since this is what marks the transaction as done.
        let sent = self.e2ee.send(&sender.user, Some(txn), kind, &split.local);
        sent.await
    }
}

/// Claims keys of another server's devices; what was not asked for is left out.
async fn claim_there(
    remote: &Remote,
    server: &ServerName,
    claims: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
) -> Result<ClaimedKeys, RemoteError> {
    let asked = claims.iter().map(|(user, devices)| {
        let devices = devices.iter().map(|(device, algorithm)| {
            let algorithm = OneTimeKeyAlgorithm::from(algorithm.as_str());
            (device.as_str().into(), algorithm)
        });
        (user.clone(), devices.collect())
    });
    let request = claim_keys::Request::new(asked.collect());
    let answer = remote
        .call_within(server, request, Bounds::urgent())
        .await?;
    let mut claimed = ClaimedKeys::new();
    for (user, devices) in answer.one_time_keys {
        for (device, keys) in devices {
            let Some(algorithm) = claims.get(&user).and_then(|them| them.get(device.as_str()))
            else {
                continue;
            };
            let prefix = format!("{algorithm}:");
            let key = keys
                .into_iter()
                .find(|(id, _)| id.as_str().starts_with(&prefix));
            if let Some((id, key)) = key {
                let devices = claimed.entry(user.clone()).or_default();
                let keys = devices.entry(device.to_string()).or_default();
                keys.insert(id.to_string(), key.into_json());
            }
        }
    }
    Ok(claimed)
}

/// The name beside a device's keys.
fn name_of(keys: &Raw<ruma::encryption::DeviceKeys>) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Unsigned {
        device_display_name: Option<String>,
    }
    let unsigned = keys.get_field::<Unsigned>("unsigned").ok()??;
    unsigned.device_display_name
}

/// Why keys could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Something about keys.
    #[error(transparent)]
    E2ee(#[from] E2eeError),
    /// Rooms could not be read.
    #[error(transparent)]
    Room(#[from] RoomError),
}
