//! What an address is good for: logging in, a new password, the account that has it.

use reqwest::Method;
use serde_json::{Value, json};

use super::{World, creds};
use crate::harness::{PASSWORD, answer, refused, succeeds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_confirmed_added_used_to_log_in_and_removed() {
    let world = World::start().await;
    let alice = world.server.register("alice").await;
    let capabilities = alice.get("/capabilities").await;
    assert_eq!(
        capabilities["capabilities"]["m.3pid_changes"]["enabled"],
        true
    );
    let sid = world
        .ask("/account/3pid", "Alice@Example.org", "s3cret")
        .await;
    let letter = world.sink.letter(1).await;
    assert_eq!(letter.to, "alice@example.org");
    assert_eq!(letter.header("From"), "Hearth <hearth@example.org>");
    assert!(letter.header("Message-ID").ends_with("@localhost>"));
    let body = json!({ "sid": sid, "client_secret": "s3cret" });
    let add = || alice.request(Method::POST, "/account/3pid/add").json(&body);
    refused(add(), 400, "M_THREEPID_AUTH_FAILED").await;
    // Who only looks, as scanners do, confirms nothing.
    for _ in 0..2 {
        let page = world
            .browser
            .get(world.url(&letter.link()))
            .send()
            .await
            .unwrap();
        assert_eq!(page.status(), 200);
        assert!(page.text().await.unwrap().contains("alice@example.org"));
    }
    refused(add(), 400, "M_THREEPID_AUTH_FAILED").await;
    assert_eq!(world.press(&letter).await.status(), 200);
    assert_eq!(world.press(&letter).await.status(), 400, "once");
    world.add(&alice, &sid).await;
    refused(add(), 400, "M_THREEPID_AUTH_FAILED").await;
    let listed = alice.get("/account/3pid").await;
    let listed = &listed["threepids"][0];
    assert_eq!(
        (&listed["medium"], &listed["address"]),
        (&json!("email"), &json!("alice@example.org"))
    );
    assert!(listed["validated_at"].is_u64() && listed["added_at"].is_u64());
    let session = succeeds(world.login("ALICE@example.org", PASSWORD)).await;
    assert_eq!(session["user_id"], alice.id.as_str());
    refused(
        world.login("alice@example.org", "wrong password"),
        403,
        "M_FORBIDDEN",
    )
    .await;
    refused(
        world.login("nobody@example.org", PASSWORD),
        403,
        "M_FORBIDDEN",
    )
    .await;
    let gone = json!({ "medium": "email", "address": "alice@Example.org" });
    for _ in 0..2 {
        let removed = alice.post("/account/3pid/delete", gone.clone()).await;
        assert_eq!(removed, json!({ "id_server_unbind_result": "no-support" }));
    }
    assert_eq!(alice.get("/account/3pid").await, json!({ "threepids": [] }));
    refused(
        world.login("alice@example.org", PASSWORD),
        403,
        "M_FORBIDDEN",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_lost_the_password_sets_a_new_one_by_mail() {
    let world = World::start().await;
    let alice = world.with_email("alice", "alice@example.org", 1).await;
    let reset = |password: &str, logout: bool, auth: Value| {
        let body = json!({ "new_password": password, "logout_devices": logout, "auth": auth });
        world.post("/account/password", &body)
    };
    let none = json!({ "new_password": "another password" });
    let (status, flows) = answer(world.post("/account/password", &none)).await;
    assert_eq!(
        (status, &flows["flows"]),
        (401, &json!([{ "stages": ["m.login.email.identity"] }]))
    );
    let sid = world
        .ask("/account/password", "alice@example.org", "s3cret")
        .await;
    let letter = world.sink.letter(2).await;
    // As clients do that ask whether it has been confirmed.
    let early = answer(reset("a new password", false, creds(&sid))).await;
    assert_eq!(
        (early.0, &early.1["errcode"]),
        (401, &json!("M_THREEPID_AUTH_FAILED"))
    );
    assert_eq!(world.press(&letter).await.status(), 200);
    let mut wrong = creds(&sid);
    wrong["threepid_creds"]["client_secret"] = json!("other");
    assert_eq!(answer(reset("a new password", false, wrong)).await.0, 401);
    refused(reset("short", false, creds(&sid)), 400, "M_WEAK_PASSWORD").await;
    assert_eq!(
        answer(reset("a new password", false, creds(&sid))).await.0,
        200
    );
    assert_eq!(
        answer(reset("a third password", false, creds(&sid)))
            .await
            .0,
        401,
        "once"
    );
    alice.get("/account/whoami").await;
    refused(
        world.login("alice@example.org", PASSWORD),
        403,
        "M_FORBIDDEN",
    )
    .await;
    succeeds(world.login("alice@example.org", "a new password")).await;
    let sid = world
        .ask("/account/password", "ALICE@example.org", "other")
        .await;
    assert_eq!(world.press(&world.sink.letter(3).await).await.status(), 200);
    let mut auth = creds(&sid);
    auth["threepid_creds"]["client_secret"] = json!("other");
    succeeds(reset("a fourth password", true, auth)).await;
    refused(
        alice.request(Method::GET, "/account/whoami"),
        401,
        "M_UNKNOWN_TOKEN",
    )
    .await;
    succeeds(world.login("alice@example.org", "a fourth password")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_ends_frees_its_addresses() {
    let world = World::start().await;
    let alice = world.with_email("alice", "alice@example.org", 1).await;
    let bob = world.server.register("bob").await;
    let taken = world
        .ask("/account/3pid", "alice@example.org", "s3cret2")
        .await;
    assert!(world.sink.letter(2).await.text.contains("already"));
    let body = json!({ "sid": taken, "client_secret": "s3cret2" });
    let add = bob.request(Method::POST, "/account/3pid/add").json(&body);
    refused(add, 400, "M_THREEPID_AUTH_FAILED").await;
    let (_, first) = answer(
        alice
            .request(Method::POST, "/account/deactivate")
            .json(&json!({})),
    )
    .await;
    let auth = json!({
        "type": "m.login.password", "session": first["session"], "password": PASSWORD,
        "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org" },
    });
    alice
        .post("/account/deactivate", json!({ "auth": auth }))
        .await;
    let sid = world
        .ask("/account/3pid", "alice@example.org", "s3cret")
        .await;
    assert_eq!(world.press(&world.sink.letter(3).await).await.status(), 200);
    world.add(&bob, &sid).await;
    refused(
        world.login("alice@example.org", "wrong password"),
        403,
        "M_FORBIDDEN",
    )
    .await;
    succeeds(world.login("alice@example.org", PASSWORD)).await;
}
