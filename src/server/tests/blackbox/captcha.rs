//! What whoever registers must do beside: solve a puzzle, accept documents.
//! <https://spec.matrix.org/v1.19/client-server-api/#google-recaptcha>

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use vatra::config::Terms;

use crate::harness::{Engine, PASSWORD, Server, answer, on_both_engines, refused, succeeds};

on_both_engines!(
    who_solves_the_puzzle_and_accepts_the_terms_registers_and_nobody_else,
    pages_do_the_same_for_clients_that_know_neither,
);

/// A judge of puzzles: only this is right.
const RIGHT: &str = "the answer";

type Asked = Arc<Mutex<Vec<HashMap<String, String>>>>;

async fn judge() -> (String, Asked) {
    async fn verify(State(asked): State<Asked>, body: String) -> axum::response::Response {
        let form: HashMap<String, String> = form_urlencoded::parse(body.as_bytes())
            .into_owned()
            .collect();
        let given = form["response"].clone();
        asked.lock().unwrap().push(form);
        match given.as_str() {
            RIGHT => Json(json!({ "success": true })).into_response(),
            "odd" => (StatusCode::INTERNAL_SERVER_ERROR, "no").into_response(),
            _ => Json(json!({ "success": false, "error-codes": ["invalid-input-response"] }))
                .into_response(),
        }
    }
    let asked = Asked::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/verify", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/verify", post(verify))
        .with_state(asked.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

async fn start(engine: Engine, verify_url: String) -> Server {
    Server::start_with(engine, |config| {
        config.registration.recaptcha.site_key = "the site's key".to_owned();
        config.registration.recaptcha.secret = "the secret".to_owned();
        config.registration.recaptcha.verify_url = verify_url;
        let terms = |language: &str, name: &str| Terms {
            id: "privacy".to_owned(),
            version: "1.0".to_owned(),
            language: language.to_owned(),
            name: name.to_owned(),
            url: format!("https://example.org/{language}"),
        };
        config.registration.terms = vec![
            terms("en", "Privacy <policy>"),
            terms("ro", "Confidențialitate"),
        ];
    })
    .await
}

fn register(server: &Server, name: &str, auth: Value) -> RequestBuilder {
    let mut body = json!({ "username": name, "password": PASSWORD });
    if !auth.is_null() {
        body["auth"] = auth;
    }
    let request = server.request(Method::POST, "/_matrix/client/v3/register");
    request.json(&body)
}

async fn who_solves_the_puzzle_and_accepts_the_terms_registers_and_nobody_else(engine: Engine) {
    let (url, asked) = judge().await;
    let server = start(engine, url).await;
    let (status, first) = answer(register(&server, "ana", Value::Null)).await;
    assert_eq!(status, 401);
    let stages = json!([{ "stages": ["m.login.recaptcha", "m.login.terms"] }]);
    assert_eq!(first["flows"], stages);
    let params = json!({
        "m.login.recaptcha": { "public_key": "the site's key" },
        "m.login.terms": { "policies": { "privacy": { "version": "1.0",
            "en": { "name": "Privacy <policy>", "url": "https://example.org/en" },
            "ro": { "name": "Confidențialitate", "url": "https://example.org/ro" } } } },
    });
    assert_eq!(first["params"], params);
    let session = &first["session"];
    let puzzle = |response: &str| json!({ "type": "m.login.recaptcha", "response": response, "session": session });
    let terms = json!({ "type": "m.login.terms", "session": session });

    for wrong in ["wrong", "", &"x".repeat(10_000)] {
        let (status, told) = answer(register(&server, "ana", puzzle(wrong))).await;
        assert_eq!(
            (status, &told["errcode"]),
            (401, &json!("M_CAPTCHA_INVALID"))
        );
        assert!(told["completed"].as_array().is_none_or(Vec::is_empty));
    }
    let (status, _) = answer(register(&server, "ana", puzzle("odd"))).await;
    assert_eq!(status, 502, "the judge does not say");
    let dummy = json!({ "type": "m.login.dummy", "session": session });
    assert_eq!(answer(register(&server, "ana", dummy)).await.0, 401);
    let (status, told) = answer(register(&server, "ana", puzzle(RIGHT))).await;
    assert_eq!(
        (status, &told["completed"]),
        (401, &json!(["m.login.recaptcha"]))
    );
    succeeds(register(&server, "ana", terms.clone())).await;
    // It was for this registration only.
    assert_eq!(answer(register(&server, "berta", terms)).await.0, 401);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 3, "what cannot be an answer is not sent on");
    assert!(asked.iter().all(|form| form["secret"] == "the secret"));
}

async fn pages_do_the_same_for_clients_that_know_neither(engine: Engine) {
    let (url, _) = judge().await;
    let server = start(engine, url).await;
    let (_, first) = answer(register(&server, "ana", Value::Null)).await;
    let session = first["session"].as_str().unwrap();
    let path = |stage: &str| format!("/_matrix/client/v3/auth/{stage}/fallback/web");
    let page = async |request: RequestBuilder| {
        let answer = request.send().await.unwrap();
        let policy = answer.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        (
            answer.status().as_u16(),
            policy,
            answer.text().await.unwrap(),
        )
    };
    let look =
        |stage: &str| server.request(Method::GET, &format!("{}?session={session}", path(stage)));
    let submit = |stage: &str, response: &str| {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("session", session)
            .append_pair("g-recaptcha-response", response)
            .finish();
        server.request(Method::POST, &path(stage)).body(body)
    };
    let (status, policy, text) = page(look("m.login.recaptcha")).await;
    assert_eq!(status, 200);
    assert!(
        policy.contains("frame-src https://www.google.com/recaptcha/"),
        "{policy}"
    );
    assert!(
        text.contains("data-sitekey=\"the site&#x27;s key\""),
        "{text}"
    );
    let (_, _, text) = page(submit("m.login.recaptcha", "wrong")).await;
    assert!(text.contains("g-recaptcha") && !text.contains("onAuthDone"));
    let (_, _, text) = page(submit("m.login.recaptcha", RIGHT)).await;
    assert!(text.contains("onAuthDone"), "{text}");
    let (_, policy, text) = page(look("m.login.terms")).await;
    assert!(
        text.contains("Privacy &lt;policy&gt;") && !policy.contains("script-src"),
        "{text}"
    );
    let auth = json!({ "session": session });
    assert_eq!(answer(register(&server, "ana", auth.clone())).await.0, 401);
    let (_, _, text) = page(submit("m.login.terms", "")).await;
    assert!(text.contains("onAuthDone"), "{text}");
    succeeds(register(&server, "ana", auth)).await;
    // The session has ended with that.
    refused(look("m.login.terms"), 400, "M_INVALID_PARAM").await;
    refused(submit("m.login.recaptcha", RIGHT), 400, "M_INVALID_PARAM").await;
}
