//! Ignoring, finding and reporting people. <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, User, both_engines, encoded, refused};

both_engines!(
    what_ignored_people_say_is_not_shown_and_not_counted,
    invites_from_ignored_people_are_not_shown,
    people_are_found_by_parts_of_their_names_if_one_may_see_them,
    events_rooms_and_users_can_be_reported,
);

async fn ignore(user: &User, others: &[&User]) {
    let ignored: serde_json::Map<_, _> = others
        .iter()
        .map(|other| (other.id.clone(), json!({})))
        .collect();
    let path = format!(
        "/user/{}/account_data/m.ignored_user_list",
        encoded(&user.id)
    );
    user.put(&path, json!({ "ignored_users": ignored })).await;
}

fn bodies(events: &Value) -> Vec<String> {
    let events = events.as_array().cloned().unwrap_or_default();
    let body = |event: &Value| event["content"]["body"].as_str().map(str::to_owned);
    events.iter().filter_map(body).collect()
}

async fn what_ignored_people_say_is_not_shown_and_not_counted(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let since = alice.sync(None).await["next_batch"].clone();
    ignore(&alice, &[&bob, &alice]).await;
    bob.send(&room, "noise").await;
    carol.send(&room, "news").await;
    alice.send(&room, "mine").await;
    carol.send(&room, "more").await;
    let path = format!(
        "/rooms/{}/state/m.room.member/{}",
        encoded(&room),
        encoded(&bob.id)
    );
    bob.put(
        &path,
        json!({ "membership": "join", "displayname": "Bobby" }),
    )
    .await;
    let sync = alice.sync(since.as_str()).await;
    let joined = &sync["rooms"]["join"][&room];
    assert_eq!(
        bodies(&joined["timeline"]["events"]),
        ["news", "mine", "more"]
    );
    assert_eq!(joined["unread_notifications"]["notification_count"], 1);
    // What they make of the room's state is shown.
    let events = joined["timeline"]["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["sender"] == json!(bob.id)));
    let path = format!("/rooms/{}/messages?dir=b&limit=4", encoded(&room));
    let page = alice.get(&path).await;
    assert_eq!(bodies(&page["chunk"]), ["more", "mine", "news"]);
    // Nobody is ignored any more.
    ignore(&alice, &[]).await;
    let sync = alice.sync(since.as_str()).await;
    let events = &sync["rooms"]["join"][&room]["timeline"]["events"];
    assert_eq!(bodies(events), ["noise", "news", "mine", "more"]);
}

async fn invites_from_ignored_people_are_not_shown(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let since = alice.sync(None).await["next_batch"].clone();
    ignore(&alice, &[&bob]).await;
    let theirs = bob.create_room(json!({ "invite": [alice.id] })).await;
    let hers = carol.create_room(json!({ "invite": [alice.id] })).await;
    for since in [None, since.as_str()] {
        let sync = alice.sync(since).await;
        let invites = sync["rooms"]["invite"].as_object().unwrap();
        assert!(invites.contains_key(&hers) && !invites.contains_key(&theirs));
    }
}

async fn found(user: &User, term: &str) -> Vec<String> {
    let answer = user
        .post("/user_directory/search", json!({ "search_term": term }))
        .await;
    let results = answer["results"].as_array().unwrap();
    results
        .iter()
        .map(|found| found["user_id"].as_str().unwrap().to_owned())
        .collect()
}

async fn people_are_found_by_parts_of_their_names_if_one_may_see_them(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let eve = server.register("eve").await;
    let path = format!("/profile/{}/displayname", encoded(&alice.id));
    alice
        .put(&path, json!({ "displayname": "山田 Cooper" }))
        .await;
    let private = bob.create_room(json!({ "invite": [alice.id] })).await;
    assert!(found(&bob, "山").await.is_empty());
    alice.join(&private).await;
    let path = format!(
        "/rooms/{}/state/m.room.member/{}",
        encoded(&private),
        encoded(&alice.id)
    );
    alice
        .put(
            &path,
            json!({ "membership": "join", "displayname": "Freddy" }),
        )
        .await;
    for term in ["山", "coop", "COOPER 山田", &alice.id, "alice"] {
        assert_eq!(
            found(&bob, term).await,
            std::slice::from_ref(&alice.id),
            "{term}"
        );
        assert!(found(&eve, term).await.is_empty(), "{term}");
        assert!(!found(&alice, term).await.contains(&alice.id), "{term}");
    }
    alice.create_room(json!({ "preset": "public_chat" })).await;
    assert_eq!(found(&eve, "cooper").await, std::slice::from_ref(&alice.id));
    for term in ["", " ", "freddy", "nobody"] {
        assert!(found(&eve, term).await.is_empty(), "{term}");
    }
    let body = json!({ "search_term": "x".repeat(600) });
    let request = eve
        .request(Method::POST, "/user_directory/search")
        .json(&body);
    refused(request, 400, "M_INVALID_PARAM").await;
}

async fn events_rooms_and_users_can_be_reported(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({})).await;
    let event = alice.send(&room, "rude").await;
    let path = format!("/rooms/{}/report/{}", encoded(&room), encoded(&event));
    alice.post(&path, json!({ "reason": "rude" })).await;
    alice.post(&path, json!({})).await;
    let request = bob.request(Method::POST, &path).json(&json!({}));
    refused(request, 404, "M_NOT_FOUND").await;
    let long = json!({ "reason": "x".repeat(20_000) });
    let request = alice.request(Method::POST, &path).json(&long);
    refused(request, 400, "M_INVALID_PARAM").await;
    let path = format!("/rooms/{}/report", encoded(&room));
    bob.post(&path, json!({ "reason": "a den" })).await;
    let request = bob.request(Method::POST, "/rooms/!none:elsewhere.example/report");
    refused(request.json(&json!({ "reason": "" })), 404, "M_NOT_FOUND").await;
    for id in [alice.id.as_str(), "@nobody:localhost"] {
        let path = format!("/users/{}/report", encoded(id));
        bob.post(&path, json!({ "reason": "" })).await;
    }
}
