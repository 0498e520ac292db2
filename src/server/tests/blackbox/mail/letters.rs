//! How an address is shown to be one's own: the letter, its page, the token.

use reqwest::Method;
use serde_json::{Value, json};

use super::{World, creds};
use crate::harness::{Engine, PASSWORD, answer, refused, succeeds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validation_serves_the_purpose_that_it_was_asked_for() {
    let world = World::start().await;
    let alice = world.with_email("alice", "alice@example.org", 1).await;
    let sid = world
        .validate("/account/password", "alice@example.org", 2)
        .await;
    let body = json!({ "sid": sid, "client_secret": "s3cret" });
    let add = alice.request(Method::POST, "/account/3pid/add").json(&body);
    refused(add, 400, "M_THREEPID_AUTH_FAILED").await;
    let body = json!({ "username": "bob", "password": PASSWORD, "auth": creds(&sid) });
    assert_eq!(answer(world.post("/register", &body)).await.0, 401);
    let sid = world.validate("/account/3pid", "new@example.org", 3).await;
    let body = json!({ "new_password": "another password", "auth": creds(&sid) });
    assert_eq!(answer(world.post("/account/password", &body)).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_does_not_tell_whether_an_address_has_an_account() {
    let world = World::start().await;
    world.with_email("alice", "alice@example.org", 1).await;
    for path in ["/register", "/account/password", "/account/3pid"] {
        for email in ["alice@example.org", "nobody@example.org"] {
            let sid = world.ask(path, email, "x").await;
            assert!(sid.len() > 22, "{sid}");
        }
    }
    // Two letters for each but the password of nobody.
    world.sink.letter(6).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(world.sink.letters().len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_strict_in_ones_language_and_leads_on() {
    let world = World::start().await;
    let ask = |next: &str| {
        let body = json!({ "client_secret": "s", "email": "ana@example.org", "send_attempt": 1, "next_link": next });
        world
            .post("/register/email/requestToken", &body)
            .header("accept-language", "ro-RO, en;q=0.5")
    };
    for bad in [
        "javascript:alert(1)",
        "data:text/html,x",
        "//x",
        "https://a\r\nb: c",
        "ftp://a/",
    ] {
        refused(ask(bad), 400, "M_INVALID_PARAM").await;
    }
    succeeds(ask("https://app.example.org/#/done?a=b")).await;
    let letter = world.sink.letter(1).await;
    assert!(
        letter.text.contains("Bună") && letter.html.contains("Bună"),
        "{letter:?}"
    );
    let get = world.browser.get(world.url(&letter.link()));
    let page = get.header("accept-language", "ro").send().await.unwrap();
    let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    let policy = header("content-security-policy");
    for part in [
        "default-src 'none'",
        "form-action 'self' https://app.example.org",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("cache-control"), "no-store");
    assert!(header("content-type").starts_with("text/html"));
    let text = page.text().await.unwrap();
    assert!(
        text.contains("Confirmă") && !text.contains("<script"),
        "{text}"
    );
    let evil = "/_matrix/client/unstable/vatra.email/submit_token?sid=%3Cscript%3E&token=%22%3E%3Cscript%3E";
    let page = world.browser.get(world.url(evil)).send().await.unwrap();
    assert_eq!(page.status(), 400);
    assert!(!page.text().await.unwrap().contains("<script"));
    let led = world.press(&letter).await;
    assert_eq!(led.status(), 303);
    assert_eq!(
        led.headers()["location"],
        "https://app.example.org/#/done?a=b"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_submits_the_token_itself() {
    let world = World::start().await;
    let sid = world.ask("/register", "ana@example.org", "s3cret").await;
    let link = world.sink.letter(1).await.link();
    let (path, query) = link.split_once('?').unwrap();
    let token = query.split_once("token=").unwrap().1;
    let submit = |body: Value| world.server.request(Method::POST, path).json(&body);
    let body =
        |secret: &str, token: &str| json!({ "sid": sid, "client_secret": secret, "token": token });
    for (secret, token) in [("other", token), ("s3cret", "wrong"), ("s3cret", "")] {
        refused(submit(body(secret, token)), 400, "M_THREEPID_AUTH_FAILED").await;
    }
    let unsecret = json!({ "sid": sid, "token": token });
    refused(submit(unsecret), 400, "M_MISSING_PARAM").await;
    assert_eq!(
        succeeds(submit(body("s3cret", token))).await,
        json!({ "success": true })
    );
    refused(submit(body("s3cret", token)), 400, "M_THREEPID_AUTH_FAILED").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_few_for_an_address_and_for_who_asks() {
    let world = World::start_with(Engine::Memory, |config| config.rate_limits.enabled = true).await;
    let ask = |email: String, attempt: u32| {
        let body = json!({ "client_secret": "s", "email": email, "send_attempt": attempt });
        world.post("/account/password/email/requestToken", &body)
    };
    // However it is written, and whether or not it has an account.
    for (attempt, email) in (1..).zip([
        "a@example.org",
        "A@example.org",
        "a@EXAMPLE.org",
        "a@example.org",
        "a@example.org",
    ]) {
        succeeds(ask(email.to_owned(), attempt)).await;
    }
    let limited = refused(ask("a@Example.org".to_owned(), 9), 429, "M_LIMIT_EXCEEDED").await;
    assert!(
        limited["retry_after_ms"].as_u64().unwrap() > 60_000,
        "{limited}"
    );
    let mut others = 0;
    for number in 0..60 {
        let (status, _) = answer(ask(format!("a{number}@example.org"), 1)).await;
        assert!(status == 200 || status == 429);
        others += u32::from(status == 200);
    }
    assert!(
        (20..40).contains(&others),
        "{others} letters from one place"
    );
}
