//! People who are away are written to, and can stop that without logging in.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use vatra::config::Config;

use super::{World, sink::Letter};
use crate::harness::{Engine, User, encoded, refused};

/// A short delay; nobody waits ten minutes for a test.
fn quick(config: &mut Config) {
    config.email.notification_delay_s = 1;
    config.metrics.listen = "127.0.0.1:0".to_owned();
}

fn pusher(email: &str) -> Value {
    json!({
        "kind": "email", "app_id": "m.email", "pushkey": email, "app_display_name": "Email Notifications",
        "device_display_name": email, "lang": "en", "data": { "brand": "Hearth" },
    })
}

impl World {
    /// Alice; and Bob, who has an address, in a room of Alice's. The first letter was the one about the address.
    async fn with_away(change: impl FnOnce(&mut Config)) -> (Self, User, User, String) {
        let world = Self::start_with(Engine::Memory, |config| {
            quick(config);
            change(config);
        })
        .await;
        let bob = world.with_email("bob", "bob@example.org", 1).await;
        let alice = world.server.register("alice").await;
        let asked = json!({ "preset": "public_chat", "name": "Sitting room" });
        let room = alice.create_room(asked).await;
        bob.join(&room).await;
        (world, alice, bob, room)
    }

    async fn quiet_for(&self, seconds: u64, letters: usize) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let got = self.sink.letters();
        assert_eq!(got.len(), letters, "{got:?}");
    }
}

/// The page that stops letters, and what its links hold.
fn unsubscribe(letter: &Letter) -> String {
    let header = letter.header("List-Unsubscribe");
    let link = header.trim_start_matches('<').trim_end_matches('>');
    let path = link.strip_prefix("https://matrix.example.org").unwrap();
    path.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_gets_exactly_one_letter_and_stops_the_next_by_its_link() {
    let (world, alice, bob, room) = World::with_away(|_| {}).await;
    alice.send(&room, "dinner is ready").await;
    let letter = world.sink.letter(2).await;
    assert_eq!(letter.to, "bob@example.org");
    assert_eq!(
        letter.header("Subject"),
        "[localhost] Sitting room: 1 unread"
    );
    assert_eq!(letter.header("List-Id"), "<notifications.localhost>");
    assert_eq!(
        letter.header("List-Unsubscribe-Post"),
        "List-Unsubscribe=One-Click"
    );
    assert!(
        letter.header("Message-ID").ends_with("@localhost>"),
        "{letter:?}"
    );
    assert!(letter.header("References").starts_with('<'), "{letter:?}");
    for part in [&letter.text, &letter.html] {
        for word in ["alice", "Sitting room", "dinner is ready"] {
            assert!(part.contains(word), "{word}: {part}");
        }
    }
    assert!(
        letter.text.contains("https://matrix.to/#/"),
        "{}",
        letter.text
    );
    world.quiet_for(3, 2).await;
    // A program that fetches the link stops nothing.
    let page = world.url(&unsubscribe(&letter));
    let looked = world.browser.get(&page).send().await.unwrap();
    assert_eq!(looked.status(), 200);
    assert_eq!(looked.headers()["referrer-policy"], "no-referrer");
    let looked = looked.text().await.unwrap();
    assert!(looked.contains("<form method=\"post\"") && looked.contains("bob@example.org"));
    assert_eq!(bob.get("/pushers").await["pushers"][0]["kind"], "email");
    // One POST of a mail program does.
    let stop = || {
        let request = world.browser.post(&page);
        let kind = "application/x-www-form-urlencoded";
        let request = request.header("content-type", kind);
        request.body("List-Unsubscribe=One-Click").send()
    };
    assert_eq!(stop().await.unwrap().status(), 200);
    assert_eq!(bob.get("/pushers").await, json!({ "pushers": [] }));
    assert_eq!(stop().await.unwrap().status(), 200);
    let looked = world.browser.get(&page).send().await.unwrap();
    assert_eq!(looked.status(), 404);
    alice.send(&room, "it gets cold").await;
    world.quiet_for(4, 2).await;
    // The page's own button, of another pusher.
    bob.post("/pushers/set", pusher("bob@example.org")).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    alice.send(&room, "dessert?").await;
    let letter = world.sink.letter(3).await;
    assert!(letter.text.contains("dessert?") && !letter.text.contains("cold"));
    let link = unsubscribe(&letter);
    let (path, query) = link.split_once('?').unwrap();
    let request = world.browser.post(world.url(path)).body(query.to_owned());
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(bob.get("/pushers").await, json!({ "pushers": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_there_or_reads_in_time_gets_none_and_who_waits_in_the_background_does() {
    let (world, alice, bob, room) = World::with_away(|_| {}).await;
    // There, in the foreground, without reading.
    alice.send(&room, "one").await;
    for _ in 0..8 {
        bob.get("/sync?timeout=0").await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let event = alice.send(&room, "two").await;
    let path = format!(
        "/rooms/{}/receipt/m.read.private/{}",
        encoded(&room),
        encoded(&event)
    );
    bob.post(&path, json!({})).await;
    world.quiet_for(3, 1).await;
    alice.send(&room, "three").await;
    for _ in 0..8 {
        bob.get("/sync?timeout=0&set_presence=unavailable").await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert!(world.sink.letter(2).await.text.contains("three"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_go_to_validated_addresses_of_their_owner_while_they_are_theirs() {
    let (world, alice, bob, room) = World::with_away(|config| {
        config.email.notify_new_accounts = false;
    })
    .await;
    assert_eq!(bob.get("/pushers").await, json!({ "pushers": [] }));
    alice.send(&room, "nobody asked for letters").await;
    let set = |user: &User, body: &Value| user.request(Method::POST, "/pushers/set").json(body);
    let good = pusher("bob@example.org");
    refused(set(&alice, &good), 400, "M_THREEPID_NOT_FOUND").await;
    refused(
        set(&bob, &pusher("eve@example.org")),
        400,
        "M_THREEPID_NOT_FOUND",
    )
    .await;
    for (field, value) in [
        ("app_id", json!("org.example")),
        ("data", json!({ "org.vatra.mode": "often" })),
        (
            "data",
            json!({ "org.vatra.quiet_hours": { "from": "22:00", "to": "07:00", "time_zone": "Mars" } }),
        ),
    ] {
        let mut body = good.clone();
        body[field] = value;
        refused(set(&bob, &body), 400, "M_INVALID_PARAM").await;
    }
    bob.post("/pushers/set", good.clone()).await;
    assert_eq!(bob.get("/pushers").await["pushers"][0], good);
    // They outlive the session.
    let other = world.server.login("bob").await;
    bob.post("/logout", json!({})).await;
    assert_eq!(other.get("/pushers").await["pushers"][0], good);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    alice.send(&room, "hello").await;
    assert!(world.sink.letter(2).await.text.contains("hello"));
    let address = json!({ "medium": "email", "address": "bob@example.org" });
    other.post("/account/3pid/delete", address).await;
    assert_eq!(other.get("/pushers").await, json!({ "pushers": [] }));
    alice.send(&room, "gone").await;
    world.quiet_for(4, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_that_comes_back_gets_each_letter_once_and_one_that_refuses_ends_them() {
    let (mut world, alice, bob, room) = World::with_away(|_| {}).await;
    world.sink.stop().await;
    alice.send(&room, "hello").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.sink.start_again().await;
    assert!(world.sink.letter(2).await.text.contains("hello"));
    let other = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&other).await;
    world.sink.answer_next("550 nobody here");
    alice.send(&other, "refused").await;
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let address = world.server.running().metrics.unwrap();
        let request = world.browser.get(format!("http://{address}/metrics"));
        let page = request.send().await.unwrap().text().await.unwrap();
        if page.contains("vatra_away_mail_pushers_ended_total 1") {
            assert!(page.contains("vatra_away_mail_sent_total 1"), "{page}");
            assert_eq!(bob.get("/pushers").await, json!({ "pushers": [] }));
            world.quiet_for(2, 2).await;
            return;
        }
    }
    panic!("the pusher has not ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_address_is_refused_for_good_is_told_so_in_the_room_of_the_server() {
    let voice = |config: &mut Config| config.server_notices.localpart = "server".to_owned();
    let (world, alice, bob, room) = World::with_away(voice).await;
    bob.post(
        "/pushers/set",
        json!({ "lang": "ro", "kind": "email", "app_id": "m.email", "pushkey": "bob@example.org",
        "app_display_name": "a", "device_display_name": "d", "data": {} }),
    )
    .await;
    world.sink.answer_next("550 nobody of that name");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    alice.send(&room, "dinner is ready").await;
    let mut invited = Value::Null;
    for _ in 0..100 {
        invited = bob.get("/sync?timeout=0&set_presence=offline").await["rooms"]["invite"].clone();
        if invited.is_object() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (notices, _) = invited.as_object().unwrap().iter().next().unwrap();
    bob.join(notices).await;
    let path = format!(
        "/rooms/{}/messages?dir=b&filter=%7B%22types%22%3A%5B%22m.room.message%22%5D%7D",
        encoded(notices)
    );
    let said = bob.get(&path).await["chunk"].clone();
    assert_eq!(said.as_array().unwrap().len(), 1, "{said}");
    let text = said[0]["content"]["body"].as_str().unwrap();
    assert!(
        text.contains("bob@example.org")
            && text.contains("nobody of that name")
            && text.contains("refuz"),
        "{text}"
    );
    assert_eq!(bob.get("/pushers").await, json!({ "pushers": [] }));
}
