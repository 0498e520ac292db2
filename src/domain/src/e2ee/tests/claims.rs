//! One-time keys are handed out once.

use std::collections::BTreeSet;

use vodozemac::{
    Curve25519PublicKey,
    olm::{OlmMessage, SessionConfig},
};

use super::*;

#[tokio::test]
async fn a_claimed_key_opens_an_olm_session_both_ways() {
    let world = world().await;
    let (alice, mut bob) = (world.user("alice").await, world.user("bob").await);
    let upload = bob.everything(1);
    world.upload(&bob, upload).await.unwrap();
    let keys = world.shown(&alice, &bob).await;
    let identity = keys["keys"][format!("curve25519:{}", bob.id)]
        .as_str()
        .unwrap();
    let (_, one_time) = world.claim(&bob).await.unwrap();
    let key = |text: &str| Curve25519PublicKey::from_base64(text).unwrap();
    let config = SessionConfig::default;
    let mut outbound = alice
        .account
        .create_outbound_session(config(), key(identity), key(&one_time))
        .unwrap();
    let OlmMessage::PreKey(hello) = outbound.encrypt("hello").unwrap() else {
        panic!("the first message opens the session");
    };
    let mut inbound = bob
        .account
        .create_inbound_session(config(), alice.account.curve25519_key(), &hello)
        .unwrap();
    assert_eq!(inbound.plaintext, b"hello");
    let answer = inbound.session.encrypt("hello yourself").unwrap();
    assert_eq!(outbound.decrypt(&answer).unwrap(), b"hello yourself");
}

#[tokio::test]
async fn keys_are_handed_out_in_the_order_they_came() {
    let world = world().await;
    let mut bob = world.user("bob").await;
    let upload = bob.everything(1);
    let mut uploaded: Vec<String> = upload.one_time_keys.keys().cloned().collect();
    world.upload(&bob, upload).await.unwrap();
    for _ in 0..3 {
        let keys = bob.one_time_keys(1);
        uploaded.extend(keys.keys().cloned());
        let upload = KeysUpload {
            one_time_keys: keys,
            ..KeysUpload::default()
        };
        world.upload(&bob, upload).await.unwrap();
    }
    let mut claimed = Vec::new();
    while let Some((id, _)) = world.claim(&bob).await {
        claimed.push(id);
    }
    assert_eq!(claimed, uploaded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_claims_at_once_get_a_hundred_keys_and_the_rest_the_fallback() {
    let world = Arc::new(world().await);
    let mut bob = world.user("bob").await;
    let mut upload = bob.everything(100);
    upload.fallback_keys = bob.fallback_key();
    let fallback = publics(&upload.fallback_keys);
    world.upload(&bob, upload).await.unwrap();
    assert_eq!(
        world.left(&bob).await.unused_fallback,
        ["signed_curve25519"]
    );
    let bob = Arc::new(bob);
    let claims: Vec<_> = (0..110)
        .map(|_| {
            let (world, bob) = (Arc::clone(&world), Arc::clone(&bob));
            tokio::spawn(async move { world.claim(&bob).await.unwrap() })
        })
        .collect();
    let (mut keys, mut fallbacks) = (BTreeSet::new(), 0);
    for claim in claims {
        let (_, key) = claim.await.unwrap();
        if fallback.contains(&key) {
            fallbacks += 1;
        } else {
            assert!(keys.insert(key), "handed out twice");
        }
    }
    assert_eq!((keys.len(), fallbacks), (100, 10));
    let left = world.left(&bob).await;
    assert_eq!((left.one_time, left.unused_fallback), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn claims_and_repeated_uploads_at_once_hand_no_key_out_twice() {
    let world = Arc::new(world().await);
    let mut bob = world.user("bob").await;
    let upload = bob.everything(50);
    let (bob, keys) = (Arc::new(bob), Arc::new(upload.one_time_keys.clone()));
    world.upload(&bob, upload).await.unwrap();
    let uploads: Vec<_> = (0..8)
        .map(|_| {
            let (world, bob, keys) = (Arc::clone(&world), Arc::clone(&bob), Arc::clone(&keys));
            tokio::spawn(async move {
                for _ in 0..10 {
                    let upload = KeysUpload {
                        one_time_keys: BTreeMap::clone(&keys),
                        ..KeysUpload::default()
                    };
                    world.upload(&bob, upload).await.unwrap();
                }
            })
        })
        .collect();
    let mut seen = BTreeSet::new();
    while let Some((_, key)) = world.claim(&bob).await {
        assert!(seen.insert(key), "handed out twice");
    }
    for upload in uploads {
        upload.await.unwrap();
    }
    assert_eq!(world.claim(&bob).await, None);
    assert_eq!(seen.len(), 50);
}

#[tokio::test]
async fn a_fallback_key_is_used_again_until_it_is_replaced() {
    let world = world().await;
    let mut bob = world.user("bob").await;
    let mut upload = bob.everything(0);
    upload.fallback_keys = bob.fallback_key();
    let first = upload.fallback_keys.clone();
    world.upload(&bob, upload).await.unwrap();
    let before = world.left(&bob).await;
    let claimed = world.claim(&bob).await.unwrap();
    assert_eq!(world.claim(&bob).await.unwrap(), claimed);
    let after = world.left(&bob).await;
    assert!(after.unused_fallback.is_empty() && after.changed > before.changed);
    // The same key once more is not a new one.
    let again = KeysUpload {
        fallback_keys: first,
        ..KeysUpload::default()
    };
    world.upload(&bob, again).await.unwrap();
    assert!(world.left(&bob).await.unused_fallback.is_empty());
    let replace = KeysUpload {
        fallback_keys: bob.fallback_key(),
        ..KeysUpload::default()
    };
    world.upload(&bob, replace).await.unwrap();
    assert_eq!(
        world.left(&bob).await.unused_fallback,
        ["signed_curve25519"]
    );
    assert_ne!(world.claim(&bob).await.unwrap(), claimed);
}

#[tokio::test]
async fn a_restored_store_hands_out_no_one_time_key_of_before() {
    let world = world().await;
    let mut bob = world.user("bob").await;
    let mut upload = bob.everything(3);
    upload.fallback_keys = bob.fallback_key();
    let (keys, fallback) = (
        publics(&upload.one_time_keys),
        publics(&upload.fallback_keys),
    );
    world.upload(&bob, upload).await.unwrap();
    after_restore(&world.store).await.unwrap();
    // As the next start of the server would find it.
    let world = world_on(world.store.clone());
    let (_, key) = world.claim(&bob).await.unwrap();
    assert_eq!(fallback, [key]);
    let left = world.left(&bob).await;
    assert_eq!((left.one_time, left.unused_fallback), (vec![], vec![]));
    let upload = KeysUpload {
        one_time_keys: bob.one_time_keys(1),
        ..KeysUpload::default()
    };
    world.upload(&bob, upload).await.unwrap();
    assert!(!keys.contains(&world.claim(&bob).await.unwrap().1));
}

#[tokio::test]
async fn who_asks_for_what_is_not_there_gets_nothing_and_too_much_is_refused() {
    let world = world().await;
    let bob = world.user("bob").await;
    let claims = |device: &str, algorithm: &str| {
        let device = BTreeMap::from([(device.to_owned(), algorithm.to_owned())]);
        let nobody: OwnedUserId = "@nobody:test".try_into().unwrap();
        Claims::from([(bob.user.clone(), device.clone()), (nobody, device)])
    };
    for (device, algorithm) in [("NONE", "signed_curve25519"), (&*bob.id, "rot13"), ("", "")] {
        let found = world.e2ee.claim(&claims(device, algorithm)).await.unwrap();
        assert!(found.is_empty());
    }
    let many = (0..=MAX_ASKED).map(|number| (number.to_string(), "x".to_owned()));
    let many = Claims::from([(bob.user.clone(), many.collect())]);
    let refused = world.e2ee.claim(&many).await.unwrap_err();
    assert!(matches!(refused, E2eeError::TooLarge(_)));
}
