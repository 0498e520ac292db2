//! A service acts as its users, and only as those.

use reqwest::Method;
use serde_json::json;

use super::service::{
    AS_TOKEN, acting, bridge, by_service, does, ghost, registration, start, start_with,
};
use crate::harness::{Engine, PASSWORD, Server, encoded, refused, succeeds};

async fn bridged() -> Server {
    start(Engine::Memory, &[&bridge("null")]).await
}

fn whoami(server: &Server, query: &str) -> reqwest::RequestBuilder {
    by_service(server, Method::GET, &format!("/account/whoami{query}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_its_own_user_unless_it_names_another_of_its_users() {
    let server = bridged().await;
    let me = succeeds(whoami(&server, "")).await;
    assert_eq!(me, json!({ "user_id": "@irc_bot:localhost" }));
    // One whom it has not made yet, one who is not its own, one who is none.
    let query = format!("?user_id={}", encoded("@irc_a:localhost"));
    refused(whoami(&server, &query), 403, "M_FORBIDDEN").await;
    let alice = server.register("alice").await;
    for (user, status, code) in [
        (alice.id.as_str(), 403, "M_FORBIDDEN"),
        ("@irc_a:elsewhere", 403, "M_FORBIDDEN"),
        ("irc_a", 400, "M_INVALID_PARAM"),
    ] {
        let query = format!("?user_id={}", encoded(user));
        refused(whoami(&server, &query), status, code).await;
    }
    let user = ghost(&server, "irc_a").await;
    let query = format!("?user_id={}", encoded(&user));
    assert_eq!(
        succeeds(whoami(&server, &query)).await["user_id"],
        user.as_str()
    );
    // A person names whom they like, and stays who they are.
    let query = format!("/account/whoami?user_id={}", encoded(&user));
    assert_eq!(alice.get(&query).await["user_id"], alice.id.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_a_namespace_are_kept_apart_from_all_others() {
    let server = bridged().await;
    let person = |name: &str| {
        let body = json!({
            "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" },
        });
        server
            .request(Method::POST, "/_matrix/client/v3/register")
            .json(&body)
    };
    refused(person("irc_b"), 400, "M_EXCLUSIVE").await;
    refused(person("IRC_b"), 400, "M_EXCLUSIVE").await;
    let path = "/_matrix/client/v3/register/available?username=irc_b";
    refused(server.request(Method::GET, path), 400, "M_EXCLUSIVE").await;
    refused(person("irc_bot"), 400, "M_EXCLUSIVE").await;
    succeeds(person("shared_person")).await;
    refused(registration(&server, "bob"), 400, "M_EXCLUSIVE").await;
    ghost(&server, "shared_ghost").await;
    ghost(&server, "irc_b").await;
    refused(registration(&server, "irc_b"), 400, "M_USER_IN_USE").await;
    refused(
        registration(&server, "irc_\u{fc}"),
        400,
        "M_INVALID_USERNAME",
    )
    .await;

    let body = json!({ "type": "m.login.application_service", "username": "irc_c" });
    let register = || {
        server
            .request(Method::POST, "/_matrix/client/v3/register")
            .json(&body)
    };
    refused(register(), 401, "M_MISSING_TOKEN").await;
    refused(register().bearer_auth("wrong"), 401, "M_UNKNOWN_TOKEN").await;
    let unnamed = json!({ "type": "m.login.application_service" });
    let unnamed = by_service(&server, Method::POST, "/register").json(&unnamed);
    refused(unnamed, 400, "M_MISSING_PARAM").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_logs_its_users_in_without_a_password() {
    let server = bridged().await;
    let flows = server.request(Method::GET, "/_matrix/client/v3/login");
    let flows = succeeds(flows).await.to_string();
    assert!(flows.contains("m.login.application_service"), "{flows}");
    let session = succeeds(registration(&server, "irc_d")).await;
    assert!(session["access_token"].is_string() && session["device_id"].is_string());
    let login = |user: &str| {
        let body = json!({
            "type": "m.login.application_service",
            "identifier": { "type": "m.id.user", "user": user },
        });
        server
            .request(Method::POST, "/_matrix/client/v3/login")
            .json(&body)
    };
    let session = succeeds(login("irc_d").bearer_auth(AS_TOKEN)).await;
    let me = server.request(Method::GET, "/_matrix/client/v3/account/whoami");
    let me = me.bearer_auth(session["access_token"].as_str().unwrap());
    assert_eq!(succeeds(me).await["user_id"], "@irc_d:localhost");
    let alice = server.register("alice").await;
    refused(login("alice").bearer_auth(AS_TOKEN), 400, "M_EXCLUSIVE").await;
    refused(login("irc_d"), 401, "M_MISSING_TOKEN").await;
    refused(
        login("irc_d").bearer_auth(&alice.token),
        401,
        "M_UNKNOWN_TOKEN",
    )
    .await;
    let by_password = json!({
        "type": "m.login.password", "user": "irc_d", "password": "",
    });
    let by_password = server
        .request(Method::POST, "/_matrix/client/v3/login")
        .json(&by_password);
    refused(by_password, 403, "M_FORBIDDEN").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_has_devices_only_where_it_names_them() {
    let server = bridged().await;
    let user = ghost(&server, "irc_e").await;
    let query = |device: &str| format!("?user_id={}&device_id={device}", encoded(&user));
    refused(whoami(&server, &query("PHONE")), 400, "M_UNKNOWN_DEVICE").await;
    let keys = json!({ "one_time_keys": {} });
    let upload = acting(&server, Method::POST, "/keys/upload", &user).json(&keys);
    refused(upload, 400, "M_INVALID_PARAM").await;

    let put = |name: &str| {
        let body = json!({ "display_name": name });
        acting(&server, Method::PUT, "/devices/PHONE", &user).json(&body)
    };
    assert_eq!(put("first").send().await.unwrap().status(), 201);
    assert_eq!(put("second").send().await.unwrap().status(), 200);
    let shown = succeeds(acting(&server, Method::GET, "/devices/PHONE", &user)).await;
    assert_eq!(shown["display_name"], "second");
    assert_eq!(
        succeeds(whoami(&server, &query("PHONE"))).await["device_id"],
        "PHONE"
    );
    let upload = format!("/keys/upload{}", query("PHONE"));
    succeeds(by_service(&server, Method::POST, &upload).json(&keys)).await;
    // No password is asked for, since there is none.
    let delete = acting(&server, Method::DELETE, "/devices/PHONE", &user).json(&json!({}));
    succeeds(delete).await;
    refused(whoami(&server, &query("PHONE")), 400, "M_UNKNOWN_DEVICE").await;
    // People make devices by logging in.
    let alice = server.register("alice").await;
    let put = alice
        .request(Method::PUT, "/devices/NEW")
        .json(&json!({ "display_name": "x" }));
    refused(put, 404, "M_NOT_FOUND").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_not_managed_with_the_token_of_a_service() {
    let server = bridged().await;
    let user = ghost(&server, "irc_f").await;
    for (path, body) in [
        ("/account/password", json!({ "new_password": PASSWORD })),
        ("/account/deactivate", json!({})),
        ("/_matrix/client/v1/login/get_token", json!({})),
    ] {
        let request = acting(&server, Method::POST, path, &user).json(&body);
        refused(request, 403, "M_FORBIDDEN").await;
    }
    let logout = acting(&server, Method::POST, "/logout", &user);
    refused(logout, 400, "M_INVALID_PARAM").await;
    succeeds(whoami(&server, "")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aliases_of_a_namespace_are_the_services() {
    let server = bridged().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = |alias: &str| format!("/directory/room/{}", encoded(alias));
    let body = json!({ "room_id": room });
    let by_alice = |method: Method, alias: &str| alice.request(method, &path(alias)).json(&body);
    let by_it = |method: Method, alias: &str| by_service(&server, method, &path(alias)).json(&body);
    refused(
        by_alice(Method::PUT, "#irc_x:localhost"),
        400,
        "M_EXCLUSIVE",
    )
    .await;
    let named = json!({ "room_alias_name": "irc_y" });
    let create = alice.request(Method::POST, "/createRoom").json(&named);
    refused(create, 400, "M_EXCLUSIVE").await;
    refused(by_it(Method::PUT, "#other:localhost"), 400, "M_EXCLUSIVE").await;
    // In its namespace it needs no more: its user is not in the room.
    succeeds(by_it(Method::PUT, "#irc_x:localhost")).await;
    refused(
        by_alice(Method::DELETE, "#irc_x:localhost"),
        400,
        "M_EXCLUSIVE",
    )
    .await;
    succeeds(by_it(Method::DELETE, "#irc_x:localhost")).await;
    let create = by_service(&server, Method::POST, "/createRoom").json(&named);
    succeeds(create).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_service_was_sent_when_it_says() {
    let server = bridged().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat", "power_level_content_override": { "state_default": 0 } })).await;
    let at = encoded(&room);
    let bot = "@irc_bot:localhost";
    does(
        &server,
        bot,
        (Method::POST, &format!("/join/{at}")),
        json!({}),
    )
    .await;
    let long_ago = 1_000_000_000_000_u64;
    let old = format!("/rooms/{at}/send/m.room.message/1?ts={long_ago}");
    let text = json!({ "msgtype": "m.text", "body": "from the archive" });
    let old = does(&server, bot, (Method::PUT, &old), text.clone()).await;
    let old = old["event_id"].as_str().unwrap().to_owned();
    let shown = alice
        .get(&format!("/rooms/{at}/event/{}", encoded(&old)))
        .await;
    assert_eq!(shown["origin_server_ts"], long_ago);
    // It is the newest of the room all the same, and found by its time.
    let page = alice
        .get(&format!("/rooms/{at}/messages?dir=b&limit=1"))
        .await;
    assert_eq!(page["chunk"][0]["event_id"], old.as_str());
    let found = format!("/_matrix/client/v1/rooms/{at}/timestamp_to_event?dir=f&ts=1");
    assert_eq!(alice.get(&found).await["event_id"], old.as_str());

    let path = format!("/rooms/{at}/state/org.example.kind/key?ts=5");
    let state = does(&server, bot, (Method::PUT, &path), json!({ "a": 1 })).await;
    let shown = state["event_id"].as_str().unwrap();
    let shown = alice
        .get(&format!("/rooms/{at}/event/{}", encoded(shown)))
        .await;
    assert_eq!(shown["origin_server_ts"], 5);
    let path = format!("/rooms/{at}/state/m.room.member/{}?ts=6", encoded(bot));
    let member = json!({ "membership": "join", "displayname": "Bot" });
    let member = does(&server, bot, (Method::PUT, &path), member).await;
    let shown = member["event_id"].as_str().unwrap();
    let shown = alice
        .get(&format!("/rooms/{at}/event/{}", encoded(shown)))
        .await;
    assert_eq!(shown["origin_server_ts"], 6);
    for bad in ["-1", "x", "", "9007199254740992"] {
        let path = format!("/rooms/{at}/send/m.room.message/bad?ts={bad}");
        let request = acting(&server, Method::PUT, &path, bot).json(&text);
        refused(request, 400, "M_INVALID_PARAM").await;
    }
    // To others nobody listens.
    let path = format!("/rooms/{at}/send/m.room.message/2?ts={long_ago}");
    let event = alice.put(&path, text).await;
    let event = event["event_id"].as_str().unwrap();
    let shown = alice
        .get(&format!("/rooms/{at}/event/{}", encoded(event)))
        .await;
    assert!(shown["origin_server_ts"].as_u64().unwrap() > long_ago);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_freed_of_limits_has_none() {
    let freed = bridge("null").replace("protocols", "rate_limited: false\nprotocols");
    for (registration, limited) in [(bridge("null"), true), (freed, false)] {
        let server = start_with(Engine::Memory, &[&registration], |config| {
            config.rate_limits.enabled = true;
        })
        .await;
        let user = ghost(&server, "irc_g").await;
        let mut refusals = 0;
        for _ in 0..40 {
            let create = acting(&server, Method::POST, "/createRoom", &user).json(&json!({}));
            let status = create.send().await.unwrap().status();
            refusals += u32::from(status == 429);
        }
        assert_eq!(refusals > 0, limited, "{refusals}");
    }
}
