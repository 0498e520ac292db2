//! People who want no invites. <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    federation::Authority,
    harness::{Server, User, both_engines, encoded, refused},
    shared_rooms::{has, joins_via, sees},
};

both_engines!(
    who_takes_no_invites_gets_none_until_they_say_otherwise,
    what_is_no_setting_blocks_nothing,
);

async fn set(user: &User, config: Value) {
    let path = format!(
        "/user/{}/account_data/m.invite_permission_config",
        encoded(&user.id)
    );
    user.put(&path, config).await;
}

fn block() -> Value {
    json!({ "default_action": "block" })
}

async fn who_takes_no_invites_gets_none_until_they_say_otherwise(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let before = alice.create_room(json!({ "invite": [bob.id] })).await;
    let since = bob.sync(None).await["next_batch"].clone();
    assert!(bob.sync(None).await["rooms"]["invite"][&before].is_object());
    set(&bob, block()).await;
    let room = alice.create_room(json!({})).await;
    let at = encoded(&room);
    let ways = [
        (
            Method::POST,
            format!("/rooms/{at}/invite"),
            json!({ "user_id": bob.id }),
        ),
        (
            Method::PUT,
            format!("/rooms/{at}/state/m.room.member/{}", encoded(&bob.id)),
            json!({ "membership": "invite" }),
        ),
        (
            Method::POST,
            "/createRoom".to_owned(),
            json!({ "invite": [carol.id, bob.id] }),
        ),
    ];
    for (method, path, body) in ways {
        refused(
            alice.request(method, &path).json(&body),
            403,
            "M_INVITE_BLOCKED",
        )
        .await;
    }
    // No room was made halfway.
    assert!(carol.sync(None).await["rooms"]["invite"].is_null());
    // What was there before is not shown either, and the room still says so.
    assert!(bob.sync(None).await["rooms"]["invite"].is_null());
    assert!(bob.sync(since.as_str()).await["rooms"]["invite"].is_null());
    let member = format!(
        "/rooms/{}/state/m.room.member/{}",
        encoded(&before),
        encoded(&bob.id)
    );
    assert_eq!(alice.get(&member).await["membership"], "invite");
    // He may go where he wants, and invite others.
    bob.join(&before).await;
    let his = bob.create_room(json!({})).await;
    bob.invite(&his, &alice).await;

    set(&bob, json!({})).await;
    alice.invite(&room, &bob).await;
    assert!(bob.sync(None).await["rooms"]["invite"][&room].is_object());
}

async fn what_is_no_setting_blocks_nothing(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for config in [
        json!({ "default_action": "Block" }),
        json!({ "default_action": ["block"] }),
        json!({ "default_action": null }),
        json!({ "block": true }),
    ] {
        set(&bob, config).await;
        alice.create_room(json!({ "invite": [bob.id] })).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_other_servers_are_told_the_same() {
    let authority = Authority::new();
    let (here, there) = (authority.server().await, authority.server().await);
    let (alice, bob) = (here.register("alice").await, there.register("bob").await);
    let carol = there.register("carol").await;
    set(&bob, block()).await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let path = format!("/rooms/{}/invite", encoded(&room));
    let invite = || {
        alice
            .request(Method::POST, &path)
            .json(&json!({ "user_id": bob.id }))
    };
    refused(invite(), 403, "M_INVITE_BLOCKED").await;
    // Also when their server is in the room.
    joins_via(&carol, &room, &here).await;
    sees(&alice, &room, &carol, "join").await;
    refused(invite(), 403, "M_INVITE_BLOCKED").await;
    assert!(bob.sync(None).await["rooms"]["invite"].is_null());
    // One of several cannot be invited: the others are.
    let both = alice
        .create_room(json!({ "invite": [bob.id, carol.id] }))
        .await;
    has(&carol, "invite", &both).await;
    assert!(bob.sync(None).await["rooms"]["invite"].is_null());
    set(&bob, json!({})).await;
    alice.invite(&room, &bob).await;
    has(&bob, "invite", &room).await;
}
