//! Rooms that servers write to at the same time.

use proptest::prelude::*;
use ruma::OwnedEventId;
use serde_json::json;

use super::world::{Net, Server};
use crate::{
    event::build::{Draft, Placement},
    flows::backfill,
    rooms::receive::Verdict,
    schema::{RoomOrder, Status},
    users::Requester,
};

/// Two servers in one public room: alice of a made it, bob of b joined.
async fn pair(version: &str) -> (Net, Server, Server, Requester, Requester, ruma::OwnedRoomId) {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = a.room(&alice, version).await;
    b.join(&bob, &room, &a).await.unwrap();
    (net, a, b, alice, bob, room)
}

#[tokio::test]
async fn a_room_of_every_version_is_joined_and_heard_both_ways() {
    for version in 1..=12 {
        let (_, a, b, alice, bob, room) = pair(&version.to_string()).await;
        assert_eq!(a.state(&room).await, b.state(&room).await, "{version}");
        assert_eq!(a.extremities(&room).await, b.extremities(&room).await);
        let hello = a.say(&alice, &room, "hello").await;
        assert_eq!(a.tell(&b, &room, &[hello]).await, [Ok(())], "{version}");
        let back = b.say(&bob, &room, "hello back").await;
        assert_eq!(b.tell(&a, &room, &[back]).await, [Ok(())], "{version}");
        assert_eq!(a.heard(&room).await, ["hello", "hello back"], "{version}");
        assert_eq!(b.heard(&room).await, ["hello", "hello back"], "{version}");
        assert_eq!(a.extremities(&room).await, b.extremities(&room).await);
        a.is_sound().await;
        b.is_sound().await;
    }
}

#[tokio::test]
async fn a_fork_heals_to_one_state_and_the_next_event_joins_the_branches() {
    for version in ["1", "6", "10", "12"] {
        let (_, a, b, alice, bob, room) = pair(version).await;
        let (topic, name) = (json!({ "topic": "t" }), json!({ "name": "n" }));
        let levels = a.state(&room).await;
        let one = a.send(&alice, &room, "m.room.topic", Some(""), topic).await;
        let two = a.send(&alice, &room, "m.room.name", Some(""), name).await;
        let other = b.say(&bob, &room, "meanwhile").await;
        assert_eq!(
            a.tell(&b, &room, &[one, two.clone()]).await,
            [Ok(()), Ok(())]
        );
        assert_eq!(
            b.tell(&a, &room, std::slice::from_ref(&other)).await,
            [Ok(())]
        );
        assert_eq!(a.extremities(&room).await, [two, other].into());
        assert_eq!(a.extremities(&room).await, b.extremities(&room).await);
        assert_eq!(a.state(&room).await, b.state(&room).await, "{version}");
        assert_eq!(a.state(&room).await.len(), levels.len() + 2, "{version}");
        let merge = b.say(&bob, &room, "one again").await;
        assert_eq!(
            b.tell(&a, &room, std::slice::from_ref(&merge)).await,
            [Ok(())]
        );
        assert_eq!(a.extremities(&room).await, [merge].into());
        assert_eq!(a.state(&room).await, b.state(&room).await, "{version}");
    }
}

#[tokio::test]
async fn who_was_banned_meanwhile_is_not_heard_and_is_no_extremity() {
    let (_, a, b, alice, bob, room) = pair("12").await;
    let ban = json!({ "membership": "ban" });
    let ban = a
        .send(&alice, &room, "m.room.member", Some("@bob:b"), ban)
        .await;
    let late = b.say(&bob, &room, "not banned yet").await;
    let topic = b
        .try_send(&bob, &room, "org.example.free", None, json!({}))
        .await
        .unwrap();
    assert_eq!(
        b.tell(&a, &room, &[late.clone(), topic]).await,
        [Ok(()), Ok(())]
    );
    let stored = a.event(&room, &late).await.unwrap();
    assert_eq!(stored.status, Status::SoftFailed);
    assert_eq!(a.heard(&room).await, [""; 0]);
    assert_eq!(a.extremities(&room).await, [ban.clone()].into());
    // On the other side the ban follows the last common event, and wins.
    assert_eq!(
        a.tell(&b, &room, std::slice::from_ref(&ban)).await,
        [Ok(())]
    );
    let member = ("m.room.member".to_owned(), "@bob:b".to_owned());
    assert_eq!(b.state(&room).await[&member], ban);
    assert_eq!(a.state(&room).await, b.state(&room).await);
    b.try_send(&bob, &room, "m.room.message", None, json!({}))
        .await
        .unwrap_err();
    a.is_sound().await;
}

#[tokio::test]
async fn what_comes_from_elsewhere_while_a_gap_is_asked_for_is_not_missing() {
    let (net, a, b, _, bob, room) = pair("12").await;
    let c = net.server("c").await;
    let carol = c.user("carol").await;
    c.join(&carol, &room, &a).await.unwrap();
    let joined: Vec<_> = c.extremities(&room).await.into_iter().collect();
    assert_eq!(c.tell(&b, &room, &joined).await, [Ok(())]);
    let first = b.say(&bob, &room, "first").await;
    assert_eq!(
        b.tell(&c, &room, std::slice::from_ref(&first)).await,
        [Ok(())]
    );
    let second = c.say(&carol, &room, "second").await;
    let (reached, go) = net.hold("get_missing_events");
    let telling = {
        let (a, c, room) = (a.clone(), c.clone(), room.clone());
        tokio::spawn(async move { c.tell(&a, &room, &[second]).await })
    };
    reached.notified().await;
    assert_eq!(b.tell(&a, &room, &[first]).await, [Ok(())]);
    go.notify_one();
    assert_eq!(telling.await.unwrap(), [Ok(())]);
    assert_eq!(a.heard(&room).await, ["first", "second"]);
}

#[tokio::test]
async fn nothing_ends_where_only_an_unseen_event_follows() {
    let (_, a, b, alice, bob, room) = pair("12").await;
    let dora = b.user("dora").await;
    b.join(&dora, &room, &a).await.unwrap();
    let joined = b.extremities(&room).await;
    let joined: Vec<_> = joined.into_iter().collect();
    assert_eq!(b.tell(&a, &room, &joined).await, [Ok(())]);
    let ban = json!({ "membership": "ban" });
    let ban = a
        .send(&alice, &room, "m.room.member", Some("@bob:b"), ban)
        .await;
    let seen = b.say(&dora, &room, "before").await;
    let unseen = b.say(&bob, &room, "not banned yet").await;
    let last = b.say(&dora, &room, "after").await;
    b.tell(&a, &room, std::slice::from_ref(&seen)).await;
    assert_eq!(a.extremities(&room).await, [ban.clone(), seen].into());
    b.tell(&a, &room, std::slice::from_ref(&unseen)).await;
    let stored = a.event(&room, &unseen).await.unwrap();
    assert_eq!(stored.status, Status::SoftFailed);
    b.tell(&a, &room, std::slice::from_ref(&last)).await;
    assert_eq!(a.extremities(&room).await, [ban, last].into());
    a.is_sound().await;
}

#[tokio::test]
async fn rejected_events_are_kept_apart_and_what_follows_them_is_judged_for_itself() {
    let (_, a, b, _, bob, room) = pair("10").await;
    let reader = b.rooms.reader();
    let known = reader.room(&room).await.unwrap().unwrap();
    // Bob has no power to set levels; his server sends the event all the same.
    let template = |kind: &str, key: Option<&str>| Draft {
        sender: bob.user.clone(),
        kind: kind.into(),
        state_key: key.map(str::to_owned),
        content: serde_json::from_value(json!({ "users": { "@bob:b": 100 } })).unwrap(),
        redacts: None,
    };
    let state = b.state(&room).await;
    let at = |kind: &str, key: &str| state[&(kind.to_owned(), key.to_owned())].clone();
    let auth_events = vec![
        at("m.room.create", ""),
        at("m.room.power_levels", ""),
        at("m.room.member", "@bob:b"),
    ];
    let mut placement = Placement {
        room_id: Some(room.clone()),
        rules: known.rules.clone(),
        prev_events: b.extremities(&room).await.into_iter().collect(),
        auth_events,
        depth: 10,
        origin_server_ts: b.rooms.now(),
    };
    let bad = b
        .rooms
        .build_at(template("m.room.power_levels", Some("")), &placement)
        .unwrap();
    placement.prev_events = vec![bad.event_id.clone()];
    placement.depth = 11;
    let good = b
        .rooms
        .build_at(template("org.example.said", None), &placement)
        .unwrap();
    placement.auth_events[1] = bad.event_id.clone();
    let leaning = b
        .rooms
        .build_at(template("org.example.leaning", None), &placement)
        .unwrap();
    let before = a.state(&room).await;
    for (pdu, status) in [
        (&bad, Status::Rejected),
        (&good, Status::Visible),
        (&leaning, Status::Rejected),
    ] {
        let raw: Box<serde_json::value::RawValue> = serde_json::from_slice(pdu.bytes()).unwrap();
        let known = a.rooms.reader().room(&room).await.unwrap().unwrap();
        let (_, outcome) = a.receiver.receive(&b.name, &known, &raw).await;
        outcome.unwrap();
        let stored = a.event(&room, &pdu.event_id).await.unwrap();
        assert_eq!(stored.status, status, "{}", pdu.kind);
    }
    assert_eq!(a.state(&room).await, before);
    let extremities = a.extremities(&room).await;
    assert!(extremities.contains(&good.event_id));
    assert!(!extremities.contains(&bad.event_id) && !extremities.contains(&leaning.event_id));
    a.is_sound().await;
}

/// A redaction of bob's, built by his server at a place of its choosing.
async fn redaction(
    b: &Server,
    bob: &Requester,
    room: &ruma::RoomId,
    target: &OwnedEventId,
    prev_events: Vec<OwnedEventId>,
) -> Box<serde_json::value::RawValue> {
    let relation = json!({ "m.relates_to": { "rel_type": "m.reference", "event_id": target } });
    let draft = Draft {
        sender: bob.user.clone(),
        kind: "m.room.redaction".into(),
        state_key: None,
        content: serde_json::from_value(relation).unwrap(),
        redacts: Some(target.clone()),
    };
    placed(b, room, draft, prev_events).await
}

/// An event of bob's, built by his server at a place of its choosing.
async fn placed(
    b: &Server,
    room: &ruma::RoomId,
    draft: Draft,
    prev_events: Vec<OwnedEventId>,
) -> Box<serde_json::value::RawValue> {
    let known = b.rooms.reader().room(room).await.unwrap().unwrap();
    let state = b.state(room).await;
    let of = |kind: &str, key: &str| state[&(kind.to_owned(), key.to_owned())].clone();
    let placement = Placement {
        room_id: Some(room.to_owned()),
        rules: known.rules.clone(),
        prev_events,
        auth_events: vec![
            of("m.room.create", ""),
            of("m.room.power_levels", ""),
            of("m.room.member", "@bob:b"),
        ],
        depth: 20,
        origin_server_ts: b.rooms.now(),
    };
    let pdu = b.rooms.build_at(draft, &placement).unwrap();
    serde_json::from_slice(pdu.bytes()).unwrap()
}

#[tokio::test]
async fn a_redaction_that_comes_before_its_target_empties_it_when_it_arrives() {
    let (_, a, b, alice, bob, room) = pair("11").await;
    let common: Vec<OwnedEventId> = a.extremities(&room).await.into_iter().collect();
    let said = b.say(&bob, &room, "a slip of the tongue").await;
    let known = a.rooms.reader().room(&room).await.unwrap().unwrap();
    let early = redaction(&b, &bob, &room, &said, common.clone()).await;
    let (id, outcome) = a.receiver.receive(&b.name, &known, &early).await;
    assert_eq!(outcome.unwrap(), Verdict::Held);
    let id = id.unwrap();
    assert_eq!(
        a.extremities(&room).await.into_iter().collect::<Vec<_>>(),
        common
    );
    assert_eq!(
        b.tell(&a, &room, std::slice::from_ref(&said)).await,
        [Ok(())]
    );
    assert_eq!(a.heard(&room).await, [""; 0]);
    let target = a.event(&room, &said).await.unwrap();
    let held = a.event(&room, &id).await.unwrap();
    assert_eq!(target.redacted_by, Some(held.sid));
    assert_eq!(held.status, Status::Visible);
    assert!(
        held.position > target.position,
        "shown once there is something to redact"
    );

    // Someone without the power redacts what is not theirs: it is part of the graph, and does nothing.
    let theirs = a.say(&alice, &room, "stays").await;
    assert_eq!(
        a.tell(&b, &room, std::slice::from_ref(&theirs)).await,
        [Ok(())]
    );
    let newest = b.extremities(&room).await.into_iter().collect();
    let void = redaction(&b, &bob, &room, &theirs, newest).await;
    let (_, outcome) = a.receiver.receive(&b.name, &known, &void).await;
    assert_eq!(outcome.unwrap(), Verdict::SoftFailed);
    assert_eq!(a.heard(&room).await, ["stays"]);
    a.is_sound().await;
}

#[tokio::test]
async fn a_redaction_of_long_ago_that_has_no_power_does_nothing_and_relates_to_nothing() {
    let (net, a, b, alice, bob, room) = pair("11").await;
    let c = net.server("c").await;
    let carol = c.user("carol").await;
    c.join(&carol, &room, &a).await.unwrap();
    let joined: Vec<OwnedEventId> = a.extremities(&room).await.into_iter().collect();
    assert_eq!(a.tell(&b, &room, &joined).await, [Ok(())]);
    let common: Vec<OwnedEventId> = a.extremities(&room).await.into_iter().collect();
    let stays = a.say(&alice, &room, "stays").await;
    let known = b.rooms.reader().room(&room).await.unwrap().unwrap();
    // His server does not know what he redacts, and lets it wait; what follows hides it in the past.
    let void = redaction(&b, &bob, &room, &stays, common).await;
    let (void, outcome) = b.receiver.receive(&b.name, &known, &void).await;
    assert_eq!(outcome.unwrap(), Verdict::Held);
    let void = void.unwrap();
    let after = Draft {
        sender: bob.user.clone(),
        kind: "m.room.message".into(),
        state_key: None,
        content: serde_json::from_value(json!({ "body": "after" })).unwrap(),
        redacts: None,
    };
    let after = placed(&b, &room, after, vec![void.clone()]).await;
    let (_, outcome) = b.receiver.receive(&b.name, &known, &after).await;
    assert_eq!(outcome.unwrap(), Verdict::Visible);
    for count in 0..300 {
        b.say(&bob, &room, &count.to_string()).await;
    }
    let last = b.say(&bob, &room, "last").await;
    for reader in [&a, &c] {
        let news = std::slice::from_ref(&last);
        assert_eq!(b.tell(reader, &room, news).await, [Ok(())]);
        assert!(reader.event(&room, &void).await.is_none());
        let known = reader.rooms.reader().room(&room).await.unwrap().unwrap();
        for _ in 0..4 {
            backfill::before(&reader.receiver, &known, RoomOrder(u64::MAX), 1_000)
                .await
                .unwrap();
        }
    }
    // To carol's server what it redacts comes only now.
    let late = std::slice::from_ref(&stays);
    assert!(c.event(&room, &void).await.is_some());
    assert_eq!(a.tell(&c, &room, late).await, [Ok(())]);
    assert!(c.heard(&room).await.contains(&"stays".to_owned()));
    c.is_sound().await;
    let void = a.event(&room, &void).await.unwrap();
    assert_eq!(void.status, Status::SoftFailed);
    assert_eq!(a.event(&room, &stays).await.unwrap().redacted_by, None);
    let heard = a.heard(&room).await;
    assert!(heard.contains(&"stays".to_owned()) && heard.contains(&"after".to_owned()));
    a.is_sound().await;
}

#[tokio::test]
async fn what_cannot_be_had_is_not_taken_until_it_can() {
    let (net, a, b, _, bob, room) = pair("12").await;
    let first = b.say(&bob, &room, "first").await;
    let second = b.say(&bob, &room, "second").await;
    net.cut(&a, &b);
    assert!(b.tell(&a, &room, std::slice::from_ref(&second)).await[0].is_err());
    assert!(a.event(&room, &second).await.is_none());
    assert_eq!(b.tell(&a, &room, &[first, second]).await, [Ok(()), Ok(())]);
    assert_eq!(a.heard(&room).await, ["first", "second"]);
    b.say(&bob, &room, "third").await;
    let fourth = b.say(&bob, &room, "fourth").await;
    assert!(b.tell(&a, &room, std::slice::from_ref(&fourth)).await[0].is_err());
    net.heal();
    // Who could not be reached is left alone for a while.
    a.clock.advance(3_600_000);
    assert_eq!(b.tell(&a, &room, &[fourth]).await, [Ok(())]);
    assert_eq!(a.heard(&room).await, ["first", "second", "third", "fourth"]);
}

#[tokio::test]
async fn what_was_missed_is_asked_for_and_comes_in_order() {
    let (net, a, b, alice, _, room) = pair("12").await;
    let mut said = Vec::new();
    for count in 0..45 {
        said.push(a.say(&alice, &room, &count.to_string()).await);
    }
    let last = said.last().unwrap().clone();
    assert_eq!(a.tell(&b, &room, &[last]).await, [Ok(())]);
    let expected: Vec<String> = (0..45).map(|count| count.to_string()).collect();
    assert_eq!(b.heard(&room).await, expected);
    assert_eq!(net.asked("state_ids"), 0, "no state is taken on trust");
    assert_eq!(a.extremities(&room).await, b.extremities(&room).await);
}

#[tokio::test]
async fn a_long_absence_leaves_a_gap_that_is_filled_when_someone_reads_back() {
    let (net, a, b, alice, bob, room) = pair("11").await;
    for count in 0..300 {
        a.say(&alice, &room, &count.to_string()).await;
    }
    let topic = json!({ "topic": "t" });
    a.send(&alice, &room, "m.room.topic", Some(""), topic).await;
    let last = a.say(&alice, &room, "last").await;
    assert_eq!(a.tell(&b, &room, &[last]).await, [Ok(())]);
    assert!(net.asked("state_ids") > 0);
    assert!(b.heard(&room).await.len() < 300);
    assert_eq!(a.state(&room).await, b.state(&room).await);
    let known = b.rooms.reader().room(&room).await.unwrap().unwrap();
    for _ in 0..4 {
        backfill::before(&b.receiver, &known, RoomOrder(u64::MAX), 1_000)
            .await
            .unwrap();
    }
    assert_eq!(a.heard(&room).await, b.heard(&room).await);
    let ids = |events: Vec<std::sync::Arc<crate::rooms::Event>>| -> Vec<OwnedEventId> {
        events
            .iter()
            .map(|event| event.pdu.event_id.clone())
            .collect()
    };
    assert_eq!(ids(a.timeline(&room).await), ids(b.timeline(&room).await));
    assert_eq!(b.extremities(&room).await, a.extremities(&room).await);
    b.say(&bob, &room, "read").await;
    b.is_sound().await;
}

/// What a server does in a random history.
async fn act(server: &Server, user: &Requester, room: &ruma::RoomId, what: u8, sign: u8) {
    let (kind, key, content) = match what {
        0 => (
            "m.room.topic",
            Some(String::new()),
            json!({ "topic": sign }),
        ),
        1 => ("m.room.name", Some(String::new()), json!({ "name": sign })),
        2 => (
            "m.room.member",
            Some("@eve:a".to_owned()),
            json!({ "membership": "ban" }),
        ),
        3 => (
            "m.room.member",
            Some("@eve:a".to_owned()),
            json!({ "membership": "leave" }),
        ),
        4 => (
            "m.room.power_levels",
            Some(String::new()),
            json!({ "users": { "@alice:a": 100, "@bob:b": sign, "@carol:c": 50 }, "state_default": 20 }),
        ),
        5 => (
            "m.room.join_rules",
            Some(String::new()),
            json!({ "join_rule": "invite" }),
        ),
        _ => ("m.room.message", None, json!({ "body": sign.to_string() })),
    };
    // What the rules forbid by now is no part of the history.
    let _ = server
        .try_send(user, room, kind, key.as_deref(), content)
        .await;
}

/// A history of three servers: what each does, whether it tells the next, and in which order everything arrives in the end.
async fn history(version: &str, steps: &[(usize, u8, u8, bool)], shuffle: u64) {
    let net = Net::default();
    let servers = [
        net.server("a").await,
        net.server("b").await,
        net.server("c").await,
    ];
    let users = [
        servers[0].user("alice").await,
        servers[1].user("bob").await,
        servers[2].user("carol").await,
    ];
    let room = servers[0].room(&users[0], version).await;
    let mut levels =
        json!({ "users": { "@alice:a": 100, "@bob:b": 50, "@carol:c": 50 }, "state_default": 20 });
    if version == "12" {
        // Who made the room is above all levels there.
        levels["users"].as_object_mut().unwrap().remove("@alice:a");
    }
    servers[0]
        .send(&users[0], &room, "m.room.power_levels", Some(""), levels)
        .await;
    for (server, user) in servers.iter().zip(&users).skip(1) {
        server.join(user, &room, &servers[0]).await.unwrap();
    }
    let eve = servers[0].user("eve").await;
    servers[0].join(&eve, &room, &servers[0]).await.unwrap();
    let known: Vec<OwnedEventId> = servers[0].extremities(&room).await.into_iter().collect();
    for server in &servers[1..] {
        assert_eq!(servers[0].tell(server, &room, &known).await, [Ok(())]);
    }
    for &(who, what, sign, told) in steps {
        act(&servers[who], &users[who], &room, what, sign).await;
        if told {
            let newest: Vec<OwnedEventId> =
                servers[who].extremities(&room).await.into_iter().collect();
            servers[who]
                .tell(&servers[(who + 1) % 3], &room, &newest)
                .await;
        }
    }
    // Everyone tells everyone what they have, in some order, until nobody has anything new.
    for round in 0..3_u64 {
        for (from, teller) in servers.iter().enumerate() {
            let mut events: Vec<OwnedEventId> = teller
                .timeline(&room)
                .await
                .iter()
                .map(|event| event.pdu.event_id.clone())
                .collect();
            let turn =
                usize::try_from((shuffle >> (round * 8 + 3 * u64::try_from(from).unwrap())) % 16)
                    .unwrap();
            let length = events.len();
            events.rotate_left(turn % length.max(1));
            if (shuffle >> round) & 1 == 1 {
                events.reverse();
            }
            for (to, listener) in servers.iter().enumerate() {
                if from != to {
                    teller.tell(listener, &room, &events).await;
                }
            }
        }
    }
    // Each joins its branches, those that others did not want to hear of included.
    let mut last = None;
    for who in [1, 2, 0] {
        let merge = servers[who].say(&users[who], &room, "merge").await;
        for listener in &servers {
            servers[who]
                .tell(listener, &room, std::slice::from_ref(&merge))
                .await;
        }
        last = Some(merge);
    }
    let state = servers[0].state(&room).await;
    for server in &servers {
        assert_eq!(server.state(&room).await, state, "{}", server.name);
        assert_eq!(
            server.extremities(&room).await,
            last.clone().into_iter().collect()
        );
        server.is_sound().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_the_order_of_arrival_all_servers_end_with_one_state(
        version in prop::sample::select(vec!["2", "6", "10", "11", "12"]),
        steps in prop::collection::vec((0_usize..3, 0_u8..8, 0_u8..100, any::<bool>()), 1..14),
        shuffle in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(history(version, &steps, shuffle));
    }
}

#[tokio::test]
async fn a_server_that_knows_less_tells_more_and_the_past_stays_the_past() {
    for version in ["2", "10", "12"] {
        let concurrent = [(0, 0, 0, false), (1, 5, 0, false), (0, 0, 0, false)];
        history(version, &concurrent, 7_724_908_191_825_581_183).await;
    }
}
