//! Lists of devices of users of other servers: kept current by the changes that follow on each other, and only by those.

use ruma::{UserId, owned_user_id};
use vatra_store::{Batch, Direction, Range};

use super::*;
use crate::e2ee::changes::record;

/// A user of another server with devices, known here.
struct Other {
    world: World,
    viewer: Device,
    user: OwnedUserId,
    sid: UserSid,
}

impl Other {
    async fn new() -> Self {
        let world = world().await;
        let viewer = world.user("viewer").await;
        let user = owned_user_id!("@other:elsewhere.example");
        let sid = world.e2ee.number_of(&user).await.unwrap();
        Self {
            world,
            viewer,
            user,
            sid,
        }
    }

    fn device(&self, id: &str) -> Device {
        Device {
            user: self.user.clone(),
            sid: self.sid,
            id: id.to_owned(),
            account: Account::new(),
        }
    }

    fn change(&self, device: &Device, stream: u64, previous: &[u64]) -> RemoteChange {
        RemoteChange {
            id: device.id.clone(),
            keys: Some(raw(&device.keys())),
            name: None,
            stream,
            previous: previous.to_vec(),
        }
    }

    async fn told(&self, change: &RemoteChange) {
        let user: &UserId = &self.user;
        let e2ee = &self.world.e2ee;
        e2ee.remote_device_changed((user, self.sid), change)
            .await
            .unwrap();
    }

    async fn store(&self, stream: u64, devices: &[&Device]) {
        let devices = devices.iter().map(|device| RemoteDevice {
            id: device.id.clone(),
            keys: raw(&device.keys()),
            name: Some(format!("{}'s name", device.id)),
        });
        let list = RemoteList {
            stream,
            devices: devices.collect(),
            ..RemoteList::default()
        };
        let e2ee = &self.world.e2ee;
        e2ee.store_remote_list(&self.user, &list).await.unwrap();
    }

    /// The devices that are known, or nothing if the list is not current.
    async fn known(&self) -> Option<Vec<String>> {
        let viewer = (&*self.viewer.user, self.viewer.sid);
        let keys = self.world.e2ee.known_keys(viewer, &self.user, &[]).await;
        Some(keys.unwrap()?.devices.into_keys().collect())
    }
}

#[tokio::test]
async fn changes_that_follow_on_each_other_keep_a_list_current() {
    let other = Other::new().await;
    let (one, two) = (other.device("ONE"), other.device("TWO"));
    assert_eq!(other.known().await, None);
    other.told(&other.change(&one, 1, &[])).await;
    assert_eq!(other.known().await, None, "one device is not the list");
    other.store(5, &[&one]).await;
    other.told(&other.change(&two, 6, &[5])).await;
    assert_eq!(other.known().await.unwrap(), ["ONE", "TWO"]);
    let viewer = (&*other.viewer.user, other.viewer.sid);
    let keys = other.world.e2ee.known_keys(viewer, &other.user, &[]).await;
    let keys = keys.unwrap().unwrap();
    let shown = json_of(&keys.devices["ONE"]);
    assert_eq!(shown["unsigned"]["device_display_name"], "ONE's name");
    let signed = one.keys()["signatures"].clone();
    assert_eq!(shown["signatures"], signed);

    let gone = RemoteChange {
        keys: None,
        ..other.change(&one, 7, &[6])
    };
    other.told(&gone).await;
    assert_eq!(other.known().await.unwrap(), ["TWO"]);
    // An old one that comes late is in it already.
    other.told(&other.change(&one, 6, &[5])).await;
    assert_eq!(other.known().await.unwrap(), ["TWO"]);
}

#[tokio::test]
async fn a_change_too_few_and_a_room_no_longer_shared_make_a_list_unknown() {
    let other = Other::new().await;
    let (one, two) = (other.device("ONE"), other.device("TWO"));
    for previous in [&[][..], &[7][..], &[5, 7][..]] {
        other.store(5, &[&one]).await;
        other.told(&other.change(&two, 8, previous)).await;
        assert_eq!(other.known().await, None, "{previous:?}");
        other.told(&other.change(&two, 9, &[8])).await;
        assert_eq!(other.known().await, None, "what was missed stays missing");
    }
    other.store(9, &[&one, &two]).await;
    assert_eq!(other.known().await.unwrap(), ["ONE", "TWO"]);
    let (view, mut batch) = (other.world.store.view(), Batch::new());
    let e2ee = &other.world.e2ee;
    e2ee.outdate(&view, &mut batch, &[other.sid]).await.unwrap();
    other.world.store.write(batch).await.unwrap();
    assert_eq!(other.known().await, None);
}

#[tokio::test]
async fn what_cannot_be_a_key_of_that_user_and_device_is_not_kept() {
    let other = Other::new().await;
    let (one, two) = (other.device("ONE"), other.device("TWO"));
    let mut foreign = other.device("THREE");
    foreign.user = owned_user_id!("@somebody:elsewhere.example");
    let renamed = RemoteDevice {
        id: "FOUR".to_owned(),
        keys: raw(&two.keys()),
        name: None,
    };
    let as_device = |device: &Device| RemoteDevice {
        id: device.id.clone(),
        keys: raw(&device.keys()),
        name: None,
    };
    let empty = RemoteDevice {
        id: "FIVE".to_owned(),
        keys: raw(&json!({})),
        name: None,
    };
    let devices = || vec![as_device(&one), as_device(&foreign)];
    let mut list = devices();
    list.extend([renamed, empty]);
    let list = RemoteList {
        stream: 1,
        devices: list,
        master: Some(raw(&json!({ "user_id": "@x:y" }))),
        self_signing: None,
    };
    let e2ee = &other.world.e2ee;
    e2ee.store_remote_list(&other.user, &list).await.unwrap();
    assert_eq!(other.known().await.unwrap(), ["ONE"]);
    let shown = checked_keys(&other.user, devices(), None, None);
    assert_eq!(shown.devices.into_keys().collect::<Vec<_>>(), ["ONE"]);
}

#[tokio::test]
async fn news_are_rows_of_local_users_only_one_a_device() {
    let world = world().await;
    let mut alice = world.user("alice").await;
    let upload = alice.everything(2);
    world.upload(&alice, upload).await.unwrap();
    let name = owned_user_id!("@o:elsewhere.example");
    let other = world.e2ee.number_of(&name).await.unwrap();
    let (view, mut batch) = (world.store.view(), Batch::new());
    record(&view, &mut batch, other).await.unwrap();
    world.store.write(batch).await.unwrap();
    let rows = world
        .store
        .view()
        .range(&schema::KEY_NEWS, Range::all(), Direction::Forward, 10)
        .await
        .unwrap();
    let keys: Vec<_> = rows.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [(alice.sid, alice.id.clone())]);
}
