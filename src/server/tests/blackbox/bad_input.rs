//! Bad input for every route that is registered: the spec's errcode, and never a 5xx.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, User, answer, both_engines, encoded, refused};

both_engines!(
    no_route_answers_bad_input_with_a_server_error,
    routes_that_need_a_token_say_so,
    bodies_that_are_no_json_objects_are_told_apart,
    bodies_beyond_the_limit_are_refused_while_reading,
);

/// Registered paths with their arguments replaced by each of these: junk, and ids of other kinds and servers.
const ARGUMENTS: [&str; 5] = [
    "junk",
    "!unknown:elsewhere.example",
    "@someone:elsewhere.example",
    "$unknown",
    "%FF",
];

const BODIES: [&str; 9] = [
    "",
    "{",
    "[]",
    "null",
    "{}",
    r#"{"username":7,"password":[],"type":{},"auth":3,"identifier":[]}"#,
    r#"{"user_id":"no id","room_id":5,"timeout":-1,"typing":"x","displayname":{},"devices":{}}"#,
    r#"{"a":1e400,"b":9007199254740993,"c":1.5}"#,
    "\u{fffd}\u{0}",
];

fn filled(path: &str, argument: &str) -> String {
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true if argument.starts_with('%') => argument.to_owned(),
        true => encoded(argument),
        false => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Logging out would end the walk early.
fn ends_the_session(path: &str) -> bool {
    path.contains("/logout") || path.contains("/deactivate")
}

async fn walk(
    server: &Server,
    user: &User,
    mut check: impl FnMut(&Method, &str, &str, u16, Value),
) {
    for (method, path) in vatra::http::routes() {
        if ends_the_session(&path) {
            continue;
        }
        for argument in ARGUMENTS {
            let filled = filled(&path, argument);
            for body in BODIES {
                let request = server
                    .request(method.clone(), &filled)
                    .bearer_auth(&user.token)
                    .body(body);
                let (status, answer) = answer(request).await;
                check(&method, &filled, body, status, answer);
                if method == Method::GET {
                    break;
                }
            }
            if !path.contains('{') {
                break;
            }
        }
    }
}

async fn no_route_answers_bad_input_with_a_server_error(server: Server) {
    let alice = server.register("alice").await;
    walk(&server, &alice, |method, path, body, status, answer| {
        assert!(
            status < 500,
            "{method} {path} with {body:?}: {status} {answer}"
        );
        if status >= 400 {
            let code = answer["errcode"].as_str().unwrap_or_default();
            // An answer that asks for user-interactive authentication has flows instead.
            assert!(
                code.starts_with("M_") || answer["flows"].is_array(),
                "{method} {path}: {status} {answer}"
            );
        }
    })
    .await;
}

async fn routes_that_need_a_token_say_so(server: Server) {
    let mut guarded = 0;
    for (method, path) in vatra::http::routes() {
        let path = filled(&path, "junk");
        let (status, body) = answer(
            server
                .request(method.clone(), &path)
                .bearer_auth("unknown")
                .body("{}"),
        )
        .await;
        if status != 401 || body["errcode"] != "M_UNKNOWN_TOKEN" {
            continue;
        }
        guarded += 1;
        let (status, body) = answer(server.request(method.clone(), &path).body("{}")).await;
        // Where a token is optional the request goes on without it.
        assert!(status < 500, "{method} {path}: {body}");
        if status == 401 && body["flows"].is_null() {
            assert_eq!(body["errcode"], "M_MISSING_TOKEN", "{method} {path}");
        }
    }
    assert!(guarded > 30, "only {guarded} routes ask for a token");
}

async fn bodies_that_are_no_json_objects_are_told_apart(server: Server) {
    let alice = server.register("alice").await;
    let put = |body: &'static str| {
        let path = format!("/user/{}/account_data/org.example.test", encoded(&alice.id));
        alice.request(Method::PUT, &path).body(body)
    };
    refused(put("{"), 400, "M_NOT_JSON").await;
    refused(put("not json"), 400, "M_NOT_JSON").await;
    refused(put("[]"), 400, "M_BAD_JSON").await;
    refused(put("7"), 400, "M_BAD_JSON").await;
    refused(
        alice
            .request(Method::POST, "/delete_devices")
            .body(r#"{"devices":7}"#),
        400,
        "M_BAD_JSON",
    )
    .await;
}

async fn bodies_beyond_the_limit_are_refused_while_reading(server: Server) {
    let alice = server.register("alice").await;
    let path = format!("/user/{}/account_data/org.example.test", encoded(&alice.id));
    let large = json!({ "filler": "x".repeat(server.config().client.max_request_bytes) });
    refused(
        alice.request(Method::PUT, &path).json(&large),
        413,
        "M_TOO_LARGE",
    )
    .await;
}
