//! Messages to devices, awake or dehydrated.

use super::*;

both_engines!(
    a_claim_and_a_message_to_a_device_wake_its_waiting_sync,
    messages_to_a_device_come_once_a_token_and_go_when_acknowledged,
    a_hundred_messages_come_at_a_time,
    a_dehydrated_device_is_kept_and_read,
    what_was_set_for_a_device_goes_with_it,
);

async fn a_claim_and_a_message_to_a_device_wake_its_waiting_sync(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    Device::with_keys(&bob, 5).await;
    let since = token(&bob.sync(None).await);
    let waiting = bob.wait(&since);
    tokio::time::sleep(Duration::from_millis(200)).await;
    alice.claim(&bob).await;
    let woken = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    let woken = woken.expect("woken").unwrap();
    assert_eq!(woken["device_one_time_keys_count"]["signed_curve25519"], 4);
    let waiting = bob.wait(&token(&woken));
    tokio::time::sleep(Duration::from_millis(200)).await;
    alice.send_to("1", &bob, "*", json!({ "number": 1 })).await;
    let woken = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    let woken = woken.expect("woken").unwrap();
    let event = json!({ "type": "m.test", "sender": &alice.id, "content": { "number": 1 } });
    assert_eq!(woken["to_device"]["events"], json!([event]));
}

async fn messages_to_a_device_come_once_a_token_and_go_when_acknowledged(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let second = server.login("bob").await;
    let start = token(&bob.sync(None).await);
    for number in 0..3 {
        let txn = format!("t{number}");
        let content = json!({ "number": number });
        alice
            .send_to(&txn, &bob, &bob.device, content.clone())
            .await;
        alice.send_to(&txn, &bob, &bob.device, content).await;
    }
    let first = bob.sync(Some(&start)).await;
    assert_eq!(numbers(&first), [0, 1, 2]);
    assert_eq!(
        numbers(&bob.sync(Some(&start)).await),
        [0, 1, 2],
        "the answer may have been lost"
    );
    assert_eq!(numbers(&bob.sync(Some(&token(&first))).await), [0_u64; 0]);
    // The deletion is not waited for; what is written after it is.
    alice.send_to("later", &alice, "NONE", json!({})).await;
    assert_eq!(
        numbers(&bob.sync(Some(&start)).await),
        [0_u64; 0],
        "they were acknowledged"
    );
    assert_eq!(
        numbers(&second.sync(None).await),
        [0_u64; 0],
        "and were for one device only"
    );
}

async fn a_hundred_messages_come_at_a_time(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut since = token(&bob.sync(None).await);
    for number in 0..150 {
        let content = json!({ "number": number });
        alice.send_to(&number.to_string(), &bob, "*", content).await;
    }
    let mut seen = Vec::new();
    for expected in [100, 50, 0] {
        let sync = bob.sync(Some(&since)).await;
        assert_eq!(numbers(&sync).len(), expected);
        seen.extend(numbers(&sync));
        since = token(&sync);
    }
    assert_eq!(seen, (0..150).collect::<Vec<_>>());
}

async fn a_dehydrated_device_is_kept_and_read(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let unstable = |method: Method, rest: &str| {
        let path =
            format!("/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device{rest}");
        server.request(method, &path).bearer_auth(&alice.token)
    };
    refused(unstable(Method::GET, ""), 404, "M_NOT_FOUND").await;
    let mut sleeper = alice.clone();
    "SLEEPING".clone_into(&mut sleeper.device);
    let sleeping = Device::of(&sleeper);
    let data = json!({ "algorithm": "org.matrix.msc3814.v2", "device_pickle": "x", "nonce": "y" });
    let body =
        json!({ "device_id": "SLEEPING", "device_data": data, "device_keys": sleeping.keys() });
    let put = unstable(Method::PUT, "").json(&body);
    assert_eq!(succeeds(put).await, json!({ "device_id": "SLEEPING" }));
    let kept = succeeds(unstable(Method::GET, "")).await;
    assert_eq!(
        kept,
        json!({ "device_id": "SLEEPING", "device_data": data })
    );
    bob.send_to("1", &alice, "*", json!({ "number": 1 })).await;
    let page = succeeds(unstable(Method::POST, "/SLEEPING/events").json(&json!({}))).await;
    assert_eq!(page["events"][0]["content"]["number"], 1);
    let next = json!({ "next_batch": page["next_batch"] });
    let page = succeeds(unstable(Method::POST, "/SLEEPING/events").json(&next)).await;
    assert_eq!(page["events"], json!([]));
    succeeds(unstable(Method::DELETE, "")).await;
    refused(unstable(Method::DELETE, ""), 404, "M_NOT_FOUND").await;
}

async fn what_was_set_for_a_device_goes_with_it(server: Server) {
    let alice = server.register("alice").await;
    let second = server.login("alice").await;
    let kind = format!("m.local_notification_settings.{}", second.device);
    let path = format!("/user/{}/account_data/{kind}", encoded(&alice.id));
    alice.put(&path, json!({ "is_silenced": true })).await;
    let logout = second.request(Method::POST, "/logout").json(&json!({}));
    succeeds(logout).await;
    refused(alice.request(Method::GET, &path), 404, "M_NOT_FOUND").await;
}
