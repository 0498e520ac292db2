//! Registration with an address.

use reqwest::Method;
use serde_json::{Value, json};

use super::{World, creds};
use crate::harness::{Engine, PASSWORD, answer, succeeds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_register_with_an_address_or_without() {
    let world = World::start().await;
    let body = json!({ "username": "alice", "password": PASSWORD });
    let (_, asked) = answer(world.post("/register", &body)).await;
    let flows = json!([{ "stages": ["m.login.dummy"] }, { "stages": ["m.login.email.identity"] }]);
    assert_eq!(asked["flows"], flows);
    let sid = world.validate("/register", "alice@example.org", 1).await;
    let mut auth = creds(&sid);
    auth["session"] = asked["session"].clone();
    let body = json!({ "username": "alice", "password": PASSWORD, "auth": auth });
    let session = succeeds(world.post("/register", &body)).await;
    let token = session["access_token"].as_str().unwrap();
    let list = world
        .server
        .request(Method::GET, "/_matrix/client/v3/account/3pid");
    let listed = succeeds(list.bearer_auth(token)).await;
    assert_eq!(listed["threepids"][0]["address"], "alice@example.org");
    // The validation is used up, and the address taken.
    let again = json!({ "username": "alice2", "password": PASSWORD, "auth": creds(&sid) });
    assert_eq!(answer(world.post("/register", &again)).await.0, 401);
    let sid = world.ask("/register", "alice@example.org", "other").await;
    let letter = world.sink.letter(2).await;
    assert!(
        !letter.text.contains("token=") && letter.text.contains("already"),
        "{}",
        letter.text
    );
    let auth = json!({ "type": "m.login.email.identity", "threepid_creds": { "sid": sid, "client_secret": "other" } });
    let again = json!({ "username": "alice2", "password": PASSWORD, "auth": auth });
    assert_eq!(answer(world.post("/register", &again)).await.0, 401);
    world.server.register("bob").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_and_a_token_can_be_required() {
    let world = World::start_with(Engine::Memory, |config| {
        config.registration.require_email = true;
        config.registration.token = "let me in".to_owned();
    })
    .await;
    let body = |auth: Value| json!({ "username": "alice", "password": PASSWORD, "auth": auth });
    let (status, asked) = answer(world.post("/register", &body(Value::Null))).await;
    let flows = json!([{ "stages": ["m.login.email.identity", "m.login.registration_token"] }]);
    assert_eq!((status, &asked["flows"]), (401, &flows));
    let session = &asked["session"];
    let token =
        json!({ "type": "m.login.registration_token", "token": "let me in", "session": session });
    assert_eq!(answer(world.post("/register", &body(token))).await.0, 401);
    let dummy = json!({ "type": "m.login.dummy", "session": session });
    assert_eq!(answer(world.post("/register", &body(dummy))).await.0, 401);
    let sid = world.validate("/register", "alice@example.org", 1).await;
    let mut auth = creds(&sid);
    auth["session"] = session.clone();
    succeeds(world.post("/register", &body(auth))).await;
    succeeds(world.login("alice@example.org", PASSWORD)).await;
}
