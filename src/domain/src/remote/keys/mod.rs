//! Signing keys: this server's own, published; those of other servers, fetched, checked and kept.
//!
//! A key is got from its own server, or, if that cannot be reached, from a notary that the operator trusts: any other server
//! could invent a key for one that is away. It is kept with the time up to which its server vouched for it, a week at most;
//! what is signed later needs a fresh answer. Fetches of one server's keys happen once however many ask, many servers are
//! fetched side by side, and a server that had no answer is left alone for a moment.
//!
//! Called by whoever checks what others have signed: events, requests, device lists. Invariants: a key enters the store only from a
//! document that its own server has signed with a key listed in it; this server's own keys never come from outside.
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

mod document;
mod fetch;
mod own;

use std::{collections::BTreeMap, sync::Arc};

use dashmap::DashMap;
use futures::{StreamExt, stream};
use quick_cache::sync::Cache;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedServerName,
    OwnedServerSigningKeyId, ServerName, ServerSigningKeyId,
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::{
        PublicKeyMap, Verified, required_server_signatures_to_verify_event, verify_event,
    },
};
use tokio::sync::{Mutex, Semaphore};
use vatra_store::{Store, StoreError};

pub use self::own::CommitOrRead;
use super::Remote;
use crate::{
    clock::{Millis, SharedClock},
    event::signer::Signer,
    schema::{self, ServerKeyRow},
};

/// The most keys of one server that are looked at for one object.
const MAX_SIGNATURES: usize = 8;
/// The most servers whose keys are fetched side by side.
const SIDE_BY_SIDE: usize = 64;

/// Why a signature does not hold.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// No key that could check it can be had now. Later, that may be different.
    #[error("no valid key of {0} can be had")]
    NoKey(OwnedServerName),
    /// The signature is missing or wrong.
    #[error("not signed as it must be: {0}")]
    BadSignature(String),
    /// The object has not the form of what it should be.
    #[error("it cannot be checked: {0}")]
    Malformed(String),
}

/// All keys. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: SharedClock,
    signer: Arc<Signer>,
    remote: Remote,
    notaries: Vec<OwnedServerName>,
    /// Rows by server and key id.
    known: Cache<(OwnedServerName, String), ServerKeyRow>,
    /// Who fetches a server's keys holds its lock.
    fetching: DashMap<OwnedServerName, Arc<Mutex<()>>>,
    /// When a server's keys were last asked for.
    asked: Cache<OwnedServerName, Millis>,
    slots: Semaphore,
}

/// What [`Keys`] is made of.
pub struct Parts {
    /// Where keys are kept.
    pub store: Store,
    /// The time.
    pub clock: SharedClock,
    /// This server's key.
    pub signer: Arc<Signer>,
    /// How other servers are asked.
    pub remote: Remote,
    /// Who is asked about servers that cannot be reached. Whoever stands here can forge what those servers say.
    pub notaries: Vec<OwnedServerName>,
}

impl Keys {
    /// Reads this server's own keys from the store: one that is there and not in use any more is published as retired.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(parts: Parts) -> Result<Self, CommitOrRead> {
        own::retire(&parts).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                store: parts.store,
                clock: parts.clock,
                signer: parts.signer,
                remote: parts.remote,
                notaries: parts.notaries,
                known: Cache::new(20_000),
                fetching: DashMap::new(),
                asked: Cache::new(20_000),
                slots: Semaphore::new(SIDE_BY_SIDE),
            }),
        })
    }

    /// The keys of servers that are wanted, as far as they can be had: those that hold for what was signed `at` that time. Missing
    /// ones are fetched; how long that may take is bounded by the timeouts of the requests (half a minute).
    pub async fn verifying(
        &self,
        wanted: &[(OwnedServerName, OwnedServerSigningKeyId)],
        at: MilliSecondsSinceUnixEpoch,
    ) -> PublicKeyMap {
        let mut by_server: BTreeMap<OwnedServerName, Vec<OwnedServerSigningKeyId>> =
            BTreeMap::new();
        for (server, key) in wanted {
            by_server
                .entry(server.clone())
                .or_default()
                .push(key.clone());
        }
        let at = u64::from(at.0);
        let found = stream::iter(by_server)
            .map(|(server, keys)| self.clone().of_server(server, keys, at))
            .buffer_unordered(SIDE_BY_SIDE);
        found
            .filter(|(_, rows)| std::future::ready(!rows.is_empty()))
            .collect()
            .await
    }

    /// Checks that an event is signed by every server that must have signed it, with keys that held when it was made (from room
    /// version 5 on), and whether its content is what was hashed: [`Verified::Signatures`] says that it is not, and the
    /// caller goes on with the redacted event.
    /// <https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events>
    ///
    /// Costs a serialisation, a hash and a signature check for each server; and the network, for keys never seen.
    ///
    /// # Errors
    /// [`KeyError::NoKey`] may pass; the others do not.
    pub async fn check_event(
        &self,
        object: &CanonicalJsonObject,
        rules: &RoomVersionRules,
    ) -> Result<Verified, KeyError> {
        let (wanted, at) = Self::wanted_by(object, rules)?;
        let keys = self.verifying(&wanted, at).await;
        for (server, _) in &wanted {
            if !keys.contains_key(server.as_str()) {
                return Err(KeyError::NoKey(server.clone()));
            }
        }
        verify_event(&keys, object, rules)
            .map_err(|error| KeyError::BadSignature(error.to_string()))
    }

    /// The keys that check an event, and the time they must hold for: for callers with many events, who fetch all keys at once with
    /// [`Keys::verifying`] and check on many cores.
    ///
    /// # Errors
    /// Why the event cannot be good, whatever the keys.
    pub fn wanted_by(
        object: &CanonicalJsonObject,
        rules: &RoomVersionRules,
    ) -> Result<
        (
            Vec<(OwnedServerName, OwnedServerSigningKeyId)>,
            MilliSecondsSinceUnixEpoch,
        ),
        KeyError,
    > {
        let required = required_server_signatures_to_verify_event(object, &rules.signatures)
            .map_err(|error| KeyError::Malformed(error.to_string()))?;
        let mut wanted = Vec::new();
        for server in required {
            let keys = signing_keys(object, &server);
            if keys.is_empty() {
                return Err(KeyError::BadSignature(format!("not signed by {server}")));
            }
            wanted.extend(keys.into_iter().map(|key| (server.clone(), key)));
        }
        let made = match object.get("origin_server_ts") {
            Some(CanonicalJsonValue::Integer(made)) => {
                ruma::UInt::try_from(i64::from(*made)).unwrap_or_default()
            }
            _ => return Err(KeyError::Malformed("it has no origin_server_ts".to_owned())),
        };
        let at = if rules.enforce_key_validity {
            made
        } else {
            ruma::UInt::MIN
        };
        Ok((wanted, MilliSecondsSinceUnixEpoch(at)))
    }

    /// Checks one server's signature of an object that is no event, with keys that hold `at` that time. Signatures of others
    /// are not looked at.
    ///
    /// # Errors
    /// [`KeyError::NoKey`] may pass; the others do not.
    pub async fn verify_json(
        &self,
        server: &ServerName,
        object: &CanonicalJsonObject,
        at: MilliSecondsSinceUnixEpoch,
    ) -> Result<(), KeyError> {
        let ids = signing_keys(object, server);
        if ids.is_empty() {
            return Err(KeyError::BadSignature(format!("not signed by {server}")));
        }
        let keys = self.rows_of(server, &ids, u64::from(at.0)).await;
        if keys.is_empty() {
            return Err(KeyError::NoKey(server.to_owned()));
        }
        let keys = keys.into_iter().map(|(id, row)| (id, row.key)).collect();
        document::signed_by(object, server, &keys).map_err(KeyError::BadSignature)
    }

    /// What another server has published, with this server's signature added: it was checked that the other one signed it. `None` if
    /// it cannot be had. A stored answer that holds until `valid_until` is good enough, and has the keys named in `ids`; else the
    /// server is asked.
    /// <https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server>
    ///
    /// # Errors
    /// The store's.
    pub async fn notarised(
        &self,
        server: &ServerName,
        ids: &[OwnedServerSigningKeyId],
        valid_until: MilliSecondsSinceUnixEpoch,
    ) -> Result<Option<CanonicalJsonObject>, StoreError> {
        if server == self.inner.signer.server_name() {
            return Ok(Some(self.published().await?));
        }
        let least = u64::from(valid_until.0).max(self.inner.clock.now());
        let mut stored = self.stored_document(server).await?;
        let good = stored.as_ref().is_some_and(|(document, until)| {
            *until >= least && ids.iter().all(|id| lists(document, id))
        });
        if !good {
            self.fetch(server).await;
            stored = self.stored_document(server).await?;
        }
        let Some((mut document, _)) = stored else {
            return Ok(None);
        };
        self.inner
            .signer
            .sign_json(&mut document)
            .map_err(StoreError::corrupt)?;
        Ok(Some(document))
    }

    async fn stored_document(
        &self,
        server: &ServerName,
    ) -> Result<Option<(CanonicalJsonObject, Millis)>, StoreError> {
        let view = self.inner.store.view();
        let row = view
            .get(&schema::KEY_DOCUMENTS, &server.to_string())
            .await?;
        let read = |row: schema::KeyDocumentRow| {
            let object = serde_json::from_str(&row.json).map_err(|_| {
                StoreError::corrupt(format!("the key document of {server} is not JSON"))
            })?;
            Ok((object, row.valid_until))
        };
        row.map(read).transpose()
    }

    async fn of_server(
        self,
        server: OwnedServerName,
        ids: Vec<OwnedServerSigningKeyId>,
        at: Millis,
    ) -> (String, BTreeMap<String, Base64>) {
        let rows = self.rows_of(&server, &ids, at).await.into_iter();
        let keys = rows.map(|(id, row)| (id, Base64::new(row.key.to_vec())));
        (server.to_string(), keys.collect())
    }

    /// The rows of a server's keys that hold at a time; fetched if one is missing and could be there.
    async fn rows_of(
        &self,
        server: &ServerName,
        ids: &[OwnedServerSigningKeyId],
        at: Millis,
    ) -> BTreeMap<String, ServerKeyRow> {
        let found = self.held(server, ids, at).await;
        let now = self.inner.clock.now();
        let out_of_reach = at > now.saturating_add(document::LONGEST_VALIDITY_MS);
        let ours = server == self.inner.signer.server_name();
        if found.len() == ids.len() || out_of_reach || ours {
            return found;
        }
        self.fetch(server).await;
        self.held(server, ids, at).await
    }

    async fn held(
        &self,
        server: &ServerName,
        ids: &[OwnedServerSigningKeyId],
        at: Millis,
    ) -> BTreeMap<String, ServerKeyRow> {
        let mut found = BTreeMap::new();
        for id in ids {
            if let Some(row) = self.row(server, id).await
                && row.valid_until >= at
            {
                found.insert(id.to_string(), row);
            }
        }
        found
    }

    /// A key that is known. A store that cannot be read knows none.
    async fn row(&self, server: &ServerName, id: &ServerSigningKeyId) -> Option<ServerKeyRow> {
        let key = (server.to_owned(), id.to_string());
        if let Some(row) = self.inner.known.get(&key) {
            return Some(row);
        }
        let name = (server.to_string(), id.to_string());
        let view = self.inner.store.view();
        let row = match view.get(&schema::SERVER_KEYS, &name).await {
            Ok(row) => row?,
            Err(error) => {
                tracing::warn!(%server, %error, "a server's key cannot be read");
                return None;
            }
        };
        self.inner.known.insert(key, row.clone());
        Some(row)
    }
}

/// The ed25519 keys with which an object says that it is signed by a server.
fn signing_keys(object: &CanonicalJsonObject, server: &ServerName) -> Vec<OwnedServerSigningKeyId> {
    let signatures = object
        .get("signatures")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|all| all.get(server.as_str()))
        .and_then(CanonicalJsonValue::as_object);
    let ids = signatures
        .into_iter()
        .flat_map(|signatures| signatures.keys());
    ids.filter(|id| id.starts_with("ed25519:"))
        .filter_map(|id| ServerSigningKeyId::parse(id).ok())
        .take(MAX_SIGNATURES)
        .collect()
}

fn lists(document: &CanonicalJsonObject, id: &ServerSigningKeyId) -> bool {
    ["verify_keys", "old_verify_keys"].iter().any(|kind| {
        document
            .get(*kind)
            .and_then(CanonicalJsonValue::as_object)
            .is_some_and(|keys| keys.contains_key(id.as_str()))
    })
}
