//! Accounts that an admin locks or suspends. <https://spec.matrix.org/v1.19/client-server-api/#account-moderation>

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Engine, PASSWORD, Server, User, answer, both_engines, encoded, refused, succeeds},
    operate::{does, vatra},
};

both_engines!(
    who_is_locked_can_only_log_out_and_comes_back_with_the_same_session,
    who_is_suspended_reads_leaves_and_takes_back_and_nothing_else,
    only_admins_ask_and_none_for_another,
);

/// A user who may use the admin API.
pub(crate) async fn admin(server: &Server, name: &str) -> User {
    let user = server.register(name).await;
    let users = &server.running().app.users;
    let (_, sid) = users.find(&user.id).await.unwrap().unwrap();
    users.set_admin(sid, true).await.unwrap();
    user
}

fn path(measure: &str, of: &User) -> String {
    format!("/_matrix/client/v1/admin/{measure}/{}", encoded(&of.id))
}

async fn who_is_locked_can_only_log_out_and_comes_back_with_the_same_session(server: Server) {
    let (root, alice) = (admin(&server, "root").await, server.register("alice").await);
    let phone = server.login("alice").await;
    let (lock, whoami) = (path("lock", &alice), "/account/whoami");
    assert_eq!(root.get(&lock).await, json!({ "locked": false }));
    let locked = json!({ "locked": true });
    assert_eq!(root.put(&lock, locked.clone()).await, locked);
    assert_eq!(root.get(&lock).await, locked);
    for path in [whoami, "/sync", "/versions", "/nothing"] {
        let (status, body) = answer(alice.request(Method::GET, path)).await;
        match path {
            "/nothing" | "/versions" => assert_eq!(status, 404),
            _ => {
                assert_eq!((status, &body["soft_logout"]), (401, &json!(true)));
                assert_eq!(body["errcode"], "M_USER_LOCKED");
            }
        }
    }
    // No other token is to be had either.
    let login = json!({
        "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    let login = || {
        server
            .request(Method::POST, "/_matrix/client/v3/login")
            .json(&login)
    };
    let body = refused(login(), 401, "M_USER_LOCKED").await;
    assert_eq!(body["soft_logout"], true);
    phone.post("/logout", json!({})).await;
    refused(phone.request(Method::GET, whoami), 401, "M_UNKNOWN_TOKEN").await;

    root.put(&lock, json!({ "locked": false })).await;
    assert_eq!(alice.get(whoami).await["user_id"], alice.id.as_str());
    succeeds(login()).await;
    root.put(&lock, locked).await;
    alice.post("/logout/all", json!({})).await;
    root.put(&lock, json!({ "locked": false })).await;
    refused(alice.request(Method::GET, whoami), 401, "M_UNKNOWN_TOKEN").await;
}

async fn who_is_suspended_reads_leaves_and_takes_back_and_nothing_else(server: Server) {
    let (root, alice) = (admin(&server, "root").await, server.register("alice").await);
    let bob = server.register("bob").await;
    let room = bob.create_room(json!({ "preset": "public_chat" })).await;
    let other = bob.create_room(json!({ "preset": "public_chat" })).await;
    let private = bob.create_room(json!({ "invite": [alice.id] })).await;
    alice.join(&room).await;
    let mine = alice.send(&room, "mine").await;
    let theirs = bob.send(&room, "theirs").await;
    let own = alice.create_room(json!({})).await;
    let suspend = path("suspend", &alice);
    root.put(&suspend, json!({ "suspended": true })).await;
    assert_eq!(root.get(&suspend).await, json!({ "suspended": true }));

    let (at, own) = (encoded(&room), encoded(&own));
    let member = format!("/rooms/{own}/state/m.room.member/{}", encoded(&alice.id));
    let redact = |event: &str| format!("/rooms/{at}/redact/{}/x{event}", encoded(event));
    let refusals: Vec<(Method, String, Value)> = vec![
        (
            Method::PUT,
            format!("/rooms/{at}/send/m.room.message/1"),
            json!({ "body": "no" }),
        ),
        (
            Method::PUT,
            format!("/rooms/{at}/send/m.room.redaction/1"),
            json!({ "redacts": theirs }),
        ),
        (Method::PUT, redact(&theirs), json!({})),
        (Method::PUT, redact("$nothing"), json!({})),
        (
            Method::PUT,
            format!("/rooms/{own}/state/m.room.name"),
            json!({ "name": "no" }),
        ),
        (
            Method::PUT,
            member.clone(),
            json!({ "membership": "join", "displayname": "A" }),
        ),
        (
            Method::POST,
            format!("/join/{}", encoded(&other)),
            json!({}),
        ),
        (
            Method::POST,
            format!("/rooms/{}/join", encoded(&private)),
            json!({}),
        ),
        (
            Method::POST,
            format!("/knock/{}", encoded(&other)),
            json!({}),
        ),
        (
            Method::POST,
            format!("/rooms/{own}/invite"),
            json!({ "user_id": bob.id }),
        ),
        (
            Method::POST,
            format!("/rooms/{own}/upgrade"),
            json!({ "new_version": "10" }),
        ),
        (Method::POST, "/createRoom".to_owned(), json!({})),
        (
            Method::PUT,
            format!("/profile/{}/displayname", encoded(&alice.id)),
            json!({ "displayname": "A" }),
        ),
        (
            Method::POST,
            "/account/3pid/delete".to_owned(),
            json!({ "medium": "email", "address": "alice@example.org" }),
        ),
    ];
    for (method, path, body) in refusals {
        refused(
            alice.request(method, &path).json(&body),
            403,
            "M_USER_SUSPENDED",
        )
        .await;
    }

    bob.send(&room, "can you read this?").await;
    let sync = alice.sync(None).await;
    let events = &sync["rooms"]["join"][&room]["timeline"]["events"];
    assert!(events.to_string().contains("can you read this?"));
    alice.put(&redact(&mine), json!({})).await;
    alice
        .post(&format!("/rooms/{}/leave", encoded(&private)), json!({}))
        .await;
    alice.put(&member, json!({ "membership": "leave" })).await;
    server.login("alice").await;
    // It is taken back, and she speaks again.
    root.put(&suspend, json!({ "suspended": false })).await;
    alice.send(&room, "thanks").await;
}

async fn only_admins_ask_and_none_for_another(server: Server) {
    let (root, boss) = (admin(&server, "root").await, admin(&server, "boss").await);
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let capabilities = root.get("/capabilities").await;
    let can = &capabilities["capabilities"]["m.account_moderation"];
    assert_eq!(can, &json!({ "suspend": true, "lock": true }));
    let capabilities = alice.get("/capabilities").await;
    assert!(
        capabilities["capabilities"]
            .get("m.account_moderation")
            .is_none()
    );
    let nobody = encoded("@nobody:localhost");
    let elsewhere = encoded("@alice:elsewhere.example");
    for (measure, field) in [("lock", "locked"), ("suspend", "suspended")] {
        let at = |of: &str| format!("/_matrix/client/v1/admin/{measure}/{of}");
        let (put, get) = (
            |by: &User, of: &str| {
                by.request(Method::PUT, &at(of))
                    .json(&json!({ field: true }))
            },
            |by: &User, of: &str| by.request(Method::GET, &at(of)),
        );
        // Who is no admin does not even learn who is there.
        for of in [&encoded(&bob.id), &nobody, &elsewhere] {
            refused(put(&alice, of), 403, "M_FORBIDDEN").await;
            refused(get(&alice, of), 403, "M_FORBIDDEN").await;
        }
        for of in [&root, &boss] {
            refused(put(&root, &encoded(&of.id)), 403, "M_FORBIDDEN").await;
        }
        refused(get(&root, &encoded(&boss.id)), 403, "M_FORBIDDEN").await;
        refused(put(&root, &nobody), 404, "M_NOT_FOUND").await;
        refused(get(&root, &nobody), 404, "M_NOT_FOUND").await;
        refused(put(&root, &elsewhere), 400, "M_INVALID_PARAM").await;
        refused(get(&root, &elsewhere), 400, "M_INVALID_PARAM").await;
        refused(put(&root, "nonsense"), 400, "M_INVALID_PARAM").await;
        let bob = encoded(&bob.id);
        for body in [json!({}), json!({ field: "yes" }), json!({ field: null })] {
            let request = root.request(Method::PUT, &at(&bob)).json(&body);
            refused(request, 400, "M_BAD_JSON").await;
        }
        let without = server.request(Method::GET, &at(&bob));
        refused(without, 401, "M_MISSING_TOKEN").await;
        assert_eq!(root.get(&at(&bob)).await, json!({ field: false }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_locks_and_suspends_and_it_outlives_a_restart() {
    let mut server = Server::start(Engine::RocksDb).await;
    let alice = server.register("alice").await;
    let config = server.config().clone();
    does(&config, &["user", "lock", "alice"], "").await;
    let whoami = |user: &User| user.request(Method::GET, "/account/whoami");
    refused(whoami(&alice), 401, "M_USER_LOCKED").await;
    does(&config, &["user", "suspend", "alice"], "").await;
    server.stop().await;
    does(&config, &["user", "unlock", "@alice:localhost"], "").await;
    server.replace(|_| {}).await;
    let alice = alice.moved_to(&server);
    succeeds(whoami(&alice)).await;
    let create = alice.request(Method::POST, "/createRoom").json(&json!({}));
    refused(create, 403, "M_USER_SUSPENDED").await;
    does(&config, &["user", "unsuspend", "alice"], "").await;
    alice.create_room(json!({})).await;
    let (success, printed) = vatra(&config, &["user", "lock", "nobody"], "").await;
    assert!(!success && printed.contains("nobody"), "{printed}");
}
