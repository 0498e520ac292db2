//! One-time keys handed out, each once.
//!
//! The batch that takes a key out asserts that it is there, and the answer waits until that is durable: whatever is killed
//! when, no key is in two answers. A key whose answer was lost is lost, which costs nothing.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim>

use std::{collections::BTreeMap, hash::BuildHasher};

use futures::{StreamExt, TryStreamExt, stream};
use ruma::OwnedUserId;
use serde_json::value::RawValue;
use vatra_store::{Batch, CommitError, Direction, Range, View};

use super::{
    E2ee, E2eeError, MAX_ASKED,
    device_keys::assert_row,
    one_time::{count, hash, put_state},
};
use crate::schema::{self, FallbackKeyRow, UserSid};

/// Which keys are asked for: an algorithm by user and device.
pub type Claims = BTreeMap<OwnedUserId, BTreeMap<String, String>>;
/// A key of each device that had one: by user, device and key id.
pub type ClaimedKeys = BTreeMap<OwnedUserId, BTreeMap<String, BTreeMap<String, Box<RawValue>>>>;

/// How many devices of one request are worked on at once; their batches share the synced writes.
const AT_ONCE: usize = 64;

impl E2ee {
    /// Takes one key of each device asked for: the oldest one-time key, or the fallback key if there is none. Devices without
    /// either are missing from the answer.
    ///
    /// # Errors
    /// [`E2eeError::TooLarge`] for more than [`MAX_ASKED`] devices.
    pub async fn claim(&self, claims: &Claims) -> Result<ClaimedKeys, E2eeError> {
        if claims.values().map(BTreeMap::len).sum::<usize>() > MAX_ASKED {
            let message = format!("more than {MAX_ASKED} devices in one request");
            return Err(E2eeError::TooLarge(message));
        }
        let mut wanted = Vec::new();
        for (user, devices) in claims {
            let Some(sid) = self.inner.ids.user(user).await? else {
                continue;
            };
            let devices = devices.iter();
            wanted.extend(devices.map(|(device, algorithm)| (user, sid, device, algorithm)));
        }
        // One future each, boxed in a list first: each owns what it needs.
        let claims: Vec<_> = wanted
            .into_iter()
            .map(|(user, sid, device, algorithm)| {
                let (e2ee, user) = (self.clone(), user.clone());
                let (device, algorithm) = (device.clone(), algorithm.clone());
                async move {
                    let key = e2ee.claim_one((sid, device.clone()), &algorithm).await?;
                    Ok::<_, E2eeError>((user, device, key))
                }
            })
            .collect();
        let found: Vec<_> = stream::iter(claims)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let mut answer = ClaimedKeys::new();
        for (user, device, key) in found {
            if let Some((id, key)) = key {
                let devices = answer.entry(user).or_default();
                devices.entry(device).or_default().insert(id, key);
            }
        }
        Ok(answer)
    }

    /// One key of one device.
    async fn claim_one(
        &self,
        device: (UserSid, String),
        algorithm: &str,
    ) -> Result<Option<(String, Box<RawValue>)>, E2eeError> {
        // Claims of one device go one after the other. The asserts decide; this spares the losers a try.
        let _turn = self.turn(&device).lock().await;
        loop {
            let view = self.store().view();
            let (batch, id, json) = match self.take(&view, &device, algorithm).await? {
                Take::Nothing => return Ok(None),
                Take::Again(row) => (None, row.id, row.key),
                Take::Key { batch, id, json } => (Some(batch), id, json),
            };
            if let Some(batch) = batch {
                match self.store().write(batch).await {
                    Err(CommitError::AssertFailed) => continue,
                    Err(error) => return Err(error.into()),
                    Ok(_) => {}
                }
            }
            let key = RawValue::from_string(json)
                .map_err(|_| vatra_store::StoreError::corrupt("a one-time key is no JSON"))?;
            return Ok(Some((id, key)));
        }
    }

    async fn take(
        &self,
        view: &View,
        device: &(UserSid, String),
        algorithm: &str,
    ) -> Result<Take, E2eeError> {
        let before = view.get(&schema::KEY_STATES, device).await?;
        let mut state = before.clone().unwrap_or_default();
        let place = (device.0, device.1.clone(), algorithm.to_owned());
        let mut batch = Batch::new();
        let oldest = view
            .first(
                &schema::ONE_TIME_KEYS,
                Range::prefix(&place),
                Direction::Forward,
            )
            .await?;
        if let Some((key, json)) = oldest {
            batch.assert_equals(&schema::ONE_TIME_KEYS, &key, &json);
            batch.delete(&schema::ONE_TIME_KEYS, &key);
            let ((sid, device_id), hash) = (device.clone(), hash(&json));
            batch.put_at_position(&schema::CLAIMED_KEYS, move |position| {
                ((sid, device_id, position, hash), ())
            });
            count(&mut state, algorithm, -1);
            put_state(&mut batch, device.clone(), before.as_ref(), state);
            let id = key.4;
            return Ok(Take::Key { batch, id, json });
        }
        let Some(row) = view.get(&schema::FALLBACK_KEYS, &place).await? else {
            return Ok(Take::Nothing);
        };
        if row.used {
            return Ok(Take::Again(row));
        }
        assert_row(&mut batch, &schema::FALLBACK_KEYS, &place, Some(&row));
        let used = FallbackKeyRow {
            used: true,
            ..row.clone()
        };
        batch.put(&schema::FALLBACK_KEYS, &place, &used);
        state.unused_fallback.retain(|it| it != algorithm);
        put_state(&mut batch, device.clone(), before.as_ref(), state);
        Ok(Take::Key {
            batch,
            id: row.id,
            json: row.key,
        })
    }

    fn turn(&self, device: &(UserSid, String)) -> &tokio::sync::Mutex<()> {
        let hash = self.inner.hasher.hash_one(device);
        let [first, others @ ..] = &self.inner.turns;
        let place = usize::try_from(hash % 64).unwrap_or(0);
        others.get(place).unwrap_or(first)
    }
}

/// What there is to hand out.
enum Take {
    Nothing,
    /// A fallback key that was handed out before.
    Again(FallbackKeyRow),
    /// A key, once this batch is written.
    Key {
        batch: Batch,
        id: String,
        json: String,
    },
}
