//! Coming and going between servers.

use ruma::{OwnedEventId, UserId, events::StateEventType};
use serde_json::{Value, json};

use super::world::{Net, Server};
use crate::{
    event::build::{Countersigned, Draft, Placement},
    federation::membership::Kind,
    flows::{FlowError, invite::Invite, knock::knock, leave::leave},
    schema::Membership,
    users::Requester,
};

async fn membership(server: &Server, user: &UserId, room: &ruma::RoomId) -> Option<Membership> {
    let reader = server.rooms.reader();
    let room = reader.room(room).await.unwrap()?;
    let user = reader.user_sid(user).await.unwrap()?;
    let row = reader.membership(user, room.sid).await.unwrap()?;
    Some(row.membership)
}

async fn invite(server: &Server, by: &Requester, of: &UserId, room: &ruma::RoomId) {
    let invite = Invite {
        by,
        of,
        room,
        reason: None,
        is_direct: false,
    };
    invite.send(&server.users, &server.receiver).await.unwrap();
}

#[tokio::test]
async fn an_invite_is_shown_refused_taken_back_and_accepted() {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let body = json!({ "preset": "private_chat", "name": "Secret", "invite": [bob.user] });
    let room = a.room_with(&alice, body).await;
    assert_eq!(
        membership(&b, &bob.user, &room).await,
        Some(Membership::Invite)
    );
    let reader = b.rooms.reader();
    let known = reader.room(&room).await.unwrap().unwrap();
    let outside = reader.outside(bob.sid, known.sid).await.unwrap().unwrap();
    let shown: Vec<Value> = outside
        .state
        .iter()
        .map(|raw| serde_json::from_str(raw.get()).unwrap())
        .collect();
    let named = |kind: &str| shown.iter().find(|event| event["type"] == kind).cloned();
    assert_eq!(named("m.room.name").unwrap()["content"]["name"], "Secret");
    assert!(named("m.room.create").unwrap()["origin_server_ts"].is_u64());
    assert!(named("m.room.member").unwrap().get("signatures").is_none());

    leave(&b.users, &b.receiver, &bob, &room, None)
        .await
        .unwrap();
    assert_eq!(
        membership(&a, &bob.user, &room).await,
        Some(Membership::Leave)
    );
    assert_eq!(
        membership(&b, &bob.user, &room).await,
        Some(Membership::Leave)
    );

    invite(&a, &alice, &bob.user, &room).await;
    let content = json!({ "membership": "leave" });
    let kick = a
        .send(&alice, &room, "m.room.member", Some("@bob:b"), content)
        .await;
    assert_eq!(a.tell(&b, &room, &[kick]).await, [Ok(())]);
    assert_eq!(
        membership(&b, &bob.user, &room).await,
        Some(Membership::Leave)
    );

    invite(&a, &alice, &bob.user, &room).await;
    b.join(&bob, &room, &a).await.unwrap();
    assert_eq!(
        membership(&a, &bob.user, &room).await,
        Some(Membership::Join)
    );
    let reader = b.rooms.reader();
    assert!(reader.outside(bob.sid, known.sid).await.unwrap().is_none());
    assert_eq!(a.state(&room).await, b.state(&room).await);
    a.is_sound().await;
    b.is_sound().await;
}

#[tokio::test]
async fn only_who_invited_takes_it_back_for_a_server_outside() {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, other) = (a.user("alice").await, a.user("other").await);
    let bob = b.user("bob").await;
    let room = a
        .room_with(&alice, json!({ "preset": "private_chat" }))
        .await;
    invite(&a, &alice, &other.user, &room).await;
    a.join(&other, &room, &a).await.unwrap();
    invite(&a, &other, &bob.user, &room).await;
    let content = json!({ "membership": "leave" });
    let kick = a
        .send(&alice, &room, "m.room.member", Some("@bob:b"), content)
        .await;
    assert!(a.tell(&b, &room, &[kick]).await[0].is_err());
    assert_eq!(
        membership(&b, &bob.user, &room).await,
        Some(Membership::Invite)
    );
}

#[tokio::test]
async fn an_invite_is_refused_here_though_no_server_can_be_reached() {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let body = json!({ "preset": "private_chat", "invite": [bob.user] });
    let room = a.room_with(&alice, body).await;
    net.cut(&a, &b);
    leave(&b.users, &b.receiver, &bob, &room, Some("no"))
        .await
        .unwrap();
    assert_eq!(
        membership(&b, &bob.user, &room).await,
        Some(Membership::Leave)
    );
    assert_eq!(
        membership(&a, &bob.user, &room).await,
        Some(Membership::Invite)
    );
    b.is_sound().await;
}

#[tokio::test]
async fn a_knock_is_heard_in_the_room() {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let body = json!({
        "preset": "private_chat", "name": "Door",
        "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } }],
    });
    let room = a.room_with(&alice, body).await;
    b.join(&bob, &room, &a).await.unwrap_err();
    let via = || vec![a.name.clone()];
    knock(&b.users, &b.receiver, &bob, &room, via(), Some("please"))
        .await
        .unwrap();
    assert_eq!(
        membership(&a, &bob.user, &room).await,
        Some(Membership::Knock)
    );
    assert_eq!(
        membership(&b, &bob.user, &room).await,
        Some(Membership::Knock)
    );
    invite(&a, &alice, &bob.user, &room).await;
    assert_eq!(
        membership(&b, &bob.user, &room).await,
        Some(Membership::Invite)
    );
    b.join(&bob, &room, &a).await.unwrap();
    assert_eq!(a.state(&room).await, b.state(&room).await);
}

#[tokio::test]
async fn a_restricted_room_is_joined_with_the_signature_of_who_vouches() {
    let net = Net::default();
    let (a, b, c) = (
        net.server("a").await,
        net.server("b").await,
        net.server("c").await,
    );
    let (alice, bob, carol) = (
        a.user("alice").await,
        b.user("bob").await,
        c.user("carol").await,
    );
    let space = a.room(&alice, "10").await;
    let rule = json!({
        "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": space }],
    });
    let body = json!({
        "preset": "private_chat", "room_version": "10",
        "initial_state": [{ "type": "m.room.join_rules", "state_key": "", "content": rule }],
    });
    let room = a.room_with(&alice, body).await;
    let refused = b.join(&bob, &room, &a).await.unwrap_err();
    assert!(matches!(refused, FlowError::Remote(_)), "{refused}");
    b.join(&bob, &space, &a).await.unwrap();
    b.join(&bob, &room, &a).await.unwrap();
    let reader = a.rooms.reader();
    let known = reader.room(&room).await.unwrap().unwrap();
    let member = reader
        .state_event(known.sid, &StateEventType::RoomMember, "@bob:b")
        .await
        .unwrap()
        .unwrap();
    let content: Value = member.pdu.content_as().unwrap();
    assert_eq!(content["join_authorised_via_users_server"], "@alice:a");
    assert_eq!(a.state(&room).await, b.state(&room).await);
    // Bob's server is in both rooms but may not invite... it may: invites need no power here. So it vouches by itself.
    c.join(&carol, &space, &a).await.unwrap();
    let newest: Vec<OwnedEventId> = a.extremities(&space).await.into_iter().collect();
    a.tell(&b, &space, &newest).await;
    c.join(&carol, &room, &b).await.unwrap();
    let state = c.state(&room).await;
    let key = ("m.room.member".to_owned(), "@carol:c".to_owned());
    let event = c.event(&room, &state[&key]).await.unwrap();
    let content: Value = event.pdu.content_as().unwrap();
    assert_eq!(content["join_authorised_via_users_server"], "@bob:b");
}

#[tokio::test]
async fn who_left_with_their_server_comes_back_to_the_room_as_it_is_now() {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = a.room(&alice, "11").await;
    b.join(&bob, &room, &a).await.unwrap();
    leave(&b.users, &b.receiver, &bob, &room, None)
        .await
        .unwrap();
    let left: Vec<OwnedEventId> = b.extremities(&room).await.into_iter().collect();
    assert_eq!(b.tell(&a, &room, &left).await, [Ok(())]);
    let said = a.say(&alice, &room, "gone?").await;
    assert!(
        a.tell(&b, &room, &[said]).await[0].is_err(),
        "this server is not in the room"
    );
    let topic = json!({ "topic": "t" });
    a.send(&alice, &room, "m.room.topic", Some(""), topic).await;
    b.join(&bob, &room, &a).await.unwrap();
    assert_eq!(a.state(&room).await, b.state(&room).await);
    assert_eq!(a.extremities(&room).await, b.extremities(&room).await);
    let again = a.say(&alice, &room, "back").await;
    assert_eq!(a.tell(&b, &room, &[again]).await, [Ok(())]);
    b.is_sound().await;
}

#[tokio::test]
async fn a_join_is_taken_only_if_it_is_what_it_says() {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let (room, other) = (a.room(&alice, "10").await, a.room(&alice, "10").await);
    let state = a.state(&room).await;
    let known = a.rooms.reader().room(&room).await.unwrap().unwrap();
    let auth = ["m.room.create", "m.room.power_levels", "m.room.join_rules"]
        .map(|kind| state[&(kind.to_owned(), String::new())].clone());
    let placement = Placement {
        room_id: Some(room.clone()),
        rules: known.rules.clone(),
        prev_events: a.extremities(&room).await.into_iter().collect(),
        auth_events: auth.to_vec(),
        depth: 9,
        origin_server_ts: b.rooms.now(),
    };
    let build = |sender: &str, kind: &str, key: Option<&str>, content: Value| {
        let draft = Draft {
            sender: UserId::parse(sender).unwrap(),
            kind: kind.into(),
            state_key: key.map(str::to_owned),
            content: serde_json::from_value(content).unwrap(),
            redacts: None,
        };
        b.rooms.build_at(draft, &placement).unwrap()
    };
    let join = json!({ "membership": "join" });
    let good = build("@bob:b", "m.room.member", Some("@bob:b"), join.clone());
    let bad = [
        (
            "m.room.message",
            build("@bob:b", "m.room.message", None, join.clone()),
        ),
        (
            "no state",
            build("@bob:b", "m.room.member", None, join.clone()),
        ),
        (
            "another",
            build("@bob:b", "m.room.member", Some("@eve:b"), join.clone()),
        ),
        (
            "a leave",
            build(
                "@bob:b",
                "m.room.member",
                Some("@bob:b"),
                json!({ "membership": "leave" }),
            ),
        ),
        (
            "of a",
            build("@alice:a", "m.room.member", Some("@alice:a"), join),
        ),
    ];
    let raw = |pdu: &crate::event::pdu::Pdu| -> Box<serde_json::value::RawValue> {
        serde_json::from_slice(pdu.bytes()).unwrap()
    };
    for (what, pdu) in &bad {
        let outcome = a
            .federation
            .send_join(&b.name, &room, &pdu.event_id, &raw(pdu), false)
            .await;
        assert!(outcome.is_err(), "{what}");
    }
    let wrong_id = a
        .federation
        .send_join(&b.name, &room, &auth[0], &raw(&good), false)
        .await;
    assert!(wrong_id.is_err());
    let id = &good.event_id;
    assert!(
        a.federation
            .send_join(&b.name, &other, id, &raw(&good), false)
            .await
            .is_err()
    );
    let c = ruma::server_name!("c");
    assert!(
        a.federation
            .send_join(c, &room, id, &raw(&good), false)
            .await
            .is_err()
    );
    assert!(
        a.federation
            .make(c, Kind::Join, &room, &bob.user, None)
            .await
            .is_err()
    );
    assert_eq!(membership(&a, &bob.user, &room).await, None);
    a.federation
        .send_join(&b.name, &room, id, &raw(&good), false)
        .await
        .unwrap();
    assert_eq!(
        membership(&a, &bob.user, &room).await,
        Some(Membership::Join)
    );
    // This server signs nothing of another's but what it has a reason to.
    for reason in [Countersigned::Invite, Countersigned::Join] {
        assert!(a.rooms.countersign(&known, &good, reason).is_err());
        assert!(a.rooms.countersign(&known, &bad[0].1, reason).is_err());
    }
}

#[tokio::test]
async fn who_is_not_in_a_room_is_told_nothing_of_it() {
    let net = Net::default();
    let (a, b, c) = (
        net.server("a").await,
        net.server("b").await,
        net.server("c").await,
    );
    let (alice, bob, carol) = (
        a.user("alice").await,
        b.user("bob").await,
        c.user("carol").await,
    );
    let visibility = json!({ "history_visibility": "joined" });
    let body = json!({
        "preset": "public_chat", "room_version": "10",
        "initial_state": [{ "type": "m.room.history_visibility", "state_key": "", "content": visibility }],
    });
    let room = a.room_with(&alice, body).await;
    let said = a.say(&alice, &room, "before b came").await;
    b.join(&bob, &room, &a).await.unwrap();
    assert!(a.federation.event(&c.name, &said).await.is_err());
    assert!(a.federation.state(&c.name, &room, &said).await.is_err());
    assert!(
        a.federation
            .event_auth(&c.name, &room, &said)
            .await
            .is_err()
    );
    assert!(
        a.federation
            .backfill(&c.name, &room, std::slice::from_ref(&said), 10)
            .await
            .is_err()
    );
    let shown = a.federation.event(&b.name, &said).await.unwrap();
    assert!(!shown.get().contains("before b came"), "emptied: {shown}");
    c.join(&carol, &room, &a).await.unwrap();
    let acl = json!({ "allow": ["*"], "deny": ["C"] });
    a.send(&alice, &room, "m.room.server_acl", Some(""), acl)
        .await;
    assert!(a.federation.event(&c.name, &said).await.is_err());
    let lost = c.say(&carol, &room, "not let in").await;
    assert!(c.tell(&a, &room, &[lost]).await[0].is_err());
    let user = UserId::parse("@dora:c").unwrap();
    let made = a
        .federation
        .make(&c.name, Kind::Join, &room, &user, None)
        .await;
    assert!(made.is_err());
}

#[tokio::test]
async fn a_join_of_which_nobody_knows_how_it_ended_is_undone_at_the_next_start() {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = a.room(&alice, "11").await;
    net.lose(&["send_join", "make_leave"]);
    b.join(&bob, &room, &a).await.unwrap_err();
    assert_eq!(
        membership(&a, &bob.user, &room).await,
        Some(Membership::Join)
    );
    assert_eq!(membership(&b, &bob.user, &room).await, None);
    let rows = async || {
        let view = b.store.view();
        view.range(
            &crate::schema::PENDING_JOINS,
            vatra_store::Range::all(),
            vatra_store::Direction::Forward,
            10,
        )
        .await
        .unwrap()
        .len()
    };
    assert_eq!(rows().await, 1);
    net.heal();
    b.clock.advance(3_600_000);
    crate::flows::join::undo_pending(&b.receiver).await.unwrap();
    assert_eq!(
        membership(&a, &bob.user, &room).await,
        Some(Membership::Leave)
    );
    assert_eq!(rows().await, 0);
    b.join(&bob, &room, &a).await.unwrap();
    assert_eq!(a.state(&room).await, b.state(&room).await);
    assert_eq!(rows().await, 0);
}

#[tokio::test]
async fn a_server_that_names_none_is_joined_through_no_one() {
    let net = Net::default();
    let (a, b) = (net.server("a").await, net.server("b").await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = a.room(&alice, "12").await;
    let join = crate::flows::join::Join {
        users: &b.users,
        receiver: &b.receiver,
        by: &bob,
        reason: None,
        more: ruma::CanonicalJsonObject::new(),
    };
    let error = join.join(&room, Vec::new()).await.unwrap_err();
    assert!(matches!(error, FlowError::NoServers), "{error}");
}
