//! End-to-end encryption as clients see it: keys, device lists, messages to devices, backups.

mod backup;
mod device_lists;
mod keys;
mod messages;
mod signing;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use vodozemac::{Ed25519SecretKey, olm::Account};

use crate::harness::{Engine, PASSWORD, Server, User, both_engines, encoded, refused, succeeds};

/// A user's device with an Olm account.
struct Device {
    user: User,
    account: Account,
}

impl Device {
    fn of(user: &User) -> Self {
        Self {
            user: user.clone(),
            account: Account::new(),
        }
    }

    /// One with its keys on the server.
    async fn with_keys(user: &User, one_time: usize) -> Self {
        let mut device = Self::of(user);
        let body = json!({ "device_keys": device.keys(), "one_time_keys": device.one_time_keys(one_time) });
        user.post("/keys/upload", body).await;
        device
    }

    fn sign(&self, mut object: Value) -> Value {
        // Maps of serde_json are ordered and these have no exotic strings: this is canonical.
        let signature = self.account.sign(object.to_string()).to_base64();
        object["signatures"] = json!({ &self.user.id: { self.key_id(): signature } });
        object
    }

    fn key_id(&self) -> String {
        format!("ed25519:{}", self.user.device)
    }

    fn keys(&self) -> Value {
        let (user, device) = (&self.user.id, &self.user.device);
        self.sign(json!({
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "device_id": device,
            "keys": {
                format!("curve25519:{device}"): self.account.curve25519_key().to_base64(),
                format!("ed25519:{device}"): self.account.ed25519_key().to_base64(),
            },
            "user_id": user,
        }))
    }

    fn one_time_keys(&mut self, count: usize) -> Value {
        self.account.generate_one_time_keys(count);
        let keys = self.account.one_time_keys();
        self.account.mark_keys_as_published();
        let keys = keys.into_iter().map(|(id, key)| {
            let key = self.sign(json!({ "key": key.to_base64() }));
            (format!("signed_curve25519:{}", id.to_base64()), key)
        });
        Value::Object(keys.collect())
    }
}

impl User {
    async fn claim(&self, of: &User) -> Value {
        let body = json!({ "one_time_keys": { &of.id: { &of.device: "signed_curve25519" } } });
        self.post("/keys/claim", body).await["one_time_keys"][&of.id][&of.device].clone()
    }

    async fn send_to(&self, txn: &str, other: &User, device: &str, content: Value) {
        let path = format!("/sendToDevice/m.test/{txn}");
        let body = json!({ "messages": { &other.id: { device: content } } });
        self.put(&path, body).await;
    }

    /// The token after a sync and what the sync says of device lists.
    async fn lists(&self, since: &str) -> (String, Vec<String>, Vec<String>) {
        let sync = self.sync(Some(since)).await;
        let list = |name: &str| {
            let users = sync["device_lists"][name].as_array();
            let users = users.into_iter().flatten();
            users
                .map(|user| user.as_str().unwrap().to_owned())
                .collect()
        };
        (token(&sync), list("changed"), list("left"))
    }

    /// Waits in /sync; gives the answer.
    fn wait(&self, since: &str) -> tokio::task::JoinHandle<Value> {
        let (user, path) = (self.clone(), format!("/sync?timeout=20000&since={since}"));
        tokio::spawn(async move { user.get(&path).await })
    }
}

fn token(sync: &Value) -> String {
    sync["next_batch"].as_str().unwrap().to_owned()
}

fn numbers(sync: &Value) -> Vec<u64> {
    let events = sync["to_device"]["events"].as_array();
    let numbers = events.into_iter().flatten();
    numbers
        .map(|event| event["content"]["number"].as_u64().unwrap())
        .collect()
}
