//! Key backups.

use ruma::{OwnedRoomId, RoomId, room_id};

use super::*;

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

fn backup(algorithm: &str, auth_data: Value) -> NewBackup {
    let new = json!({ "algorithm": algorithm, "auth_data": auth_data });
    serde_json::from_value(new).unwrap()
}

fn key(verified: bool, index: u64, forwarded: u64, data: &str) -> SessionData {
    SessionData {
        first_message_index: index,
        forwarded_count: forwarded,
        is_verified: verified,
        session_data: raw(&json!({ "ciphertext": data })),
    }
}

impl World {
    async fn put(
        &self,
        device: &Device,
        version: &str,
        room: &RoomId,
        session: &str,
        key: SessionData,
    ) -> Result<BackupChange, E2eeError> {
        let sessions = BTreeMap::from([(session.to_owned(), key)]);
        let rooms = BTreeMap::from([(room.to_owned(), RoomSessions { sessions })]);
        self.e2ee.put_backup_keys(device.sid, version, &rooms).await
    }
}

#[tokio::test]
async fn versions_follow_each_other_and_none_comes_twice() {
    let world = world().await;
    let alice = world.user("alice").await;
    let e2ee = &world.e2ee;
    let new = backup(ALGORITHM, json!({ "public_key": "abc" }));
    assert_eq!(e2ee.backup(alice.sid, None).await.unwrap(), None);
    assert_eq!(e2ee.create_backup(alice.sid, &new).await.unwrap(), 1);
    assert_eq!(e2ee.create_backup(alice.sid, &new).await.unwrap(), 2);
    e2ee.delete_backup(alice.sid, "2").await.unwrap();
    e2ee.delete_backup(alice.sid, "2").await.unwrap();
    assert_eq!(e2ee.backup(alice.sid, Some("2")).await.unwrap(), None);
    let current = e2ee.backup(alice.sid, None).await.unwrap().unwrap();
    assert_eq!(current.version, 1);
    assert_eq!(e2ee.create_backup(alice.sid, &new).await.unwrap(), 3);
    for none in ["4", "0", "01", "+1", "", "one", "99999999999999999999999"] {
        let gone = e2ee.delete_backup(alice.sid, none).await.unwrap_err();
        assert!(matches!(gone, E2eeError::NotFound(_)), "{none}");
    }
}

#[tokio::test]
async fn only_the_auth_data_of_a_version_changes() {
    let world = world().await;
    let alice = world.user("alice").await;
    let first = backup(ALGORITHM, json!({ "public_key": "abc" }));
    world.e2ee.create_backup(alice.sid, &first).await.unwrap();
    let mut new = backup(ALGORITHM, json!({ "public_key": "abc", "signatures": {} }));
    world
        .e2ee
        .update_backup(alice.sid, "1", &new)
        .await
        .unwrap();
    let row = world
        .e2ee
        .backup(alice.sid, Some("1"))
        .await
        .unwrap()
        .unwrap()
        .row;
    assert!(row.auth_data.contains("signatures"));
    new.version = Some("2".to_owned());
    let refused = world.e2ee.update_backup(alice.sid, "1", &new).await;
    assert!(matches!(refused, Err(E2eeError::InvalidParam(_))));
    let other = backup("m.other", json!({}));
    let refused = world.e2ee.update_backup(alice.sid, "1", &other).await;
    assert!(matches!(refused, Err(E2eeError::InvalidParam(_))));
    let refused = world.e2ee.update_backup(alice.sid, "7", &first).await;
    assert!(matches!(refused, Err(E2eeError::NotFound(_))));
    for bad in [
        backup(ALGORITHM, json!({})),
        backup(ALGORITHM, json!("key")),
        backup("", json!({})),
        backup("m.other", json!({ "filling": "x".repeat(70_000) })),
    ] {
        assert!(world.e2ee.create_backup(alice.sid, &bad).await.is_err());
    }
}

#[tokio::test]
async fn a_key_is_replaced_by_a_better_one_only() {
    let world = world().await;
    let alice = world.user("alice").await;
    let new = backup("m.test", json!({}));
    world.e2ee.create_backup(alice.sid, &new).await.unwrap();
    let room = room_id!("!room:test");
    let stored = async || {
        let key = world
            .e2ee
            .backup_key(alice.sid, "1", room, "s")
            .await
            .unwrap();
        json_of(&key.session_data)["ciphertext"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // Verified or not, first index, forwarded count; whether it takes the place of what is there.
    for (number, (verified, index, forwarded, better)) in [
        (false, 10, 5, true),
        (false, 11, 5, false),
        (false, 10, 6, false),
        (false, 11, 0, false),
        (false, 10, 5, false),
        (false, 10, 4, true),
        (false, 9, 9, true),
        (true, 20, 9, true),
        (false, 0, 0, false),
        (true, 21, 0, false),
        (true, 20, 8, true),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{number}: {verified} {index} {forwarded}");
        let before = world
            .e2ee
            .backup(alice.sid, None)
            .await
            .unwrap()
            .unwrap()
            .row;
        let key = key(verified, index, forwarded, &name);
        let change = world.put(&alice, "1", room, "s", key).await.unwrap();
        assert_eq!(stored().await == name, better, "{name}");
        assert_eq!(change.etag != before.etag.to_string(), better, "{name}");
        assert_eq!(change.count, 1);
    }
}

#[tokio::test]
async fn keys_go_into_the_current_backup_and_are_read_from_any() {
    let world = world().await;
    let alice = world.user("alice").await;
    let (one, two) = (room_id!("!one:test"), room_id!("!two:test"));
    let put = async |version: &str, room: &RoomId, session: &str| {
        world
            .put(&alice, version, room, session, key(true, 0, 0, session))
            .await
    };
    let missing = put("1", one, "a").await.unwrap_err();
    assert!(
        matches!(missing, E2eeError::NotFound(_)),
        "no backup at all"
    );
    let new = backup("m.test", json!({}));
    world.e2ee.create_backup(alice.sid, &new).await.unwrap();
    for (room, session) in [(one, "a"), (one, "b"), (two, "a")] {
        put("1", room, session).await.unwrap();
    }
    world.e2ee.create_backup(alice.sid, &new).await.unwrap();
    let wrong = put("1", one, "c").await.unwrap_err();
    assert!(matches!(wrong, E2eeError::WrongVersion { current } if current == "2"));
    let missing = put("3", one, "c").await.unwrap_err();
    assert!(matches!(missing, E2eeError::NotFound(_)));

    let read = async |room: Option<&RoomId>| {
        let rooms = world.e2ee.backup_keys(alice.sid, "1", room).await.unwrap();
        let counts = rooms
            .into_iter()
            .map(|(room, keys)| (room, keys.sessions.len()));
        counts.collect::<Vec<(OwnedRoomId, usize)>>()
    };
    assert_eq!(read(None).await, [(one.to_owned(), 2), (two.to_owned(), 1)]);
    assert_eq!(read(Some(two)).await, [(two.to_owned(), 1)]);
    assert_eq!(read(Some(room_id!("!none:test"))).await, []);
    let bob = world.user("bob").await;
    let foreign = world
        .e2ee
        .backup_keys(bob.sid, "1", None)
        .await
        .unwrap_err();
    assert!(
        matches!(foreign, E2eeError::NotFound(_)),
        "bob has no backup"
    );
}

#[tokio::test]
async fn deleting_keys_counts_and_marks_the_change() {
    let world = world().await;
    let alice = world.user("alice").await;
    let new = backup("m.test", json!({}));
    world.e2ee.create_backup(alice.sid, &new).await.unwrap();
    let (one, two) = (room_id!("!one:test"), room_id!("!two:test"));
    for (room, session) in [(one, "a"), (one, "b"), (two, "a"), (two, "ab")] {
        let key = key(false, 0, 0, session);
        world.put(&alice, "1", room, session, key).await.unwrap();
    }
    let delete = async |room: Option<&RoomId>, session: Option<&str>| {
        let change = world.e2ee.delete_backup_keys(alice.sid, "1", room, session);
        let change = change.await.unwrap();
        (change.count, change.etag)
    };
    let (count, etag) = delete(Some(two), Some("a")).await;
    assert_eq!(count, 3, "and not the one whose name goes on");
    assert_eq!(
        delete(Some(two), Some("a")).await,
        (3, etag),
        "nothing changed"
    );
    assert_eq!(delete(Some(one), None).await.0, 1);
    assert_eq!(delete(None, None).await.0, 0);
    let gone = world
        .e2ee
        .backup_key(alice.sid, "1", one, "a")
        .await
        .unwrap_err();
    assert!(matches!(gone, E2eeError::NotFound(_)));
}

#[tokio::test]
async fn many_writers_at_once_lose_no_key_and_the_count_is_right() {
    let world = Arc::new(world().await);
    let alice = Arc::new(world.user("alice").await);
    let new = backup("m.test", json!({}));
    world.e2ee.create_backup(alice.sid, &new).await.unwrap();
    let writers: Vec<_> = (0..20)
        .map(|number| {
            let (world, alice) = (Arc::clone(&world), Arc::clone(&alice));
            tokio::spawn(async move {
                let (session, room) = (format!("s{number}"), room_id!("!room:test"));
                let key = key(true, 0, 0, &session);
                world.put(&alice, "1", room, &session, key).await.unwrap()
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let row = world
        .e2ee
        .backup(alice.sid, None)
        .await
        .unwrap()
        .unwrap()
        .row;
    assert_eq!((row.count, row.etag), (20, 20));
}
