//! One-time and fallback keys as they come in, and what is left of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use vatra_store::{Batch, Direction, Position, Range, StoreError, View};

use super::{
    E2ee, E2eeError, MAX_ONE_TIME_KEYS,
    device_keys::{Owner, assert_row},
    parse::{self, OneTimeKey},
};
use crate::schema::{self, FallbackKeyRow, KeyStateRow, UserSid, topic};

/// How many keys that were handed out are remembered for a device: clients repeat an upload soon or never.
const REMEMBERED: usize = 500;

/// One-time and fallback keys of one upload.
pub(super) struct OneTimeKeys {
    one_time: Vec<OneTimeKey>,
    fallback: Vec<OneTimeKey>,
}

impl OneTimeKeys {
    pub(super) fn parse(
        one_time: &BTreeMap<String, Box<RawValue>>,
        fallback: &BTreeMap<String, Box<RawValue>>,
    ) -> Result<Self, E2eeError> {
        if one_time.len() > MAX_ONE_TIME_KEYS {
            return Err(too_many());
        }
        let read = |keys: &BTreeMap<String, Box<RawValue>>| {
            let keys = keys.iter().map(|(id, json)| parse::one_time_key(id, json));
            keys.collect::<Result<Vec<_>, _>>()
        };
        let (one_time, fallback) = (read(one_time)?, read(fallback)?);
        let algorithms: BTreeSet<&str> = fallback.iter().map(|key| &*key.algorithm).collect();
        if algorithms.len() < fallback.len() || algorithms.len() > 8 {
            let message = "there is one fallback key an algorithm, and eight algorithms at most";
            return Err(E2eeError::InvalidParam(message.to_owned()));
        }
        Ok(Self { one_time, fallback })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &OneTimeKey> {
        self.one_time.iter().chain(&self.fallback)
    }
}

/// Adds the new ones among these keys to a batch; gives how many one-time keys are then left, by algorithm. `renewed`: the
/// batch removes all earlier keys of the device first.
pub(super) async fn put(
    view: &View,
    batch: &mut Batch,
    owner: Owner<'_>,
    keys: &OneTimeKeys,
    renewed: bool,
) -> Result<Vec<(String, u64)>, E2eeError> {
    let stored = view.get(&schema::KEY_STATES, &owner.key()).await?;
    let mut state = stored.clone().filter(|_| !renewed).unwrap_or_default();
    if keys.all().next().is_none() {
        return Ok(state.one_time);
    }
    let new = new_keys(view, batch, owner, keys, renewed).await?;
    for key in &new {
        count(&mut state, &key.algorithm, 1);
        let (sid, device) = owner.key();
        let (algorithm, id, json) = (key.algorithm.clone(), key.id.clone(), key.json.clone());
        batch.put_at_position(&schema::ONE_TIME_KEYS, move |position| {
            ((sid, device, algorithm, position, id), json)
        });
    }
    let total: u64 = state.one_time.iter().map(|(_, count)| count).sum();
    if total > u64::try_from(MAX_ONE_TIME_KEYS).unwrap_or(u64::MAX) {
        return Err(too_many());
    }
    let mut changed = !new.is_empty();
    for key in &keys.fallback {
        let place = (owner.sid, owner.device.to_owned(), key.algorithm.clone());
        let known = view.get(&schema::FALLBACK_KEYS, &place).await?;
        let known = known.filter(|_| !renewed);
        if known.is_some_and(|row| row.id == key.id && row.key == key.json) {
            continue;
        }
        let row = FallbackKeyRow {
            id: key.id.clone(),
            key: key.json.clone(),
            used: false,
        };
        batch.put(&schema::FALLBACK_KEYS, &place, &row);
        if !state.unused_fallback.contains(&key.algorithm) {
            state.unused_fallback.push(key.algorithm.clone());
        }
        changed = true;
    }
    if changed {
        let counts = state.one_time.clone();
        put_state(batch, owner.key(), stored.as_ref(), state);
        return Ok(counts);
    }
    Ok(state.one_time)
}

/// The one-time keys that are neither there already nor were handed out.
async fn new_keys<'a>(
    view: &View,
    batch: &mut Batch,
    owner: Owner<'_>,
    keys: &'a OneTimeKeys,
    renewed: bool,
) -> Result<Vec<&'a OneTimeKey>, E2eeError> {
    if renewed || keys.one_time.is_empty() {
        return Ok(keys.one_time.iter().collect());
    }
    let range = Range::prefix(&owner.key());
    let known = view
        .range(
            &schema::ONE_TIME_KEYS,
            range.clone(),
            Direction::Forward,
            usize::MAX,
        )
        .await?;
    let known: HashMap<String, String> = known
        .into_iter()
        .map(|((_, _, _, _, id), json)| (id, json))
        .collect();
    let claimed = view
        .range(
            &schema::CLAIMED_KEYS,
            range,
            Direction::Backward,
            usize::MAX,
        )
        .await?;
    for (key, ()) in claimed.iter().skip(REMEMBERED) {
        batch.delete(&schema::CLAIMED_KEYS, key);
    }
    let claimed: HashSet<[u8; 32]> = claimed
        .into_iter()
        .map(|((_, _, _, hash), ())| hash)
        .collect();
    let mut new = Vec::new();
    for key in &keys.one_time {
        match known.get(&key.id) {
            Some(json) if *json == key.json => {}
            Some(_) => {
                let message = format!("there is another one-time key {}", key.id);
                return Err(E2eeError::InvalidParam(message));
            }
            None if claimed.contains(&hash(&key.json)) => {}
            None => new.push(key),
        }
    }
    Ok(new)
}

/// Writes what is left of a device's keys, unless that changed meanwhile.
pub(super) fn put_state(
    batch: &mut Batch,
    key: (UserSid, String),
    before: Option<&KeyStateRow>,
    state: KeyStateRow,
) {
    assert_row(batch, &schema::KEY_STATES, &key, before);
    batch.wake(topic::devices(key.0));
    batch.put_at_position(&schema::KEY_STATES, move |changed| {
        (key, KeyStateRow { changed, ..state })
    });
}

/// Changes a count; algorithms without keys are not listed.
pub(super) fn count(state: &mut KeyStateRow, algorithm: &str, change: i64) {
    let place = state.one_time.iter().position(|(it, _)| it == algorithm);
    let before = place.map(|place| state.one_time.swap_remove(place).1);
    let after = before.unwrap_or(0).saturating_add_signed(change);
    if after > 0 {
        state.one_time.push((algorithm.to_owned(), after));
    }
    state.one_time.sort();
}

/// What is remembered of a one-time key that was handed out, given its public key or stored form.
pub(super) fn hash(json: &str) -> [u8; 32] {
    // The public key alone: two signatures of one key are still one key.
    let public = serde_json::from_str::<KeyAlone<'_>>(json).map_or(json, |alone| alone.key);
    Sha256::digest(public.trim_matches('"').as_bytes()).into()
}

#[derive(serde::Deserialize)]
struct KeyAlone<'a> {
    key: &'a str,
}

fn too_many() -> E2eeError {
    E2eeError::TooLarge(format!(
        "a device has at most {MAX_ONE_TIME_KEYS} one-time keys"
    ))
}

impl E2ee {
    /// What a device has left of one-time and fallback keys. From memory unless something of the user's own changed.
    pub async fn key_state(
        &self,
        view: &View,
        user: UserSid,
        device: &str,
    ) -> Result<Arc<KeyStateRow>, StoreError> {
        let key = (user, device.to_owned());
        if let Some((checked, state)) = self.inner.states.get(&key)
            && !self.store().changed_since(topic::devices(user), checked)
        {
            return Ok(state);
        }
        let checked: Position = view.watermark();
        let state = view.get(&schema::KEY_STATES, &key).await?;
        let state = Arc::new(state.unwrap_or_default());
        self.inner.states.insert(key, (checked, Arc::clone(&state)));
        Ok(state)
    }
}
