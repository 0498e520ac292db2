//! Who is told whose keys changed.

use super::*;

both_engines!(
    changed_device_lists_are_told_to_those_who_share_a_room,
    leaving_the_last_shared_room_is_told_to_both,
);

async fn changed_device_lists_are_told_to_those_who_share_a_room(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let mut since = token(&alice.sync(None).await);
    let of_carol = token(&carol.sync(None).await);

    bob.join(&room).await;
    let (next, changed, left) = alice.lists(&since).await;
    assert_eq!(
        (changed, left),
        (vec![bob.id.clone()], vec![]),
        "a newcomer"
    );
    since = next;
    let start = since.clone();
    let (next, changed, left) = alice.lists(&since).await;
    assert_eq!((changed, left), (vec![], vec![]), "nothing since");
    since = next;

    // A new device, and one that goes.
    let waiting = alice.wait(&since);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = server.login("bob").await;
    Device::with_keys(&second, 1).await;
    let woken = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    let woken = woken.expect("woken").unwrap();
    assert_eq!(woken["device_lists"]["changed"], json!([&bob.id]));
    since = token(&woken);
    let logout = second.request(Method::POST, "/logout").json(&json!({}));
    succeeds(logout).await;
    let (next, changed, _) = alice.lists(&since).await;
    assert_eq!(
        changed.as_slice(),
        std::slice::from_ref(&bob.id),
        "a device with keys went"
    );
    since = next;
    // A login without keys is nobody's business; a name is, once there are keys.
    let third = server.login("bob").await;
    let (next, changed, _) = alice.lists(&since).await;
    assert_eq!(changed, [""; 0]);
    since = next;
    Device::with_keys(&third, 0).await;
    since = alice.lists(&since).await.0;
    third
        .put(
            &format!("/devices/{}", third.device),
            json!({ "display_name": "new" }),
        )
        .await;
    let (next, changed, _) = alice.lists(&since).await;
    assert_eq!(
        changed.as_slice(),
        std::slice::from_ref(&bob.id),
        "a device was named"
    );

    // Carol shares no room; and what Alice was told she can ask for again.
    assert_eq!(carol.lists(&of_carol).await.1, [""; 0]);
    let path = format!("/keys/changes?from={start}&to={next}");
    let changes = alice.get(&path).await;
    assert_eq!(changes, json!({ "changed": [&bob.id], "left": [] }));
    for bad in ["from=x&to=y", "from=s1_1&to=nonsense"] {
        let request = alice.request(Method::GET, &format!("/keys/changes?{bad}"));
        refused(request, 400, "M_INVALID_PARAM").await;
    }
    let foreign = alice.get("/keys/changes?from=s99_1&to=s99_1").await;
    assert_eq!(
        foreign["changed"].as_array().unwrap().len(),
        2,
        "everyone, to be safe"
    );
}

async fn leaving_the_last_shared_room_is_told_to_both(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = [
        alice.create_room(json!({ "preset": "public_chat" })).await,
        alice.create_room(json!({ "preset": "public_chat" })).await,
    ];
    for room in &rooms {
        bob.join(room).await;
    }
    Device::with_keys(&bob, 0).await;
    let since = token(&alice.sync(None).await);
    let of_bob = token(&bob.sync(None).await);
    let leave = |user: &User, room: &str| {
        let path = format!("/rooms/{}/leave", encoded(room));
        succeeds(user.request(Method::POST, &path).json(&json!({})))
    };
    leave(&bob, &rooms[0]).await;
    let (next, changed, left) = alice.lists(&since).await;
    assert_eq!((changed, left), (vec![], vec![]), "there is another room");
    leave(&bob, &rooms[1]).await;
    for again in 0..2 {
        let (_, changed, left) = alice.lists(&next).await;
        assert_eq!(
            (changed, left),
            (vec![], vec![bob.id.clone()]),
            "asked {again}"
        );
    }
    let (_, changed, left) = bob.lists(&of_bob).await;
    assert_eq!((changed, left), (vec![], vec![alice.id.clone()]));
    // Over both steps at once, and back: the keys that changed meanwhile are told.
    let (gone, _, left) = alice.lists(&since).await;
    assert_eq!(left.as_slice(), std::slice::from_ref(&bob.id));
    Device::with_keys(&bob, 0).await;
    let (gone, changed, _) = alice.lists(&gone).await;
    assert_eq!(changed, [""; 0], "nobody of hers");
    bob.join(&rooms[0]).await;
    let (_, changed, left) = alice.lists(&gone).await;
    assert_eq!((changed, left), (vec![bob.id.clone()], vec![]));
    // Left and back within one sync: nothing has changed.
    let here = token(&alice.sync(None).await);
    leave(&bob, &rooms[0]).await;
    bob.join(&rooms[0]).await;
    let (_, changed, left) = alice.lists(&here).await;
    assert_eq!((changed, left), (vec![], vec![]));
    // Alice leaves: the same from her side.
    leave(&alice, &rooms[0]).await;
    let (_, changed, left) = alice.lists(&here).await;
    assert_eq!((changed, left), (vec![], vec![bob.id.clone()]));
}
