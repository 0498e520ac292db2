//! Sessions: one lets another in, and what is told of them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{PASSWORD, Server, User, answer, both_engines, encoded, refused, succeeds};

both_engines!(
    a_session_lets_another_device_in_once,
    of_two_who_use_a_login_token_at_once_one_is_let_in,
    sessions_are_shown_to_their_user_and_to_admins,
    rooms_shared_with_another_are_listed,
    a_refresh_token_that_is_used_up_is_unknown,
    who_is_answered_before_they_have_said_all_is_told_that_the_connection_ends,
);

async fn who_is_answered_before_they_have_said_all_is_told_that_the_connection_ends(
    server: Server,
) {
    let alice = server.register("alice").await;
    let ends = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        let end = answer.headers().get("connection");
        end.is_some_and(|value| value == "close")
    };
    let create = |user: Option<&User>| {
        let path = "/_matrix/client/v3/createRoom";
        let request = server.request(Method::POST, path);
        match user {
            Some(_) => alice.request(Method::POST, "/createRoom"),
            None => request,
        }
    };
    // Nobody's body is not read.
    assert!(ends(create(None).body("x".repeat(200_000))).await);
    assert!(!ends(create(None)).await);
    assert!(!ends(create(Some(&alice)).body("{}")).await);
    assert!(!ends(create(Some(&alice)).body("no JSON")).await);
}

async fn a_refresh_token_that_is_used_up_is_unknown(server: Server) {
    server.register("alice").await;
    let body = json!({
        "type": "m.login.password", "password": PASSWORD, "refresh_token": true,
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    let login = || server.request(Method::POST, "/_matrix/client/v3/login");
    let refresh = |token: &Value| {
        let request = server.request(Method::POST, "/_matrix/client/v3/refresh");
        request.json(&json!({ "refresh_token": token }))
    };
    // Some are asked for while the answer is being decided.
    for _ in 0..10 {
        let first = succeeds(login().json(&body)).await;
        let second = succeeds(refresh(&first["refresh_token"])).await;
        let whoami = server.request(Method::GET, "/_matrix/client/v3/account/whoami");
        succeeds(whoami.bearer_auth(second["access_token"].as_str().unwrap())).await;
        refused(refresh(&first["refresh_token"]), 401, "M_UNKNOWN_TOKEN").await;
        succeeds(refresh(&second["refresh_token"])).await;
    }
}

async fn login_token(user: &User) -> String {
    let ask = |body: Value| {
        let path = "/_matrix/client/v1/login/get_token";
        user.request(Method::POST, path).json(&body)
    };
    let (status, first) = answer(ask(json!({}))).await;
    assert_eq!(status, 401, "{first}");
    let auth = json!({
        "type": "m.login.password", "session": first["session"], "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": user.id },
    });
    let given = succeeds(ask(json!({ "auth": auth }))).await;
    assert_eq!(given["expires_in_ms"], 120_000);
    given["login_token"].as_str().unwrap().to_owned()
}

fn login(server: &Server, token: &str) -> reqwest::RequestBuilder {
    let body = json!({ "type": "m.login.token", "token": token });
    let path = "/_matrix/client/v3/login";
    server.request(Method::POST, path).json(&body)
}

async fn a_session_lets_another_device_in_once(server: Server) {
    let alice = server.register("alice").await;
    let flows = succeeds(server.request(Method::GET, "/_matrix/client/v3/login")).await;
    let capabilities = alice.get("/capabilities").await;
    let can = &capabilities["capabilities"]["m.get_login_token"];
    assert_eq!(can["enabled"], true, "{capabilities}");
    let flow = json!({ "type": "m.login.token", "get_login_token": true });
    assert!(
        flows["flows"].as_array().unwrap().contains(&flow),
        "{flows}"
    );
    let token = login_token(&alice).await;
    let session = succeeds(login(&server, &token)).await;
    assert_eq!(session["user_id"], alice.id.as_str());
    assert_ne!(session["device_id"], alice.device.as_str());
    let path = "/_matrix/client/v3/account/whoami";
    let new = session["access_token"].as_str().unwrap();
    succeeds(server.request(Method::GET, path).bearer_auth(new)).await;
    for worthless in [token.as_str(), "", "1_x", "99999999999999_x"] {
        refused(login(&server, worthless), 403, "M_FORBIDDEN").await;
    }
    let body = json!({ "type": "m.login.token" });
    let request = server.request(Method::POST, "/_matrix/client/v3/login");
    refused(request.json(&body), 400, "M_MISSING_PARAM").await;
}

async fn of_two_who_use_a_login_token_at_once_one_is_let_in(server: Server) {
    let alice = server.register("alice").await;
    let token = login_token(&alice).await;
    let both = [login(&server, &token), login(&server, &token)];
    let both = both.map(|request| tokio::spawn(async move { answer(request).await.0 }));
    let mut statuses = Vec::new();
    for one in both {
        statuses.push(one.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403]);
}

async fn sessions_are_shown_to_their_user_and_to_admins(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let path = format!("/admin/whois/{}", encoded(&alice.id));
    let own = alice.get(&path).await;
    assert_eq!(own["user_id"], alice.id.as_str());
    let sessions = own["devices"][&alice.device]["sessions"].as_array();
    assert_eq!(sessions.unwrap().len(), 1, "{own}");
    refused(bob.request(Method::GET, &path), 403, "M_FORBIDDEN").await;
    let users = &server.running().app.users;
    let (_, sid) = users.find(&bob.id).await.unwrap().unwrap();
    users.set_admin(sid, true).await.unwrap();
    assert_eq!(bob.get(&path).await["user_id"], alice.id.as_str());
    let nobody = bob.request(Method::GET, "/admin/whois/%40nobody%3Alocalhost");
    refused(nobody, 404, "M_NOT_FOUND").await;
}

async fn rooms_shared_with_another_are_listed(server: Server) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let path = |of: &str| format!("/_matrix/client/v1/mutual_rooms?user_id={}", encoded(of));
    let none = succeeds(alice.request(Method::GET, &path(&bob.id))).await;
    assert_eq!(none, json!({ "joined": [], "count": 0 }));
    let mut shared = Vec::new();
    for number in 0..3 {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        if number > 0 {
            bob.join(&room).await;
            shared.push(room);
        }
    }
    let found = succeeds(alice.request(Method::GET, &path(&bob.id))).await;
    assert_eq!(found, json!({ "joined": shared, "count": 2 }));
    bob.post(&format!("/rooms/{}/leave", encoded(&shared[0])), json!({}))
        .await;
    let found = succeeds(alice.request(Method::GET, &path(&bob.id))).await;
    assert_eq!(found, json!({ "joined": [shared[1]], "count": 1 }));
    let unknown = succeeds(alice.request(Method::GET, &path("@nobody:elsewhere.example"))).await;
    assert_eq!(unknown["joined"], json!([]));
    let own = alice.request(Method::GET, &path(&alice.id));
    refused(own, 400, "M_INVALID_PARAM").await;
    let bad = format!("{}&from=x", path(&bob.id));
    refused(alice.request(Method::GET, &bad), 400, "M_INVALID_PARAM").await;
}
