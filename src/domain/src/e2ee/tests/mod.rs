//! Keys and messages over the in-memory engine, with devices that have real Olm accounts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod backup;
mod check;
mod claims;
mod cross_signing;
mod inbox;
mod remote_lists;
mod upload;

use std::{collections::BTreeMap, sync::Arc};

use ruma::{CanonicalJsonObject, OwnedUserId};
use serde_json::{Value, json, value::RawValue};
use vatra_store::{MemoryEngine, Options, Store};
use vodozemac::{Ed25519SecretKey, olm::Account};

use super::*;
use crate::{
    clock::ManualClock,
    random::SystemRandom,
    schema::{self, migrations},
    users::{Login, NewAccount, Users},
};

/// A server's accounts and keys.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) users: Users,
    pub(super) e2ee: E2ee,
}

/// A device and its secrets.
pub(super) struct Device {
    pub(super) user: OwnedUserId,
    pub(super) sid: UserSid,
    pub(super) id: String,
    pub(super) account: Account,
}

pub(super) async fn world() -> World {
    let engine = Arc::new(MemoryEngine::new());
    let store = Store::open(engine, Options::default(), migrations())
        .await
        .unwrap();
    world_on(store)
}

pub(super) fn world_on(store: Store) -> World {
    let ids = Ids::new(store.clone(), 100);
    let name = ruma::server_name!("test").to_owned();
    let users = Users::new(
        store.clone(),
        ids.clone(),
        ManualClock::new(1_000),
        Arc::new(SystemRandom),
        name,
    );
    let e2ee = E2ee::new(store.clone(), ids);
    World { store, users, e2ee }
}

impl World {
    /// A new user with a device.
    pub(super) async fn user(&self, name: &str) -> Device {
        let account = NewAccount {
            name: Some(name.to_owned()),
            ..NewAccount::default()
        };
        let (user, sid) = self.users.register(account).await.unwrap();
        self.device(user, sid).await
    }

    /// Another device of a user.
    pub(super) async fn device(&self, user: OwnedUserId, sid: UserSid) -> Device {
        let session = self.users.login(user.clone(), sid, Login::default());
        let id = session.await.unwrap().device.to_string();
        Device {
            user,
            sid,
            id,
            account: Account::new(),
        }
    }

    pub(super) async fn upload(
        &self,
        device: &Device,
        upload: KeysUpload,
    ) -> Result<Vec<(String, u64)>, E2eeError> {
        self.e2ee
            .upload_keys(&device.user, device.sid, &device.id, &upload)
            .await
    }

    /// A key of a device, if it has any: its id and the public key.
    pub(super) async fn claim(&self, device: &Device) -> Option<(String, String)> {
        let asked = BTreeMap::from([(device.id.clone(), "signed_curve25519".to_owned())]);
        let claims = Claims::from([(device.user.clone(), asked)]);
        let found = self.e2ee.claim(&claims).await.unwrap();
        let (id, key) = found.get(&device.user)?.get(&device.id)?.iter().next()?;
        let key: Value = serde_json::from_str(key.get()).unwrap();
        Some((id.clone(), key["key"].as_str().unwrap().to_owned()))
    }

    pub(super) async fn left(&self, device: &Device) -> KeyStateRow {
        let view = self.store.view();
        let state = self.e2ee.key_state(&view, device.sid, &device.id);
        KeyStateRow::clone(&*state.await.unwrap())
    }

    /// One device of a user as another sees it.
    pub(super) async fn shown(&self, viewer: &Device, device: &Device) -> Value {
        let keys = self.keys(viewer, device).await;
        json_of(&keys.devices[&device.id])
    }

    pub(super) async fn keys(&self, viewer: &Device, of: &Device) -> KeysOf {
        let viewer = Some((&*viewer.user, viewer.sid));
        self.e2ee
            .keys_of(viewer, &of.user, &[])
            .await
            .unwrap()
            .unwrap()
    }
}

impl Device {
    pub(super) fn key_id(&self) -> String {
        format!("ed25519:{}", self.id)
    }

    pub(super) fn sign(&self, object: Value) -> Value {
        let signature = self.account.sign(canonical(&object)).to_base64();
        signed(object, &self.user, &self.key_id(), &signature)
    }

    /// Its identity keys, signed by itself.
    pub(super) fn keys(&self) -> Value {
        let (user, id) = (&self.user, &self.id);
        self.sign(json!({
            "user_id": user,
            "device_id": id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("ed25519:{id}"): self.account.ed25519_key().to_base64(),
                format!("curve25519:{id}"): self.account.curve25519_key().to_base64(),
            },
        }))
    }

    /// So many new one-time keys, signed.
    pub(super) fn one_time_keys(&mut self, count: usize) -> BTreeMap<String, Box<RawValue>> {
        self.account.generate_one_time_keys(count);
        let keys = self.account.one_time_keys();
        self.account.mark_keys_as_published();
        keys.into_iter()
            .map(|(id, key)| {
                let key = self.sign(json!({ "key": key.to_base64() }));
                (format!("signed_curve25519:{}", id.to_base64()), raw(&key))
            })
            .collect()
    }

    pub(super) fn fallback_key(&mut self) -> BTreeMap<String, Box<RawValue>> {
        self.account.generate_fallback_key();
        let keys = self.account.fallback_key();
        self.account.mark_keys_as_published();
        keys.into_iter()
            .map(|(id, key)| {
                let key = self.sign(json!({ "key": key.to_base64(), "fallback": true }));
                (format!("signed_curve25519:{}", id.to_base64()), raw(&key))
            })
            .collect()
    }

    /// Its identity and so many one-time keys.
    pub(super) fn everything(&mut self, count: usize) -> KeysUpload {
        KeysUpload {
            device_keys: Some(raw(&self.keys())),
            one_time_keys: self.one_time_keys(count),
            fallback_keys: BTreeMap::new(),
        }
    }
}

/// A cross-signing key and its secret.
pub(super) struct SigningKey {
    pub(super) secret: Ed25519SecretKey,
    usage: &'static str,
}

impl SigningKey {
    pub(super) fn new(usage: &'static str) -> Self {
        let secret = Ed25519SecretKey::new();
        Self { secret, usage }
    }

    pub(super) fn public(&self) -> String {
        self.secret.public_key().to_base64()
    }

    pub(super) fn key_id(&self) -> String {
        format!("ed25519:{}", self.public())
    }

    pub(super) fn object(&self, user: &OwnedUserId) -> Value {
        json!({ "user_id": user, "usage": [self.usage], "keys": { self.key_id(): self.public() } })
    }

    pub(super) fn sign(&self, object: Value, user: &OwnedUserId) -> Value {
        let signature = self.secret.sign(canonical(&object).as_bytes()).to_base64();
        signed(object, user, &self.key_id(), &signature)
    }
}

fn signed(mut object: Value, user: &OwnedUserId, key_id: &str, signature: &str) -> Value {
    object["signatures"][user.as_str()][key_id] = json!(signature);
    object
}

fn canonical(object: &Value) -> String {
    let mut object: CanonicalJsonObject = serde_json::from_value(object.clone()).unwrap();
    object.remove("signatures");
    object.remove("unsigned");
    serde_json::to_string(&object).unwrap()
}

/// The public key in a key object of these.
pub(super) fn publics(keys: &BTreeMap<String, Box<RawValue>>) -> Vec<String> {
    let keys = keys.values().map(|key| json_of(key)["key"].clone());
    keys.map(|key| key.as_str().unwrap().to_owned()).collect()
}

pub(super) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

pub(super) fn json_of(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap()
}
