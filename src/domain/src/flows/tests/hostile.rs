//! Servers that do not say what they were asked: nothing of theirs is signed, and nothing is believed unchecked.

use ruma::events::StateEventType;
use serde_json::{Value, json};

use super::world::{Net, Server};
use crate::{
    flows::{FlowError, invite::Invite, knock::knock, leave::leave},
    schema::Membership,
    users::Requester,
};

/// What is forged, and how.
type Forgery = (&'static str, fn(&mut Value));

async fn pair() -> (Net, Server, Server, Requester, Requester) {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    (net, a, b, alice, bob)
}

async fn member(server: &Server, room: &ruma::RoomId, user: &ruma::UserId) -> Option<Value> {
    let reader = server.rooms.reader();
    let known = reader.room(room).await.unwrap()?;
    let event = reader
        .state_event(known.sid, &StateEventType::RoomMember, user.as_str())
        .await
        .unwrap()?;
    Some(event.pdu.content_as().unwrap())
}

fn another_event(answer: &mut Value) {
    let event = &mut answer["event"];
    event["type"] = json!("m.room.power_levels");
    event["sender"] = json!("@someone:else");
    event["state_key"] = json!("");
    event["room_id"] = json!("!another:a");
    event["redacts"] = json!("$that");
    event["content"] =
        json!({ "membership": "ban", "users": { "@someone:else": 100 }, "evil": true });
    event["origin_server_ts"] = json!(1);
    event["hashes"] = json!({ "sha256": "x" });
}

#[tokio::test]
async fn of_a_template_nothing_is_taken_but_the_place() {
    let (net, a, b, alice, bob) = pair().await;
    let body = json!({
        "preset": "private_chat", "room_version": "11",
        "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }],
    });
    let room = a.room_with(&alice, body).await;
    net.forge("make_", another_event);
    let via = vec![a.name.clone()];
    knock(&b.users, &b.receiver, &bob, &room, via, None)
        .await
        .unwrap();
    let knocked = member(&a, &room, &bob.user).await.unwrap();
    assert_eq!(knocked, json!({ "membership": "knock" }));
    leave(&b.users, &b.receiver, &bob, &room, None)
        .await
        .unwrap();
    let left = member(&a, &room, &bob.user).await.unwrap();
    assert_eq!(left, json!({ "membership": "leave" }));
    let rule = json!({ "join_rule": "public" });
    a.send(&alice, &room, "m.room.join_rules", Some(""), rule)
        .await;
    b.join(&bob, &room, &a).await.unwrap();
    let joined = member(&a, &room, &bob.user).await.unwrap();
    assert_eq!(joined, json!({ "membership": "join" }));
    assert_eq!(a.state(&room).await, b.state(&room).await);
}

#[tokio::test]
async fn a_room_that_is_none_is_not_entered_and_the_join_is_taken_back() {
    let forgeries: [Forgery; 4] = [
        ("no state", |answer| answer["state"] = json!([])),
        ("no events that allow it", |answer| {
            answer["auth_chain"] = json!([]);
            let state = answer["state"].as_array_mut().unwrap();
            state.retain(|event| event["type"] != "m.room.create");
        }),
        ("forged power", |answer| {
            for list in ["state", "auth_chain"] {
                for event in answer[list].as_array_mut().unwrap() {
                    if event["type"] == "m.room.create" {
                        event["sender"] = json!("@mallory:a");
                    }
                }
            }
        }),
        ("members left out", |answer| {
            answer["members_omitted"] = json!(true);
        }),
    ];
    for (what, how) in forgeries {
        let (net, a, b, alice, bob) = pair().await;
        let room = a.room(&alice, "11").await;
        net.forge("send_join", how);
        let error = b.join(&bob, &room, &a).await.unwrap_err();
        let believed = matches!(error, FlowError::Receive(_) | FlowError::Remote(_));
        assert!(believed, "{what}: {error}");
        assert!(member(&b, &room, &bob.user).await.is_none(), "{what}");
        // It was taken there, and is taken back.
        let there = member(&a, &room, &bob.user).await.unwrap();
        assert_eq!(there["membership"], "leave", "{what}");
        net.heal();
        b.join(&bob, &room, &a).await.unwrap();
        assert_eq!(a.state(&room).await, b.state(&room).await, "{what}");
        b.is_sound().await;
    }
}

#[tokio::test]
async fn of_an_invites_answer_nothing_is_taken_but_the_signature() {
    let (net, a, b, alice, bob) = pair().await;
    let room = a
        .room_with(&alice, json!({ "preset": "private_chat" }))
        .await;
    let invite = || async {
        let invite = Invite {
            by: &alice,
            of: &bob.user,
            room: &room,
            reason: Some("tea"),
            is_direct: false,
        };
        invite.send(&a.users, &a.receiver).await
    };
    net.forge("invite", |answer| {
        answer["event"]["signatures"]["b"] = json!({ "ed25519:k": "AAAA" });
    });
    invite().await.unwrap_err();
    net.forge("invite", |answer| {
        answer["event"]["signatures"] = json!({});
    });
    invite().await.unwrap_err();
    assert!(member(&a, &room, &bob.user).await.is_none());
    net.forge("invite", |answer| {
        answer["event"]["content"] = json!({ "membership": "join" });
        answer["event"]["sender"] = json!("@bob:b");
    });
    invite().await.unwrap();
    let invited = member(&a, &room, &bob.user).await.unwrap();
    assert_eq!(invited, json!({ "membership": "invite", "reason": "tea" }));
    net.heal();
    b.join(&bob, &room, &a).await.unwrap();
    assert_eq!(a.state(&room).await, b.state(&room).await);
}

#[tokio::test]
async fn a_knock_is_refused_by_the_server_that_was_knocked_through() {
    let (_, a, b, alice, bob) = pair().await;
    let body = json!({
        "preset": "private_chat",
        "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }],
    });
    let room = a.room_with(&alice, body).await;
    let via = vec![a.name.clone()];
    knock(&b.users, &b.receiver, &bob, &room, via, None)
        .await
        .unwrap();
    b.is_sound().await;
    let refused = json!({ "membership": "leave", "reason": "no" });
    let refused = a
        .send(&alice, &room, "m.room.member", Some("@bob:b"), refused)
        .await;
    assert_eq!(a.tell(&b, &room, &[refused]).await, [Ok(())]);
    let reader = b.rooms.reader();
    let known = reader.room(&room).await.unwrap().unwrap();
    let row = reader.membership(bob.sid, known.sid).await.unwrap();
    assert_eq!(row.unwrap().membership, Membership::Leave);
    b.is_sound().await;
}
