//! Bad input for every route that is registered: the spec's errcode, and never a 5xx.

use reqwest::Method;
use serde_json::{Value, json};

use vatra::config::Config;

use crate::harness::{
    Engine, Server, User, answer, both_engines, encoded, on_both_engines, refused,
};

both_engines!(
    no_route_answers_bad_input_with_a_server_error,
    operations_that_need_a_token_say_so,
    no_operation_takes_a_body_that_is_no_json,
    bodies_that_are_no_json_objects_are_told_apart,
);
on_both_engines!(bodies_beyond_the_limit_are_refused_while_reading,);

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

/// The errcodes that a status may come with: those of the spec, where it means what the status says.
fn fitting(status: u16) -> &'static [&'static str] {
    match status {
        400 => &[
            "M_BAD_JSON",
            "M_BAD_STATE",
            "M_INVALID_PARAM",
            "M_INVALID_USERNAME",
            "M_MISSING_PARAM",
            "M_NOT_JSON",
            "M_SESSION_NOT_VALIDATED",
            "M_THREEPID_MEDIUM_NOT_SUPPORTED",
            "M_UNABLE_TO_AUTHORISE_JOIN",
            "M_UNKNOWN",
            "M_UNRECOGNIZED",
        ],
        401 => &["M_MISSING_TOKEN", "M_UNAUTHORIZED", "M_UNKNOWN_TOKEN"],
        403 => &[
            "M_FORBIDDEN",
            "M_THREEPID_DENIED",
            "M_WRONG_ROOM_KEYS_VERSION",
        ],
        404 => &["M_NOT_FOUND", "M_UNKNOWN", "M_UNRECOGNIZED"],
        405 => &["M_UNRECOGNIZED"],
        413 => &["M_TOO_LARGE"],
        _ => &[],
    }
}

async fn no_route_answers_bad_input_with_a_server_error(server: Server) {
    let alice = server.register("alice").await;
    let mut refused = 0;
    walk(&server, &alice, |method, path, body, status, answer| {
        assert!(
            status < 500,
            "{method} {path} with {body:?}: {status} {answer}"
        );
        if status >= 400 {
            refused += 1;
            let code = answer["errcode"].as_str().unwrap_or_default();
            // An answer that asks for user-interactive authentication has flows instead.
            assert!(
                fitting(status).contains(&code)
                    || (status == 401 && answer["flows"].is_array())
                    || pages(path),
                "{method} {path} with {body:?}: {status} {answer}"
            );
        }
    })
    .await;
    assert!(refused > 1_000, "only {refused} requests were refused");
}

/// For people in a browser, not for clients.
fn pages(path: &str) -> bool {
    path.starts_with("/_vatra/") || path.contains("/fallback/")
}

/// The operations of the API that are routed: method, path, and whose token they want.
fn operations() -> Vec<(Method, String, &'static str)> {
    let routes = vatra::http::routes();
    let nameless = |path: &str| filled(path, "{}");
    let lines = include_str!("../operations.tsv").lines().map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        (
            columns[0].parse().unwrap(),
            columns[1].to_owned(),
            columns[3],
        )
    });
    let routed = lines.filter(|(method, path, _): &(Method, String, _)| {
        routes
            .iter()
            .any(|(other, at)| other == method && nameless(at) == nameless(path))
    });
    routed.collect()
}

async fn operations_that_need_a_token_say_so(server: Server) {
    let mut guarded = 0;
    for (method, path, token) in operations() {
        let path = filled(&path, "junk");
        let request = || server.request(method.clone(), &path).body("{}");
        let code = match token {
            "token" => "M_UNKNOWN_TOKEN",
            "service" => "M_FORBIDDEN",
            _ => continue,
        };
        guarded += 1;
        let (status, body) = answer(request().bearer_auth("unknown")).await;
        let known = status == 401 && body["errcode"] == "M_UNKNOWN_TOKEN";
        assert!(
            known || body["errcode"] == code,
            "{method} {path}: {status} {body}"
        );
        let (status, body) = answer(request()).await;
        assert!(
            status == 401 && body["errcode"] == "M_MISSING_TOKEN",
            "{method} {path}: {status} {body}"
        );
    }
    assert!(guarded > 120, "only {guarded} operations ask for a token");
}

/// What takes bytes, not JSON.
fn takes_files(path: &str) -> bool {
    path.contains("/upload") && path.contains("/media/")
}

async fn no_operation_takes_a_body_that_is_no_json(server: Server) {
    let alice = server.register("alice").await;
    let mut tried = 0;
    for (method, path, token) in operations() {
        if method == Method::GET || token == "service" || takes_files(&path) {
            continue;
        }
        let path = path.replace("{userId}", &encoded(&alice.id));
        let path = path.replace("{roomIdOrAlias}", "%23junk%3Alocalhost");
        let path = path
            .replace("{kind}", "override")
            .replace("{eventId}", "%24junk");
        let path = path
            .replace("{roomId}", "%21junk%3Alocalhost")
            .replace("{roomAlias}", "%23junk%3Alocalhost");
        let path = path.replace("{receiptType}", "m.read");
        let request = server.request(method, &filled(&path, "junk"));
        refused(
            request.bearer_auth(&alice.token).body("{\"a\":"),
            400,
            "M_NOT_JSON",
        )
        .await;
        tried += 1;
    }
    assert!(tried > 70, "only {tried} operations were tried");
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

async fn bodies_beyond_the_limit_are_refused_while_reading(engine: Engine) {
    let small = |config: &mut Config| config.client.max_request_bytes = 64 << 10;
    let server = Server::start_with(engine, small).await;
    let alice = server.register("alice").await;
    let large = json!({ "filler": "x".repeat(64 << 10) }).to_string();
    let mut tried = 0;
    for (method, path, token) in operations() {
        if method == Method::GET || token == "service" || takes_files(&path) {
            continue;
        }
        let request = server.request(method, &filled(&path, "junk"));
        refused(
            request.bearer_auth(&alice.token).body(large.clone()),
            413,
            "M_TOO_LARGE",
        )
        .await;
        tried += 1;
    }
    assert!(tried > 70, "only {tried} operations were tried");
}
