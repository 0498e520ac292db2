//! People who look around without registering. <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Engine, PASSWORD, Server, User, answer, encoded, on_both_engines, refused, succeeds,
};

on_both_engines!(
    there_are_guests_only_where_the_operator_wants_them,
    a_guest_does_what_the_list_says_and_nothing_else,
    a_guest_joins_what_lets_guests_in_and_leaves_when_that_ends,
    a_guest_who_registers_keeps_their_user_id_and_their_rooms,
    whoever_is_not_in_a_world_readable_room_reads_it,
);

const REFUSED: (u16, &str) = (403, "M_GUEST_ACCESS_FORBIDDEN");

async fn start(engine: Engine) -> Server {
    Server::start_with(engine, |config| config.registration.guests = true).await
}

fn registering(server: &Server, body: &Value) -> reqwest::RequestBuilder {
    let path = "/_matrix/client/v3/register?kind=guest";
    server.request(Method::POST, path).json(body)
}

async fn guest(server: &Server) -> User {
    server.user(&succeeds(registering(server, &json!({}))).await)
}

async fn no(request: reqwest::RequestBuilder) {
    refused(request, REFUSED.0, REFUSED.1).await;
}

async fn there_are_guests_only_where_the_operator_wants_them(engine: Engine) {
    let mut server = Server::start(engine).await;
    no(registering(&server, &json!({}))).await;
    server
        .replace(|config| {
            config.registration.guests = true;
            config.registration.open = false;
        })
        .await;
    // Nothing of what they send counts, but what their device is called.
    let body = json!({
        "username": "ana", "password": PASSWORD, "device_id": "MINE", "inhibit_login": true,
        "refresh_token": true, "initial_device_display_name": "A phone",
    });
    let session = succeeds(registering(&server, &body)).await;
    assert_ne!(session["user_id"], "@ana:localhost");
    assert_ne!(session["device_id"], "MINE");
    assert!(session["refresh_token"].is_null());
    let guest = server.user(&session);
    let devices = guest.get("/devices").await;
    assert_eq!(devices["devices"][0]["display_name"], "A phone");
    assert_eq!(guest.get("/account/whoami").await["is_guest"], true);
    let login = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": guest.id }, "password": PASSWORD,
    });
    let login = server
        .request(Method::POST, "/_matrix/client/v3/login")
        .json(&login);
    refused(login, 403, "M_FORBIDDEN").await;
}

async fn a_guest_does_what_the_list_says_and_nothing_else(engine: Engine) {
    let server = start(engine).await;
    let (guest, ana) = (guest(&server).await, server.register("ana").await);
    let room = ana.create_room(json!({ "preset": "private_chat" })).await;
    ana.put(
        &format!("/rooms/{}/state/m.room.guest_access", encoded(&room)),
        json!({ "guest_access": "can_join" }),
    )
    .await;
    ana.invite(&room, &guest).await;
    let (at, me) = (encoded(&room), encoded(&guest.id));
    guest.post(&format!("/rooms/{at}/join"), json!({})).await;
    let event = guest.send(&room, "hello").await;
    guest
        .put(
            &format!("/profile/{me}/displayname"),
            json!({ "displayname": "A guest" }),
        )
        .await;
    guest
        .put("/sendToDevice/m.x/1", json!({ "messages": {} }))
        .await;
    for path in [
        format!("/rooms/{at}/messages?dir=b"),
        format!("/rooms/{at}/members"),
        format!("/rooms/{at}/state"),
        format!("/rooms/{at}/state/m.room.create"),
        format!("/rooms/{at}/context/{}", encoded(&event)),
        format!("/rooms/{at}/event/{}", encoded(&event)),
        format!("/rooms/{at}/initialSync"),
        "/sync?timeout=0".to_owned(),
        "/events?timeout=0".to_owned(),
        format!("/devices/{}", guest.device),
        "/_matrix/client/versions".to_owned(),
    ] {
        guest.get(&path).await;
    }
    for path in ["/keys/upload", "/keys/query", "/keys/claim"] {
        let body = match path {
            "/keys/query" => json!({ "device_keys": {} }),
            "/keys/claim" => json!({ "one_time_keys": {} }),
            _ => json!({}),
        };
        guest.post(path, body).await;
    }
    // May set state means: as far as the room's power levels let them.
    let name = format!("/rooms/{at}/state/m.room.name");
    let name = guest
        .request(Method::PUT, &name)
        .json(&json!({ "name": "x" }));
    refused(name, 403, "M_FORBIDDEN").await;

    let refusals = [
        (Method::POST, "/createRoom".to_owned()),
        (Method::POST, format!("/join/{at}")),
        (Method::POST, format!("/knock/{at}")),
        (Method::POST, format!("/rooms/{at}/invite")),
        (Method::POST, format!("/rooms/{at}/kick")),
        (Method::POST, format!("/rooms/{at}/forget")),
        (Method::PUT, format!("/rooms/{at}/redact/{event}/1")),
        (Method::PUT, format!("/rooms/{at}/typing/{me}")),
        (Method::GET, format!("/rooms/{at}/joined_members")),
        (Method::PUT, format!("/profile/{me}/avatar_url")),
        (Method::DELETE, format!("/profile/{me}/avatar_url")),
        (Method::PUT, format!("/user/{me}/account_data/x")),
        (Method::POST, format!("/user/{me}/filter")),
        (Method::GET, "/pushrules/".to_owned()),
        (Method::GET, "/capabilities".to_owned()),
        (Method::POST, "/_matrix/media/v3/upload".to_owned()),
        (Method::POST, "/account/password".to_owned()),
        (Method::POST, "/account/deactivate".to_owned()),
        (Method::POST, "/user_directory/search".to_owned()),
        (Method::POST, "/keys/device_signing/upload".to_owned()),
        (Method::POST, "/delete_devices".to_owned()),
        (Method::DELETE, format!("/devices/{}", guest.device)),
        (Method::GET, "/joined_rooms".to_owned()),
        (Method::POST, format!("/user/{me}/openid/request_token")),
        (
            Method::GET,
            format!("/_matrix/client/v1/rooms/{at}/relations/{event}"),
        ),
        (Method::GET, format!("/_matrix/client/v1/admin/lock/{me}")),
    ];
    for (method, path) in refusals {
        no(guest.request(method, &path).json(&json!({}))).await;
    }
    guest.post(&format!("/rooms/{at}/leave"), json!({})).await;
}

async fn set_access(user: &User, room: &str, access: &str) {
    let path = format!("/rooms/{}/state/m.room.guest_access", encoded(room));
    user.put(&path, json!({ "guest_access": access })).await;
}

/// Waits until a user has a membership.
async fn becomes(user: &User, room: &str, of: &User, membership: &str) -> Value {
    let path = format!(
        "/rooms/{}/state/m.room.member/{}?format=event",
        encoded(room),
        encoded(&of.id)
    );
    for _ in 0..200 {
        let event = user.get(&path).await;
        if event["content"]["membership"] == membership {
            return event;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{} does not become {membership}", of.id);
}

async fn a_guest_joins_what_lets_guests_in_and_leaves_when_that_ends(engine: Engine) {
    let server = start(engine).await;
    let (ana, bob) = (server.register("ana").await, server.register("bob").await);
    let (one, two) = (guest(&server).await, guest(&server).await);
    let room = ana.create_room(json!({ "preset": "public_chat" })).await;
    let (at, me) = (encoded(&room), encoded(&one.id));
    let join = || {
        one.request(Method::POST, &format!("/rooms/{at}/join"))
            .json(&json!({}))
    };
    let set = |membership: &str| {
        let path = format!("/rooms/{at}/state/m.room.member/{me}");
        one.request(Method::PUT, &path)
            .json(&json!({ "membership": membership }))
    };
    no(join()).await;
    no(set("join")).await;
    no(set("knock")).await;
    let path = format!("/rooms/{at}/state/m.room.guest_access");
    for access in ["forbidden", "org.example.CAN_JOIN"] {
        ana.put(&path, json!({ "guest_access": access })).await;
        no(join()).await;
    }
    for access in [json!("CAN_JOIN"), json!(true)] {
        let set = ana.request(Method::PUT, &path);
        let set = set.json(&json!({ "guest_access": access }));
        refused(set, 400, "M_BAD_JSON").await;
    }
    // Also one who was invited.
    ana.invite(&room, &one).await;
    no(join()).await;
    // And nobody is asked elsewhere.
    no(one
        .request(
            Method::POST,
            "/rooms/!nowhere:elsewhere.example/join?via=elsewhere.example",
        )
        .json(&json!({})))
    .await;

    set_access(&ana, &room, "can_join").await;
    succeeds(join()).await;
    succeeds(set("leave")).await;
    succeeds(set("join")).await;
    two.post(&format!("/rooms/{at}/join"), json!({})).await;
    bob.join(&room).await;
    one.send(&room, "hello").await;

    set_access(&ana, &room, "forbidden").await;
    for guest in [&one, &two] {
        let event = becomes(&ana, &room, guest, "leave").await;
        assert_eq!(event["sender"], guest.id.as_str());
    }
    bob.send(&room, "still here").await;
    no(join()).await;
    // Who registers meanwhile is no guest any more, and stays.
    set_access(&ana, &room, "can_join").await;
    succeeds(join()).await;
    let name = one.id.split(['@', ':']).nth(1).unwrap();
    let body = json!({
        "username": name, "password": PASSWORD, "guest_access_token": one.token, "auth": { "type": "m.login.dummy" },
    });
    let register = server.request(Method::POST, "/_matrix/client/v3/register");
    succeeds(register.json(&body)).await;
    two.post(&format!("/rooms/{at}/join"), json!({})).await;
    set_access(&ana, &room, "forbidden").await;
    becomes(&ana, &room, &two, "leave").await;
    one.send(&room, "no guest any more").await;
}

async fn a_guest_who_registers_keeps_their_user_id_and_their_rooms(engine: Engine) {
    let server = start(engine).await;
    let (ana, guest) = (server.register("ana").await, guest(&server).await);
    let room = ana.create_room(json!({ "preset": "public_chat" })).await;
    set_access(&ana, &room, "can_join").await;
    guest
        .post(&format!("/rooms/{}/join", encoded(&room)), json!({}))
        .await;
    let name = guest.id.split(['@', ':']).nth(1).unwrap();
    let register = |name: Value, token: &str| {
        let request = server.request(Method::POST, "/_matrix/client/v3/register");
        request.json(&json!({
            "username": name, "password": PASSWORD, "guest_access_token": token, "auth": { "type": "m.login.dummy" },
        }))
    };
    refused(register(json!(name), "nonsense"), 403, "M_FORBIDDEN").await;
    refused(register(json!("ana"), &ana.token), 403, "M_FORBIDDEN").await;
    for other in [json!("berta"), json!("ana"), Value::Null] {
        refused(register(other, &guest.token), 400, "M_INVALID_USERNAME").await;
    }
    let (status, _) = answer(
        server
            .request(Method::POST, "/_matrix/client/v3/register")
            .json(&json!({ "username": name, "guest_access_token": guest.token })),
    )
    .await;
    assert_eq!(status, 401, "it is authenticated as every registration is");
    let short = server.request(Method::POST, "/_matrix/client/v3/register").json(&json!({
        "username": name, "password": "short", "guest_access_token": guest.token, "auth": { "type": "m.login.dummy" },
    }));
    refused(short, 400, "M_WEAK_PASSWORD").await;

    let session = succeeds(register(json!(name), &guest.token)).await;
    assert_eq!(session["user_id"], guest.id.as_str());
    let user = server.user(&session);
    assert_ne!(user.get("/account/whoami").await["is_guest"], true);
    user.send(&room, "registered").await;
    user.create_room(json!({})).await;
    assert_eq!(server.login(name).await.id, guest.id);
    // The guest's session is one of theirs now; and it happens once.
    guest.get("/joined_rooms").await;
    refused(register(json!(name), &guest.token), 403, "M_FORBIDDEN").await;
    refused(register(json!(name), &user.token), 403, "M_FORBIDDEN").await;
}

async fn whoever_is_not_in_a_world_readable_room_reads_it(engine: Engine) {
    let server = start(engine).await;
    let (ana, bob) = (server.register("ana").await, server.register("bob").await);
    let guest = guest(&server).await;
    let world = json!([{ "type": "m.room.history_visibility", "state_key": "",
        "content": { "history_visibility": "world_readable" } }]);
    let room = ana.create_room(json!({ "initial_state": world })).await;
    let event = ana.send(&room, "for all the world").await;
    let (at, event) = (encoded(&room), encoded(&event));
    let paths = [
        "messages?dir=b".to_owned(),
        format!("context/{event}"),
        format!("event/{event}"),
        "state".to_owned(),
        "state/m.room.create/".to_owned(),
        "members".to_owned(),
        "initialSync".to_owned(),
    ];
    for reader in [&bob, &guest] {
        for path in &paths {
            let body = reader.get(&format!("/rooms/{at}/{path}")).await;
            if path.starts_with("messages") {
                let chunk = body["chunk"].as_array().unwrap();
                let said = |event: &Value| event["content"]["body"] == "for all the world";
                assert!(chunk.iter().any(said), "{body}");
            }
        }
        let start = reader.get(&format!("/events?timeout=0&room_id={at}")).await;
        let from = start["end"].as_str().unwrap().to_owned();
        ana.send(&room, &format!("news for {}", reader.id)).await;
        let path = format!("/events?timeout=5000&room_id={at}&from={}", encoded(&from));
        let news = reader.get(&path).await;
        let said = news["chunk"][0]["content"]["body"].as_str();
        assert!(said.is_some_and(|said| said.starts_with("news")), "{news}");
        // Only rooms that one is in are in one's /sync.
        let sync = reader.sync(None).await;
        assert!(sync["rooms"]["join"].is_null(), "{sync}");
    }
    let path = format!("/rooms/{at}/state/m.room.history_visibility");
    ana.put(&path, json!({ "history_visibility": "shared" }))
        .await;
    ana.send(&room, "for members").await;
    for path in ["messages?dir=b", "state", "members", "initialSync"] {
        let request = bob.request(Method::GET, &format!("/rooms/{at}/{path}"));
        refused(request, 403, "M_FORBIDDEN").await;
    }
}
