//! Gateways that fail, are slow, or are gone; this server that stops.

use serde_json::json;

use super::world::{Mood, World};
use crate::{clock::Clock, schema};

/// Alice speaks in a room with Bob.
macro_rules! room_of_two {
    ($world:ident, $alice:ident, $bob:ident, $room:ident) => {
        let ($alice, $bob) = ($world.user("alice").await, $world.user("bob").await);
        let $room = $world.room(&$alice).await;
        $world.join(&$room, &$bob).await;
    };
}

#[tokio::test]
async fn what_a_gateway_does_not_take_is_told_again_later_in_order_with_the_same_id() {
    let world = World::new().await;
    room_of_two!(world, alice, bob, room);
    world.push(&bob, "phone").await;
    world
        .gateways
        .set("phone", &[Mood::Status(500), Mood::Gone, Mood::Status(200)]);
    world.say(&room, &alice, "one").await;
    world.told_only("phone", &["one 1"]).await;
    world.say(&room, &alice, "two").await;
    world.told_only("phone", &["one 1"]).await;
    assert_eq!(world.sender.figures().waiting, 1);
    world.clock.advance(3_000);
    world.told_only("phone", &["one 1", "one 2"]).await;
    // The second wait is longer.
    world.clock.advance(2_000);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    world.told_only("phone", &["one 1", "one 2"]).await;
    world.clock.advance(4_000);
    world
        .told_only("phone", &["one 1", "one 2", "one 2", "two 2"])
        .await;
    let ids: Vec<_> = world.gateways.got("phone");
    assert_eq!(ids[0]["event_id"], ids[2]["event_id"]);
    let figures = world.sender.figures();
    assert_eq!((figures.sent, figures.failed, figures.waiting), (2, 2, 0));
}

#[tokio::test]
async fn a_restart_forgets_neither_what_is_to_be_told_nor_how_long_to_wait() {
    let world = World::new().await;
    room_of_two!(world, alice, bob, room);
    world.push(&bob, "phone").await;
    world.say(&room, &alice, "told").await;
    world.told("phone", &["told 1"]).await;
    world
        .gateways
        .set("phone", &[Mood::Status(503), Mood::Status(200)]);
    world.say(&room, &alice, "missed").await;
    world.told_only("phone", &["told 1", "missed 2"]).await;
    let world = world.restarted().await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    world.told_only("phone", &["told 1", "missed 2"]).await;
    let key = ("app".to_owned(), format!("phone{}", bob.sid.0), bob.sid);
    let state = world.store.view().get(&schema::PUSHER_STATES, &key).await;
    let state = state.unwrap().unwrap();
    assert!(
        state.failures == 1 && state.retry_at > world.clock.now(),
        "{state:?}"
    );
    world.clock.advance(3_000);
    world
        .told_only("phone", &["told 1", "missed 2", "missed 2"])
        .await;
    world.stopped().await;
    world.say(&room, &alice, "while it stood").await;
    let world = world.restarted().await;
    let all = ["told 1", "missed 2", "missed 2", "while it stood 3"];
    world.told_only("phone", &all).await;
}

#[tokio::test]
async fn a_slow_gateway_holds_up_nobody_else() {
    let world = World::new().await;
    room_of_two!(world, alice, bob, room);
    world.gateways.set("slow", &[Mood::NeverAnswers]);
    // More than may be under way at one gateway, one of them of who has a quick one too.
    world.push(&bob, "slow").await;
    world.push(&bob, "quick").await;
    for number in 0..20 {
        let user = world.user(&format!("u{number}")).await;
        world.join(&room, &user).await;
        world.set(&user, "slow", json!({})).await.unwrap();
    }
    world.settled().await;
    world.say(&room, &alice, "one").await;
    world.told("quick", &["one 1"]).await;
    world.say(&room, &alice, "two").await;
    world.told_only("quick", &["one 1", "two 2"]).await;
    // So many requests may be under way at one gateway.
    assert_eq!(world.gateways.got("slow").len(), 16);
}

#[tokio::test]
async fn old_notifications_give_way_and_the_count_stays_right() {
    let world = World::new().await;
    room_of_two!(world, alice, bob, room);
    world.push(&bob, "phone").await;
    world
        .gateways
        .set("phone", &[Mood::Gone, Mood::Status(200)]);
    for number in 1..=120 {
        world.say(&room, &alice, &number.to_string()).await;
    }
    world.settled().await;
    world.clock.advance(3_000);
    world
        .until(
            || world.gateways.got("phone").len() == 101,
            || format!("{:?}", world.gateways.told("phone")),
        )
        .await;
    let told = world.gateways.told("phone");
    assert_eq!(
        (told[1].as_str(), told[100].as_str()),
        ("21 120", "120 120")
    );
    // After a day only the count is told.
    world
        .gateways
        .set("phone", &[Mood::Gone, Mood::Status(200)]);
    world.say(&room, &alice, "old").await;
    world.settled().await;
    world.clock.advance(25 * 3_600_000);
    world
        .until(
            || world.gateways.told("phone").last().unwrap() == "- 121",
            || format!("{:?}", world.gateways.told("phone").last()),
        )
        .await;
}

#[tokio::test]
async fn a_notification_that_a_gateway_refuses_gives_way_to_the_next() {
    let world = World::new().await;
    room_of_two!(world, alice, bob, room);
    world.push(&bob, "phone").await;
    let mut moods = vec![Mood::Status(400); 5];
    moods.push(Mood::Status(200));
    world.gateways.set("phone", &moods);
    world.say(&room, &alice, "poison").await;
    world.say(&room, &alice, "good").await;
    for tries in 1..=5 {
        world
            .until(
                || world.gateways.got("phone").len() == tries,
                || format!("{:?}", world.gateways.told("phone")),
            )
            .await;
        world.settled().await;
        world.clock.advance(60_000);
    }
    world
        .until(
            || world.gateways.told("phone").last().unwrap() == "good 2",
            || format!("{:?}", world.gateways.told("phone")),
        )
        .await;
    assert_eq!(world.gateways.got("phone").len(), 6);
}
