//! Mail servers that are away, addresses that are refused, and a kill at the worst moment; and who is written to at all.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::json;
use vatra_store::{Direction, Range};

use super::world::{DELAY, HOUR, MINUTE, Mailing, Mood};
use crate::{mail::SendError, schema};

fn away() -> Mood {
    Mood::Fails(SendError::Unreachable("nobody answers".to_owned()))
}

#[tokio::test]
async fn a_mail_server_that_was_away_for_an_hour_costs_no_letter_and_sends_none_twice() {
    let mail = Mailing::new().await;
    let (alice, bob, room) = mail.two(json!({})).await;
    let other = mail.world.room(&alice).await;
    mail.world.join(&other, &bob).await;
    mail.moods((0..1_000).map(|_| away()));
    let read = mail.world.say(&room, &alice, "read meanwhile").await;
    mail.world.say(&other, &alice, "never read").await;
    mail.pass(HOUR).await;
    mail.world.read(&room, &bob, &read).await;
    mail.world.say(&other, &alice, "later").await;
    mail.none();
    let failed = mail.sender.figures().failed;
    assert!((5..30).contains(&failed), "{failed} attempts");
    let left = mail.world.users.pushers(bob.sid).await.unwrap();
    assert_eq!(left.len(), 1);
    mail.post_is_back();
    mail.pass(2 * HOUR).await;
    let text: Vec<_> = mail.letters().into_iter().map(|it| it.text).collect();
    let times = |word: &str| text.iter().filter(|text| text.contains(word)).count();
    assert_eq!((times("never read"), times("later")), (1, 1), "{text:?}");
    assert_eq!(times("read meanwhile"), 0);
}

#[tokio::test]
async fn what_is_put_off_comes_later_also_after_a_restart() {
    let mut mail = Mailing::new().await;
    let (alice, _, room) = mail.two(json!({})).await;
    mail.moods([Mood::Fails(SendError::Later("busy".to_owned()))]);
    mail.world.say(&room, &alice, "hello").await;
    mail.pass(DELAY).await;
    mail.none();
    mail.restart().await;
    mail.pass(MINUTE).await;
    assert!(mail.letter().text.contains("hello"));
    mail.restart().await;
    mail.pass(HOUR).await;
    mail.none();
}

#[tokio::test]
async fn a_kill_between_sending_and_noting_it_sends_the_same_letter_again_at_most() {
    let mut mail = Mailing::new().await;
    let (alice, _, room) = mail.two(json!({})).await;
    mail.world.say(&room, &alice, "one").await;
    mail.moods([Mood::TakesItAndNeverSays]);
    let late = tokio::time::timeout(std::time::Duration::from_millis(500), mail.pass(DELAY)).await;
    assert!(late.is_err());
    let first = mail.letter();
    mail.world.say(&room, &alice, "two").await;
    mail.restart().await;
    mail.pass(MINUTE).await;
    let again = mail.letter();
    assert_eq!(again.id, first.id);
    assert!(again.text.contains("one"));
    // Who has the first letter does not look into the second: it must hold nothing new.
    assert!(!again.text.contains("two"), "{}", again.text);
    mail.pass(HOUR).await;
    let next = mail.letter();
    assert!(next.text.contains("two") && !next.text.contains("one"));
    assert_ne!(next.id, first.id);
    mail.pass(HOUR).await;
    mail.none();
}

#[tokio::test]
async fn an_address_that_is_refused_is_written_to_no_more() {
    let mail = Mailing::new().await;
    let (alice, bob, room) = mail.two(json!({})).await;
    mail.moods([Mood::Fails(SendError::Never("550 nobody here".to_owned()))]);
    mail.world.say(&room, &alice, "one").await;
    mail.pass(DELAY).await;
    mail.world.say(&room, &alice, "two").await;
    mail.pass(HOUR).await;
    mail.none();
    assert!(mail.world.users.pushers(bob.sid).await.unwrap().is_empty());
    assert_eq!(mail.sender.figures().ended, 1);
    let view = mail.world.store.view();
    let outcomes = view.range(&schema::MAIL_OUTCOMES, Range::all(), Direction::Forward, 10);
    let outcomes = outcomes.await.unwrap();
    assert_eq!(outcomes[0].1.error.as_deref(), Some("550 nobody here"));
}

#[tokio::test]
async fn letters_outlive_a_session_and_end_with_address_account_and_link() {
    let mail = Mailing::new().await;
    let (alice, bob, room) = mail.two(json!({})).await;
    let users = &mail.world.users;
    users.logout_all(bob.sid, None).await.unwrap();
    mail.world.say(&room, &alice, "one").await;
    mail.pass(DELAY).await;
    let letter = mail.letter();
    let of = |letter: &crate::mail::Letter| {
        let link = letter.list.clone().unwrap().unsubscribe;
        link.split_once("token=").unwrap().1.to_owned()
    };
    let link = of(&letter);
    // Set anew, its links are the same.
    mail.set(&bob, "bob@example.org", json!({ "lang": "ro" }))
        .await
        .unwrap();
    assert_eq!(
        users.subscription(&link).await.unwrap().as_deref(),
        Some("bob@example.org")
    );
    for wrong in [
        "",
        ".",
        "1",
        &link[..link.len() - 1],
        &format!("{link}x"),
        "99999999999999999999.x",
    ] {
        assert_eq!(users.unsubscribe(wrong).await.unwrap(), None, "{wrong}");
    }
    assert!(users.unsubscribe(&link).await.unwrap().is_some());
    assert!(users.unsubscribe(&link).await.unwrap().is_none());
    mail.world.say(&room, &alice, "two").await;
    mail.pass(HOUR).await;
    mail.none();
    // Another pusher has other links.
    mail.set(&bob, "bob@example.org", json!({})).await.unwrap();
    assert_eq!(users.subscription(&link).await.unwrap(), None);
    mail.world.settled().await;
    mail.world.say(&room, &alice, "three").await;
    assert!(
        users
            .remove_email(bob.sid, "Bob@example.org")
            .await
            .unwrap()
    );
    mail.pass(HOUR).await;
    mail.none();
    let gone = mail.set(&bob, "bob@example.org", json!({})).await;
    assert_eq!(format!("{:?}", gone.unwrap_err()), "NotYourEmail");
    mail.address(&bob).await;
    mail.set(&bob, "bob@example.org", json!({})).await.unwrap();
    users.deactivate(bob.sid, false).await.unwrap();
    mail.world.say(&room, &alice, "four").await;
    mail.pass(HOUR).await;
    mail.none();
    let view = mail.world.store.view();
    let told = view.first(&schema::TOLD_BY_MAIL, Range::all(), Direction::Forward);
    assert!(told.await.unwrap().is_none());
    let states = view.first(&schema::PUSHER_STATES, Range::all(), Direction::Forward);
    assert!(states.await.unwrap().is_none());
}

#[tokio::test]
async fn only_own_addresses_are_written_to_and_wishes_make_sense() {
    let mail = Mailing::new().await;
    let (alice, bob) = (mail.world.user("alice").await, mail.world.user("bob").await);
    let address = mail.address(&bob).await;
    for (user, address, change, wrong) in [
        (&alice, address.as_str(), json!({}), "NotYourEmail"),
        (&bob, "alice@example.org", json!({}), "NotYourEmail"),
        (&bob, "no address", json!({}), "NotYourEmail"),
        (&bob, &address, json!({ "app_id": "other" }), "NotMailApp"),
        (
            &bob,
            &address,
            json!({ "data": { "org.vatra.mode": "often" } }),
            "BadWish",
        ),
        (
            &bob,
            &address,
            json!({ "data": { "org.vatra.quiet_hours": {} } }),
            "BadWish",
        ),
        (&bob, &address, json!({ "data": null }), "Missing"),
    ] {
        let error = mail.set(user, address, change).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(wrong), "{error:?}");
    }
    mail.set(&bob, &address, json!({})).await.unwrap();
    mail.set(&bob, "BOB@example.org", json!({ "kind": null }))
        .await
        .unwrap();
    assert!(mail.world.users.pushers(bob.sid).await.unwrap().is_empty());
}
