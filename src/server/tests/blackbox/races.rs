//! Two requests at once: neither's change is lost, and of two that want the same thing one is told.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, answer, both_engines, encoded};

both_engines!(
    push_rules_that_are_changed_at_once_are_all_kept,
    tags_that_are_set_at_once_are_all_kept,
    who_loses_the_race_for_an_alias_has_made_no_room,
    receipts_that_are_sent_at_once_leave_a_store_that_is_whole,
);

const TOGETHER: usize = 12;

async fn push_rules_that_are_changed_at_once_are_all_kept(server: Server) {
    let alice = server.register("alice").await;
    let puts = (0..TOGETHER).map(|number| {
        let path = format!("/pushrules/global/content/word{number}");
        let body = json!({ "pattern": format!("word{number}"), "actions": ["notify"] });
        answer(alice.request(Method::PUT, &path).json(&body))
    });
    for (status, body) in futures::future::join_all(puts).await {
        assert_eq!(status, 200, "{body}");
    }
    let switches = (0..TOGETHER).map(|number| {
        let path = format!("/pushrules/global/content/word{number}/enabled");
        answer(
            alice
                .request(Method::PUT, &path)
                .json(&json!({ "enabled": false })),
        )
    });
    for (status, body) in futures::future::join_all(switches).await {
        assert_eq!(status, 200, "{body}");
    }
    let rules = alice.get("/pushrules/").await;
    for number in 0..TOGETHER {
        let id = format!("word{number}");
        let rules = rules["global"]["content"].as_array().unwrap();
        let rule = rules.iter().find(|rule| rule["rule_id"] == id.as_str());
        assert_eq!(
            rule.map(|rule| &rule["enabled"]),
            Some(&json!(false)),
            "{id}"
        );
    }
}

async fn tags_that_are_set_at_once_are_all_kept(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let tags = format!("/user/{}/rooms/{}/tags", encoded(&alice.id), encoded(&room));
    let puts = (0..TOGETHER).map(|number| {
        answer(
            alice
                .request(Method::PUT, &format!("{tags}/u.{number}"))
                .json(&json!({})),
        )
    });
    for (status, body) in futures::future::join_all(puts).await {
        assert_eq!(status, 200, "{body}");
    }
    let kept = alice.get(&tags).await;
    assert_eq!(kept["tags"].as_object().unwrap().len(), TOGETHER, "{kept}");
}

async fn who_loses_the_race_for_an_alias_has_made_no_room(server: Server) {
    let mut users = Vec::new();
    for number in 0..TOGETHER {
        users.push(server.register(&format!("user{number}")).await);
    }
    let body = json!({ "room_alias_name": "hearth", "visibility": "public" });
    let makes = users
        .iter()
        .map(|user| answer(user.request(Method::POST, "/createRoom").json(&body)));
    let made = futures::future::join_all(makes).await;
    let winners = made.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!(winners, 1, "{made:?}");
    for (user, (status, answer)) in users.iter().zip(&made) {
        let rooms = user.get("/joined_rooms").await;
        let rooms = rooms["joined_rooms"].as_array().unwrap().clone();
        if *status == 200 {
            assert_eq!(rooms, [answer["room_id"].clone()]);
            let alias = user.get("/directory/room/%23hearth%3Alocalhost").await;
            assert_eq!(alias["room_id"], answer["room_id"]);
        } else {
            assert_eq!(
                (*status, &answer["errcode"]),
                (400, &json!("M_ROOM_IN_USE"))
            );
            assert_eq!(rooms, Vec::<Value>::new(), "{answer}");
        }
    }
    // A room that cannot be made as it was asked for gives its alias back.
    let body = json!({ "room_alias_name": "second", "initial_state": [{ "type": "m.room.power_levels", "content": { "users": 7 } }] });
    let (status, refused) = answer(users[0].request(Method::POST, "/createRoom").json(&body)).await;
    assert!((400..500).contains(&status), "{status} {refused}");
    users[1]
        .create_room(json!({ "room_alias_name": "second" }))
        .await;
}

async fn receipts_that_are_sent_at_once_leave_a_store_that_is_whole(server: Server) {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut events = Vec::new();
    for number in 0..TOGETHER {
        events.push(alice.send(&room, &number.to_string()).await);
    }
    let sends = events.iter().map(|event| {
        let path = format!(
            "/rooms/{}/receipt/m.read/{}",
            encoded(&room),
            encoded(event)
        );
        answer(alice.request(Method::POST, &path).json(&json!({})))
    });
    for (status, body) in futures::future::join_all(sends).await {
        assert_eq!(status, 200, "{body}");
    }
    let app = &server.running().app;
    let mut problems = Vec::new();
    let mut report = |problem| problems.push(problem);
    app.rooms.check(false, &mut report).await.unwrap();
    app.users.check(false, &mut report).await.unwrap();
    app.e2ee.check(false, &mut report).await.unwrap();
    assert!(problems.is_empty(), "{problems:#?}");
    let sync = alice.sync(None).await;
    let receipts = &sync["rooms"]["join"][&room]["ephemeral"]["events"];
    let last = events.last().unwrap().as_str();
    assert!(receipts.to_string().contains(last), "{receipts}");
}
