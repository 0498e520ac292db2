//! What devices upload, and what they may not.

use super::*;

#[tokio::test]
async fn keys_are_shown_as_they_were_uploaded_with_the_devices_name() {
    let world = world().await;
    let (alice, mut bob) = (world.user("alice").await, world.user("bob").await);
    let upload = bob.everything(3);
    let counts = world.upload(&bob, upload).await.unwrap();
    assert_eq!(counts, [("signed_curve25519".to_owned(), 3)]);
    assert_eq!(world.shown(&alice, &bob).await, bob.keys());
    let name = Some("Bob's \"phone\"".to_owned());
    world
        .users
        .rename_device(bob.sid, &bob.id, name)
        .await
        .unwrap();
    let mut shown = bob.keys();
    shown["unsigned"] = json!({ "device_display_name": "Bob's \"phone\"" });
    assert_eq!(world.shown(&alice, &bob).await, shown);
}

#[tokio::test]
async fn a_repeated_upload_changes_nothing_and_brings_no_claimed_key_back() {
    let world = world().await;
    let mut bob = world.user("bob").await;
    let upload = bob.everything(2);
    world.upload(&bob, bob_again(&upload)).await.unwrap();
    let recorded = async || {
        let view = world.store.view();
        view.get(&schema::DEVICE_LISTS, &bob.sid).await.unwrap()
    };
    let changed = recorded().await;
    assert!(changed.is_some());
    let (claimed, _) = world.claim(&bob).await.unwrap();
    let counts = world.upload(&bob, bob_again(&upload)).await.unwrap();
    assert_eq!(counts, [("signed_curve25519".to_owned(), 1)]);
    let (other, _) = world.claim(&bob).await.unwrap();
    assert_ne!(claimed, other);
    assert_eq!(world.claim(&bob).await, None);
    assert_eq!(recorded().await, changed, "nobody was told of nothing");
}

fn bob_again(upload: &KeysUpload) -> KeysUpload {
    KeysUpload {
        device_keys: upload.device_keys.clone(),
        one_time_keys: upload.one_time_keys.clone(),
        fallback_keys: upload.fallback_keys.clone(),
    }
}

#[tokio::test]
async fn another_key_under_the_same_id_is_refused() {
    let world = world().await;
    let mut bob = world.user("bob").await;
    let upload = bob.everything(1);
    let id = upload.one_time_keys.keys().next().unwrap().clone();
    world.upload(&bob, upload).await.unwrap();
    let other = bob.one_time_keys(1).into_values().next().unwrap();
    let upload = KeysUpload {
        one_time_keys: BTreeMap::from([(id, other)]),
        ..KeysUpload::default()
    };
    let refused = world.upload(&bob, upload).await.unwrap_err();
    assert!(matches!(refused, E2eeError::InvalidParam(_)), "{refused}");
}

#[tokio::test]
async fn a_device_with_another_identity_starts_without_one_time_keys() {
    let world = world().await;
    let mut bob = world.user("bob").await;
    let mut upload = bob.everything(2);
    upload.fallback_keys = bob.fallback_key();
    world.upload(&bob, upload).await.unwrap();
    bob.account = Account::new();
    let upload = bob.everything(1);
    let id = upload.one_time_keys.keys().next().unwrap().clone();
    let counts = world.upload(&bob, upload).await.unwrap();
    assert_eq!(counts, [("signed_curve25519".to_owned(), 1)]);
    assert_eq!(world.claim(&bob).await.unwrap().0, id);
    assert_eq!(world.claim(&bob).await, None);
    assert!(world.left(&bob).await.unused_fallback.is_empty());
}

#[tokio::test]
async fn what_cannot_be_a_devices_keys_is_refused_and_changes_nothing() {
    let world = world().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let change = |change: &dyn Fn(&mut Value)| {
        let mut keys = bob.keys();
        change(&mut keys);
        keys
    };
    let id = format!("ed25519:{}", bob.id);
    let curve = format!("curve25519:{}", bob.id);
    let big = "x".repeat(MAX_KEY);
    let bad: Vec<(Value, &str)> = vec![
        (change(&|keys| keys["user_id"] = json!(alice.user)), "param"),
        (change(&|keys| keys["device_id"] = json!(alice.id)), "param"),
        (change(&|keys| keys["device_id"] = json!(7)), "json"),
        (change(&|keys| keys["algorithms"] = json!("all")), "json"),
        (change(&|keys| keys["algorithms"] = json!([1])), "json"),
        (change(&|keys| keys["keys"] = json!([])), "json"),
        (change(&|keys| keys["keys"][&id] = json!(1)), "json"),
        (change(&|keys| keys["keys"][&id] = json!("AAAA")), "json"),
        (
            change(&|keys| keys["keys"][&curve] = json!("no key")),
            "json",
        ),
        (
            change(&|keys| keys["keys"]["ed25519:OTHER"] = json!("x")),
            "json",
        ),
        (change(&|keys| keys["signatures"] = json!("none")), "json"),
        (
            change(&|keys| keys["signatures"] = json!({ "@bob:test": [] })),
            "json",
        ),
        (change(&|keys| keys["extra"] = json!(1.5)), "json"),
        (change(&|keys| keys["extra"] = json!(big)), "size"),
        (
            change(&|keys| keys["extra"] = json!("changed")),
            "signature",
        ),
        (json!({ "user_id": bob.user, "device_id": bob.id }), "json"),
        (json!([]), "json"),
    ];
    for (keys, why) in bad {
        let upload = KeysUpload {
            device_keys: Some(raw(&keys)),
            ..KeysUpload::default()
        };
        let refused = world.upload(&bob, upload).await.unwrap_err();
        let kind = match refused {
            E2eeError::BadJson(_) => "json",
            E2eeError::InvalidParam(_) => "param",
            E2eeError::TooLarge(_) => "size",
            E2eeError::InvalidSignature(_) => "signature",
            other => panic!("{other}"),
        };
        assert_eq!(kind, why, "{keys}");
    }
    assert!(world.keys(&alice, &bob).await.devices.is_empty());
}

#[tokio::test]
async fn one_time_keys_that_their_device_did_not_sign_are_refused() {
    let world = world().await;
    let (mut alice, mut bob) = (world.user("alice").await, world.user("bob").await);
    let early = KeysUpload {
        one_time_keys: bob.one_time_keys(1),
        ..KeysUpload::default()
    };
    let refused = world.upload(&bob, early).await.unwrap_err();
    assert!(
        matches!(refused, E2eeError::InvalidSignature(_)),
        "no identity: {refused}"
    );
    let upload = bob.everything(1);
    world.upload(&bob, upload).await.unwrap();
    let bare = json!({ "key": Account::new().curve25519_key().to_base64() });
    let unsigned = BTreeMap::from([("signed_curve25519:A".to_owned(), raw(&bare))]);
    let text = BTreeMap::from([("signed_curve25519:A".to_owned(), raw(&bare["key"]))]);
    let short = json!({ "key": "AAAA", "signatures": {} });
    let short = BTreeMap::from([("signed_curve25519:A".to_owned(), raw(&short))]);
    let nameless = BTreeMap::from([("signed_curve25519".to_owned(), raw(&bare))]);
    for keys in [alice.one_time_keys(1), unsigned, text, short, nameless] {
        for fallback in [false, true] {
            let mut upload = KeysUpload::default();
            if fallback {
                upload.fallback_keys.clone_from(&keys);
            } else {
                upload.one_time_keys.clone_from(&keys);
            }
            let refused = world.upload(&bob, upload).await.unwrap_err();
            let right = matches!(
                refused,
                E2eeError::InvalidSignature(_) | E2eeError::BadJson(_)
            );
            assert!(right, "{refused}");
        }
    }
    assert_eq!(
        world.left(&bob).await.one_time,
        [("signed_curve25519".to_owned(), 1)]
    );
}

#[tokio::test]
async fn a_device_has_a_thousand_one_time_keys_at_most() {
    let world = world().await;
    let mut bob = world.user("bob").await;
    let upload = KeysUpload {
        device_keys: Some(raw(&bob.keys())),
        ..KeysUpload::default()
    };
    world.upload(&bob, upload).await.unwrap();
    let keys = |from: usize, count: usize| KeysUpload {
        // Keys that nobody signs are cheap to make.
        one_time_keys: (from..from + count)
            .map(|number| {
                let key = Account::new().curve25519_key().to_base64();
                (format!("curve25519:{number}"), raw(&json!(key)))
            })
            .collect(),
        ..KeysUpload::default()
    };
    world.upload(&bob, keys(0, 900)).await.unwrap();
    let refused = world.upload(&bob, keys(900, 101)).await.unwrap_err();
    assert!(matches!(refused, E2eeError::TooLarge(_)), "{refused}");
    let counts = world.upload(&bob, keys(900, 100)).await.unwrap();
    assert_eq!(counts, [("curve25519".to_owned(), 1_000)]);
    let left = bob.one_time_keys(1);
    let upload = KeysUpload {
        one_time_keys: left,
        ..KeysUpload::default()
    };
    assert!(world.upload(&bob, upload).await.is_err());
}

#[tokio::test]
async fn a_device_that_goes_takes_its_keys_along_and_others_are_told() {
    let world = world().await;
    let (alice, mut bob) = (world.user("alice").await, world.user("bob").await);
    let mut upload = bob.everything(2);
    upload.fallback_keys = bob.fallback_key();
    world.upload(&bob, upload).await.unwrap();
    let before = world.store.watermark();
    let keyless = world.device(bob.user.clone(), bob.sid).await;
    world.users.logout(bob.sid, &keyless.id).await.unwrap();
    let changed = async |since| {
        let view = world.store.view();
        let upto = view.watermark();
        world
            .e2ee
            .changed_between(&view, since, upto)
            .await
            .unwrap()
    };
    assert_eq!(
        changed(before).await,
        [],
        "a device without keys is nobody's business"
    );
    world.users.logout(bob.sid, &bob.id).await.unwrap();
    assert_eq!(changed(before).await, [bob.sid]);
    assert!(world.keys(&alice, &bob).await.devices.is_empty());
    assert_eq!(world.claim(&bob).await, None);
    assert_eq!(world.left(&bob).await, KeyStateRow::default());
    let gone = world.upload(&bob, KeysUpload::default()).await.unwrap_err();
    assert!(matches!(gone, E2eeError::DeviceGone));
}
