//! Key backups; and what of all this outlives a restart, and what a restored backup.

use vatra::operate::{self, restore};

use super::*;

both_engines!(a_key_backup_is_kept_whole,);

async fn a_key_backup_is_kept_whole(server: Server) {
    let alice = server.register("alice").await;
    let latest = alice.request(Method::GET, "/room_keys/version");
    refused(latest, 404, "M_NOT_FOUND").await;
    let auth_data = json!({ "public_key": "abcdefg", "signatures": {} });
    let new =
        json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": auth_data });
    let version = alice.post("/room_keys/version", new.clone()).await["version"].clone();
    let version = version.as_str().unwrap().to_owned();
    let session = |index: u64| {
        let data = json!({ "ciphertext": "xyz", "ephemeral": "abc", "mac": "def" });
        json!({ "first_message_index": index, "forwarded_count": 0, "is_verified": true, "session_data": data })
    };
    let one = format!("/room_keys/keys/{}/s1?version={version}", encoded("!a:b"));
    let put = alice.put(&one, session(3)).await;
    assert_eq!(put["count"], 1);
    let room = format!("/room_keys/keys/{}?version={version}", encoded("!a:b"));
    alice
        .put(
            &room,
            json!({ "sessions": { "s1": session(5), "s2": session(1) } }),
        )
        .await;
    let all = format!("/room_keys/keys?version={version}");
    let rooms = json!({ "rooms": { "!c:d": { "sessions": { "s3": session(0) } } } });
    let last = alice.put(&all, rooms).await;
    assert_eq!(last["count"], 3);
    assert_eq!(alice.get(&one).await, session(3));
    assert_eq!(
        alice.get(&room).await,
        json!({ "sessions": { "s1": session(3), "s2": session(1) } })
    );
    assert_eq!(alice.get(&all).await["rooms"].as_object().unwrap().len(), 2);
    let info = alice.get("/room_keys/version").await;
    assert_eq!(info["auth_data"], auth_data);
    assert_eq!((&info["etag"], &info["count"]), (&last["etag"], &json!(3)));
    assert_eq!(
        alice.get(&format!("/room_keys/version/{version}")).await,
        info
    );

    alice.post("/room_keys/version", new.clone()).await;
    let wrong = refused(
        alice.request(Method::PUT, &one).json(&session(0)),
        403,
        "M_WRONG_ROOM_KEYS_VERSION",
    );
    assert_eq!(wrong.await["current_version"], "2");
    let request = alice
        .request(Method::PUT, "/room_keys/keys")
        .json(&json!({ "rooms": {} }));
    refused(request, 400, "M_MISSING_PARAM").await;
    for bad in [
        json!({ "first_message_index": -1, "forwarded_count": 0, "is_verified": true, "session_data": {} }),
        json!({ "first_message_index": 1, "forwarded_count": 0, "is_verified": "yes", "session_data": {} }),
        json!({ "first_message_index": 1, "forwarded_count": 0, "is_verified": true, "session_data": "x" }),
        json!({}),
    ] {
        let two = one.replace("version=1", "version=2");
        refused(
            alice.request(Method::PUT, &two).json(&bad),
            400,
            "M_BAD_JSON",
        )
        .await;
    }
    let path = format!("/room_keys/version/{version}");
    let mut other = new;
    other["algorithm"] = json!("m.other");
    refused(
        alice.request(Method::PUT, &path).json(&other),
        400,
        "M_INVALID_PARAM",
    )
    .await;
    let deleted = succeeds(alice.request(Method::DELETE, &one)).await;
    assert_eq!(deleted["count"], 2);
    refused(alice.request(Method::GET, &one), 404, "M_NOT_FOUND").await;
    for _ in 0..2 {
        succeeds(alice.request(Method::DELETE, &path)).await;
    }
    refused(alice.request(Method::GET, &all), 404, "M_NOT_FOUND").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_messages_and_what_changed_outlive_a_restart() {
    let mut server = Server::start(Engine::RocksDb).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let since = token(&alice.sync(None).await);
    let of_bob = token(&bob.sync(None).await);
    Device::with_keys(&bob, 2).await;
    let before = alice.claim(&bob).await;
    alice.send_to("1", &bob, "*", json!({ "number": 1 })).await;
    server.restart().await;
    let (alice, bob) = (alice.moved_to(&server), bob.moved_to(&server));
    alice.send_to("1", &bob, "*", json!({ "number": 1 })).await;
    let sync = bob.sync(Some(&of_bob)).await;
    assert_eq!(numbers(&sync), [1], "the transaction is known");
    assert_eq!(sync["device_one_time_keys_count"]["signed_curve25519"], 1);
    let (next, changed, _) = alice.lists(&since).await;
    assert_eq!(changed.as_slice(), std::slice::from_ref(&bob.id));
    assert_eq!(alice.lists(&next).await.1, [""; 0]);
    let after = alice.claim(&bob).await;
    assert_ne!(before, after);
    assert_eq!(alice.claim(&bob).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_server_hands_out_no_one_time_key_of_its_backup() {
    let mut server = Server::start(Engine::RocksDb).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut device = Device::with_keys(&bob, 3).await;
    let folder = server.folder().join("backup");
    let command = operate::Command::Backup {
        folder: folder.clone(),
    };
    operate::run(server.config().clone(), command)
        .await
        .unwrap();
    // After the backup: the restored store will not know of it.
    alice.claim(&bob).await;
    server.stop().await;
    let mut moved = server.config().clone();
    moved.data_dir = server.folder().join("restored");
    moved.media_dir = server.folder().join("restored-media");
    restore::restore(&moved, &folder).await.unwrap();
    assert!(!moved.data_dir.join("restoring").exists());
    server.replace(|config| *config = moved).await;
    let (alice, bob) = (alice.moved_to(&server), bob.moved_to(&server));
    assert_eq!(alice.claim(&bob).await, Value::Null);
    let sync = bob.sync(None).await;
    assert_eq!(
        sync["device_one_time_keys_count"],
        json!({ "signed_curve25519": 0 })
    );
    let keys = device.one_time_keys(1);
    bob.post("/keys/upload", json!({ "one_time_keys": keys }))
        .await;
    assert_eq!(alice.claim(&bob).await, keys);
}
