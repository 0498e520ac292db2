//! People who are away are written to once, and nobody else is.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod faults;
mod world;

use serde_json::json;

use self::world::{DELAY, HOUR, MINUTE, Mailing};
use crate::followers::push_sender::tests::world::{draft, member};

#[tokio::test]
async fn who_is_away_gets_one_letter_with_sender_room_and_text() {
    let mail = Mailing::new().await;
    let (alice, bob, room) = mail.two(json!({ "brand": "Vatra" })).await;
    let event = mail
        .world
        .say(&room, &alice, "dinner is <b>ready</b>")
        .await;
    mail.pass(DELAY - MINUTE).await;
    mail.none();
    mail.pass(MINUTE).await;
    let letter = mail.letter();
    assert_eq!(letter.to, "bob@example.org");
    assert_eq!(letter.subject, "[here] Hearth: 1 unread");
    let link = room.matrix_to_event_uri_via(event, [bob.user.server_name().to_owned()]);
    for part in [
        "You have 1 unread on here.",
        "== Hearth\n\nalice:\n    dinner is <b>ready</b>\n",
        &format!("Open in Vatra: {link}"),
        "because bob@example.org",
    ] {
        assert!(letter.text.contains(part), "{part}: {}", letter.text);
    }
    assert!(
        letter.html.contains("dinner is &lt;b&gt;ready&lt;"),
        "{}",
        letter.html
    );
    let list = letter.list.unwrap();
    assert_eq!(list.id, "notifications.here");
    assert!(letter.text.contains(&list.unsubscribe), "{list:?}");
    mail.pass(48 * HOUR).await;
    mail.none();
    // The next is of the same conversation, and another letter.
    mail.world.say(&room, &alice, "it gets cold").await;
    mail.pass(DELAY).await;
    let next = mail.letter();
    assert_eq!(next.follows, letter.follows);
    assert_ne!(next.id, letter.id);
    assert!(next.text.contains("it gets cold") && next.text.contains("2 unread"));
    assert!(!next.text.contains("dinner"), "{}", next.text);
}

#[tokio::test]
async fn who_is_there_reads_leaves_or_has_nothing_left_to_read_gets_none() {
    let mail = Mailing::new().await;
    let (alice, bob, room) = mail.two(json!({})).await;
    let world = &mail.world;
    // Read within the delay.
    let event = world.say(&room, &alice, "one").await;
    mail.pass(DELAY - MINUTE).await;
    world.read(&room, &bob, &event).await;
    mail.pass(DELAY).await;
    mail.none();
    // There, without reading.
    world.say(&room, &alice, "two").await;
    for _ in 0..10 {
        mail.pass(5 * MINUTE).await;
        world.users.is_there(bob.sid);
    }
    mail.none();
    mail.pass(DELAY).await;
    assert!(mail.letter().text.contains("two"));
    // Redacted.
    let event = world.say(&room, &alice, "three").await;
    let mut redaction = draft("@alice:here", "m.room.redaction", None, json!({}));
    redaction.redacts = Some(event);
    world.send(&room, redaction).await;
    mail.pass(HOUR).await;
    mail.none();
    // Left.
    world.say(&room, &alice, "four").await;
    world
        .send(&room, member("@bob:here", "@bob:here", "leave"))
        .await;
    mail.pass(HOUR).await;
    mail.none();
}

#[tokio::test]
async fn a_room_that_nobody_reads_is_told_of_more_and_more_seldom() {
    let mail = Mailing::new().await;
    let (alice, bob, room) = mail.two(json!({})).await;
    let world = &mail.world;
    let mut told = Vec::new();
    for minute in 0..120_u64 {
        if minute % 5 == 0 {
            world.say(&room, &alice, &format!("at {minute}.")).await;
        }
        mail.pass(MINUTE).await;
        told.extend(mail.letters().iter().map(|_| minute + 1));
    }
    assert_eq!(told, [10, 30, 70]);
    // What was read is over.
    let event = world.say(&room, &alice, "read this").await;
    world.read(&room, &bob, &event).await;
    mail.pass(3 * HOUR).await;
    mail.none();
    world.say(&room, &alice, "now").await;
    mail.pass(DELAY).await;
    assert!(mail.letter().text.contains("now"));
}

#[tokio::test]
async fn digests_come_once_an_hour_and_once_a_day() {
    for (mode, period) in [("hourly", HOUR), ("daily", 24 * HOUR)] {
        let mail = Mailing::new().await;
        let (alice, ..) = mail.two(json!({ "org.vatra.mode": mode })).await;
        let bob = mail.world.users.find("bob").await.unwrap().unwrap().0;
        let rooms = [mail.world.room(&alice).await, mail.world.room(&alice).await];
        for room in &rooms {
            let join = member(bob.as_str(), bob.as_str(), "join");
            mail.world.send(room, join).await;
        }
        mail.world.settled().await;
        mail.world.say(&rooms[0], &alice, "first").await;
        mail.pass(period / 2).await;
        mail.world.say(&rooms[1], &alice, "second").await;
        mail.pass(period / 2 - MINUTE).await;
        mail.none();
        mail.pass(MINUTE).await;
        let letter = mail.letter();
        assert!(letter.text.contains("first") && letter.text.contains("second"));
        assert!(
            letter.subject.contains("2 unread, in"),
            "{}",
            letter.subject
        );
        mail.pass(2 * period).await;
        mail.none();
    }
}

#[tokio::test]
async fn at_night_nothing_is_sent_and_nothing_lost() {
    let mail = Mailing::new().await;
    // The clock stands at 22:13:20 UTC.
    let quiet = json!({ "from": "23:30", "to": "07:00", "time_zone": "Europe/Bucharest" });
    let (alice, _, room) = mail.two(json!({ "org.vatra.quiet_hours": quiet })).await;
    mail.world.say(&room, &alice, "good night").await;
    mail.pass(6 * HOUR + 46 * MINUTE).await;
    mail.none();
    mail.pass(MINUTE).await;
    assert!(mail.letter().text.contains("good night"));
}

#[tokio::test]
async fn who_wants_mentions_is_told_of_these_of_conversations_of_two_and_of_invites() {
    let mail = Mailing::new().await;
    let (alice, bob, room) = mail.two(json!({ "org.vatra.mode": "mentions" })).await;
    let world = &mail.world;
    let carol = world.user("carol").await;
    world.join(&room, &carol).await;
    world.say(&room, &alice, "to nobody").await;
    mail.pass(HOUR).await;
    mail.none();
    let content =
        json!({ "msgtype": "m.text", "body": "to you", "m.mentions": { "user_ids": [bob.user] } });
    world
        .send(&room, draft("@alice:here", "m.room.message", None, content))
        .await;
    mail.pass(DELAY).await;
    let letter = mail.letter();
    assert!(letter.text.contains("to you") && !letter.text.contains("nobody"));
    assert!(
        letter.text.contains("2 unread on here, 1 of it for you"),
        "{}",
        letter.text
    );
    let two = world.room(&alice).await;
    world.join(&two, &bob).await;
    world.say(&two, &alice, "between us").await;
    mail.pass(DELAY).await;
    assert!(mail.letter().text.contains("between us"));
    let other = world.room(&alice).await;
    world.join(&other, &carol).await;
    world
        .send(&other, member("@alice:here", "@bob:here", "invite"))
        .await;
    mail.pass(DELAY).await;
    let letter = mail.letter();
    assert!(
        letter.subject.contains("alice invites you"),
        "{}",
        letter.subject
    );
    // What was declined is told of no more.
    let third = world.room(&alice).await;
    world
        .send(&third, member("@alice:here", "@bob:here", "invite"))
        .await;
    world
        .send(&third, member("@bob:here", "@bob:here", "leave"))
        .await;
    mail.pass(HOUR).await;
    mail.none();
}

#[tokio::test]
async fn of_an_encrypted_room_a_letter_says_who_and_how_many_and_never_what() {
    let mail = Mailing::new().await;
    let (alice, _, room) = mail.two(json!({})).await;
    let world = &mail.world;
    let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    world
        .send(
            &room,
            draft("@alice:here", "m.room.encryption", Some(""), content),
        )
        .await;
    let content = json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "c1pher", "body": "hidden", "session_id": "s3ssion" });
    world
        .send(
            &room,
            draft("@alice:here", "m.room.encrypted", None, content),
        )
        .await;
    // Said in the clear by mistake.
    world.say(&room, &alice, "the secret").await;
    mail.pass(DELAY).await;
    let letter = mail.letter();
    assert!(
        letter.text.contains("2 unread from alice"),
        "{}",
        letter.text
    );
    for part in [&letter.subject, &letter.text, &letter.html] {
        for word in ["c1pher", "hidden", "s3ssion", "secret"] {
            assert!(!part.contains(word), "{part}");
        }
        assert!(part.contains("Hearth"));
    }
}

#[tokio::test]
async fn no_name_makes_a_header_or_html() {
    let mail = Mailing::new().await;
    let (alice, bob, room) = mail
        .two(json!({ "brand": "x\r\nBcc: eve@example.org" }))
        .await;
    let world = &mail.world;
    let evil = "<img src=x>\r\nBcc: eve@example.org\r\n\r\nbody\u{202e}";
    let name = draft(
        "@alice:here",
        "m.room.name",
        Some(""),
        json!({ "name": evil }),
    );
    world.send(&room, name).await;
    let content = json!({ "membership": "join", "displayname": evil });
    world
        .send(
            &room,
            draft("@alice:here", "m.room.member", Some("@alice:here"), content),
        )
        .await;
    world.say(&room, &alice, evil).await;
    let other = world.room(&alice).await;
    let name = draft(
        "@alice:here",
        "m.room.name",
        Some(""),
        json!({ "name": evil }),
    );
    world.send(&other, name).await;
    mail.pass(DELAY).await;
    let one = mail.letter();
    let invite = json!({ "membership": "invite", "displayname": evil });
    world
        .send(
            &other,
            draft(
                "@alice:here",
                "m.room.member",
                Some(bob.user.as_str()),
                invite,
            ),
        )
        .await;
    mail.pass(DELAY).await;
    for letter in [one, mail.letter()] {
        let list = letter.list.clone().unwrap();
        for header in [
            &letter.subject,
            &letter.id,
            &letter.to,
            &letter.follows.unwrap(),
            &list.id,
            &list.unsubscribe,
        ] {
            assert!(!header.contains(['\r', '\n', '\u{202e}']), "{header:?}");
        }
        assert!(!letter.html.contains("<img") && !letter.html.contains('\u{202e}'));
        assert!(!letter.text.contains("\nBcc"), "{}", letter.text);
    }
}

#[tokio::test]
async fn letters_are_in_the_language_of_the_pusher() {
    let mail = Mailing::new().await;
    let (alice, bob, room) = mail.two(json!({})).await;
    let romanian = json!({ "lang": "ro-RO" });
    mail.set(&bob, "Bob@Example.org", romanian).await.unwrap();
    mail.world.say(&room, &alice, "salut").await;
    mail.pass(DELAY).await;
    let letter = mail.letter();
    assert_eq!(letter.subject, "[here] Hearth: necitite 1");
    assert!(
        letter.text.contains("Deschide în Matrix"),
        "{}",
        letter.text
    );
}
