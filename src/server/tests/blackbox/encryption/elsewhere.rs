//! Keys of users of another server, and messages to their devices.

use super::*;
use crate::federation::Authority;

/// What a user's next answers of /sync bring of messages to the device.
async fn received(user: &User, count: usize) -> Vec<u64> {
    let first = user.sync(None).await;
    let (mut since, mut found) = (token(&first), numbers(&first));
    for _ in 0..20 {
        let sync = user.get(&format!("/sync?timeout=1000&since={since}")).await;
        found.extend(numbers(&sync));
        since = token(&sync);
        if found.len() >= count {
            break;
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_users_of_another_server_are_asked_for_and_claimed_there() {
    let authority = Authority::new();
    let there = Server::start_with(Engine::Memory, |config| {
        authority.settings(config);
        config.federation.share_device_names = true;
    });
    let (here, there) = (authority.server().await, there.await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let device = Device::with_keys(&bob, 1).await;
    let path = format!("/devices/{}", encoded(&bob.device));
    bob.put(&path, json!({ "display_name": "Bob's" })).await;
    let nobody = bob.id.replace("bob", "nobody");
    let gone = "@x:localhost:1";
    let asked = json!({ "device_keys": { &bob.id: [], &nobody: [], gone: [] } });
    let keys = alice.post("/keys/query", asked).await;
    let shown = &keys["device_keys"][&bob.id][&bob.device];
    assert_eq!(shown["unsigned"]["device_display_name"], "Bob's");
    let mut signed = shown.clone();
    signed.as_object_mut().unwrap().remove("unsigned");
    assert_eq!(signed, device.keys());
    assert_eq!(keys["device_keys"].get(&nobody), None);
    let failures = keys["failures"].as_object().unwrap();
    assert_eq!(failures.keys().collect::<Vec<_>>(), ["localhost:1"]);

    let claimed = alice.claim(&bob).await;
    assert_eq!(claimed.as_object().unwrap().len(), 1);
    assert_eq!(alice.claim(&bob).await, Value::Null, "handed out once");

    // The other way round: names are not told unless the settings say so.
    Device::with_keys(&alice, 0).await;
    let path = format!("/devices/{}", encoded(&alice.device));
    alice.put(&path, json!({ "display_name": "Alice's" })).await;
    let asked = json!({ "device_keys": { &alice.id: [&alice.device] } });
    let keys = bob.post("/keys/query", asked).await;
    let shown = &keys["device_keys"][&alice.id][&alice.device];
    assert_eq!(shown["device_id"], alice.device.as_str());
    assert_eq!(shown.get("unsigned"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_to_devices_of_another_server_arrive_once_also_after_it_was_away() {
    let authority = Authority::new();
    let there = Server::start_with(Engine::RocksDb, |config| authority.settings(config));
    let (here, mut there) = (authority.server().await, there.await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    alice.send_to("1", &bob, "*", json!({ "number": 1 })).await;
    alice.send_to("1", &bob, "*", json!({ "number": 1 })).await;
    assert_eq!(received(&bob, 1).await, [1]);
    there.stop().await;
    for number in 2..5 {
        let device = if number == 3 { "NONE" } else { &bob.device };
        let (txn, content) = (number.to_string(), json!({ "number": number }));
        alice.send_to(&txn, &bob, device, content).await;
    }
    there.restart().await;
    let bob = bob.moved_to(&there);
    // Whoever is heard from is told what waits.
    let asked = json!({ "device_keys": { &alice.id: [] } });
    bob.post("/keys/query", asked).await;
    let found = received(&bob, 3).await;
    assert_eq!(found, [1, 2, 4], "the first was not acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_to_a_device_that_is_none_is_refused_before_anything_is_sent() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let body =
        json!({ "messages": { &bob.id: { "*": { "number": 1 } }, &alice.id: { "*": "text" } } });
    let request = alice.request(Method::PUT, "/sendToDevice/m.test/1");
    refused(request.json(&body), 400, "M_BAD_JSON").await;
    alice.send_to("2", &bob, "*", json!({ "number": 2 })).await;
    assert_eq!(received(&bob, 1).await, [2]);
}

/// Asks for the keys of all devices of another user.
async fn devices_of(user: &User, other: &User) -> Vec<String> {
    let asked = json!({ "device_keys": { &other.id: [] } });
    let keys = user.post("/keys/query", asked).await;
    let devices = keys["device_keys"][&other.id].as_object();
    devices
        .into_iter()
        .flat_map(|them| them.keys().cloned())
        .collect()
}

/// Asks whenever /sync says that the other user's keys have changed, until these devices have keys; gives the token.
async fn hears_of(user: &User, mut since: String, other: &User, devices: &[&User]) -> String {
    let mut expected: Vec<_> = devices.iter().map(|user| user.device.clone()).collect();
    expected.sort();
    for _ in 0..20 {
        let sync = user.get(&format!("/sync?timeout=1000&since={since}")).await;
        since = token(&sync);
        let users = sync["device_lists"]["changed"].as_array();
        let mut users = users.into_iter().flatten();
        // It may be said more than once: a server that is new is told of devices that it has asked for meanwhile.
        if users.any(|user| *user == other.id.as_str()) && devices_of(user, other).await == expected
        {
            return since;
        }
    }
    panic!(
        "{} does not hear that {} has {expected:?}",
        user.id, other.id
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_keys_are_told_to_servers_that_share_a_room_and_asked_for_anew_after_a_gap() {
    let authority = Authority::new();
    let (here, mut there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    Device::with_keys(&bob, 0).await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let since = token(&alice.sync(None).await);
    let join = format!(
        "/join/{}?via={}",
        encoded(&room),
        encoded(&here.config().server_name)
    );
    bob.post(&join, json!({})).await;
    let since = hears_of(&alice, since, &bob, &[&bob]).await;

    let second = there.login("bob").await;
    Device::with_keys(&second, 0).await;
    let since = hears_of(&alice, since, &bob, &[&bob, &second]).await;
    second.post("/logout", json!({})).await;
    let since = hears_of(&alice, since, &bob, &[&bob]).await;

    // While no room is shared nothing is told, so that what was known is not handed out any more.
    let leave = format!("/rooms/{}/leave", encoded(&room));
    bob.post(&leave, json!({})).await;
    let third = there.login("bob").await;
    Device::with_keys(&third, 0).await;
    bob.post(&join, json!({})).await;
    hears_of(&alice, since, &bob, &[&bob, &third]).await;
    // Known here again: their server may be away.
    there.stop().await;
    assert_eq!(devices_of(&alice, &bob).await.len(), 2);
}
