//! Rooms over the in-memory engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, OwnedRoomId, RoomVersionId, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::json;
use vatra_store::{
    Batch, Direction, MemoryEngine, Options, Position, Store, testing::FaultyEngine,
};

use super::*;
use crate::{
    clock::ManualClock,
    event::build::Draft,
    random,
    schema::{Membership, RoomOrder, migrations},
};

pub(super) async fn rooms_on(store: Store) -> Rooms {
    let name = ruma::server_name!("test").to_owned();
    let signer = Signer::from_der(name, &Signer::generate(), "1".to_owned()).unwrap();
    let ids = Ids::new(store.clone(), 100);
    Rooms::new(
        store,
        ids,
        ManualClock::new(1_000),
        Arc::new(signer),
        CacheSizes::default(),
    )
}

pub(super) async fn rooms() -> Rooms {
    let store = Store::open(
        Arc::new(MemoryEngine::new()),
        Options::default(),
        migrations(),
    )
    .await
    .unwrap();
    rooms_on(store).await
}

fn object(value: serde_json::Value) -> CanonicalJsonObject {
    serde_json::from_value(value).unwrap()
}

pub(super) fn draft(
    sender: &str,
    kind: &str,
    state_key: Option<&str>,
    content: serde_json::Value,
) -> Draft {
    Draft {
        sender: UserId::parse(sender).unwrap(),
        kind: TimelineEventType::from(kind),
        state_key: state_key.map(str::to_owned),
        content: object(content),
        redacts: None,
    }
}

pub(super) async fn room_of_alice(rooms: &Rooms, version: &RoomVersionId) -> OwnedRoomId {
    let rules = version.rules().unwrap();
    let mut content = json!({ "room_version": version.as_str() });
    if !rules.authorization.use_room_create_sender {
        content["creator"] = json!("@alice:test");
    }
    let id = rules.event_format.require_room_create_room_id.then(|| {
        ruma::OwnedRoomId::try_from(format!("!{}:test", random::name(&random::SystemRandom, 18)))
            .unwrap()
    });
    let create = draft("@alice:test", "m.room.create", Some(""), content);
    let (mut guard, _) = rooms.create(version, id, create).await.unwrap();
    let join = draft(
        "@alice:test",
        "m.room.member",
        Some("@alice:test"),
        json!({ "membership": "join" }),
    );
    rooms.send(&mut guard, join, None).await.unwrap();
    let users = if rules.authorization.explicitly_privilege_room_creators {
        json!({})
    } else {
        json!({ "@alice:test": 100 })
    };
    let levels = draft(
        "@alice:test",
        "m.room.power_levels",
        Some(""),
        json!({ "users": users }),
    );
    rooms.send(&mut guard, levels, None).await.unwrap();
    let rules = draft(
        "@alice:test",
        "m.room.join_rules",
        Some(""),
        json!({ "join_rule": "public" }),
    );
    rooms
        .send(&mut guard, rules, None)
        .await
        .unwrap()
        .durable()
        .await
        .unwrap();
    guard.room.id.clone()
}

pub(super) fn say(sender: &str, body: &str) -> Draft {
    draft(
        sender,
        "m.room.message",
        None,
        json!({ "msgtype": "m.text", "body": body }),
    )
}

pub(super) fn member(user: &str, membership: &str) -> Draft {
    draft(
        user,
        "m.room.member",
        Some(user),
        json!({ "membership": membership }),
    )
}

#[tokio::test]
async fn rooms_of_every_version_live() {
    let rooms = rooms().await;
    for version in 1..=12 {
        let version = RoomVersionId::try_from(version.to_string()).unwrap();
        let room = room_of_alice(&rooms, &version).await;
        rooms
            .send_one(&room, member("@bob:test", "join"), None)
            .await
            .unwrap();
        let said = rooms
            .send_one(&room, say("@bob:test", "hello"), None)
            .await
            .unwrap();
        let reader = rooms.reader();
        let known = reader.room(&room).await.unwrap().unwrap();
        let event = reader.event(known.sid, &said).await.unwrap().unwrap();
        assert_eq!(event.pdu.sender.as_str(), "@bob:test", "version {version}");
        assert_eq!(
            reader
                .member_count(known.sid, Membership::Join)
                .await
                .unwrap(),
            2
        );
        let refused = rooms
            .send_one(&room, say("@carol:test", "let me in"), None)
            .await;
        assert!(
            matches!(refused, Err(RoomError::Forbidden(_))),
            "version {version}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn the_log_the_timeline_and_the_state_agree() {
    let rooms = rooms().await;
    let room = room_of_alice(&rooms, &RoomVersionId::V12).await;
    for number in 0..20 {
        rooms
            .send_one(&room, say("@alice:test", &number.to_string()), None)
            .await
            .unwrap();
    }
    let reader = rooms.reader();
    let sid = reader.room(&room).await.unwrap().unwrap().sid;
    let log = reader
        .log(
            sid,
            Position(0),
            reader.watermark(),
            Direction::Forward,
            100,
        )
        .await
        .unwrap();
    let unbounded = std::ops::Bound::Unbounded::<RoomOrder>;
    let timeline = reader
        .timeline(sid, unbounded, unbounded, Direction::Forward, 100)
        .await
        .unwrap();
    assert_eq!(log.len(), 24);
    assert_eq!(
        log.iter().map(|(_, row)| row.event).collect::<Vec<_>>(),
        timeline.iter().map(|event| event.sid).collect::<Vec<_>>()
    );
    let root = reader.root_at(sid, reader.watermark()).await.unwrap();
    let mut by_tree: Vec<_> = reader
        .state_at(root)
        .await
        .unwrap()
        .into_iter()
        .map(|(_, event)| event)
        .collect();
    let mut by_index: Vec<_> = reader
        .current_state(sid)
        .await
        .unwrap()
        .into_iter()
        .map(|event| event.sid)
        .collect();
    by_tree.sort();
    by_index.sort();
    assert_eq!(by_tree, by_index);
    assert_eq!(by_tree.len(), 4);
}

#[tokio::test]
async fn a_repeated_transaction_returns_the_first_event() {
    let rooms = rooms().await;
    let room = room_of_alice(&rooms, &RoomVersionId::V11).await;
    let user = rooms
        .ids()
        .intern_user(ruma::user_id!("@alice:test"))
        .await
        .unwrap();
    let txn = TxnKey {
        user,
        device: "D".to_owned(),
        endpoint: "send".to_owned(),
        id: "1".to_owned(),
    };
    let calls =
        (0..8).map(|_| rooms.send_one(&room, say("@alice:test", "once"), Some(txn.clone())));
    let ids: std::collections::HashSet<_> = futures::future::join_all(calls)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_redaction_empties_its_target_and_keeps_its_id() {
    let rooms = rooms().await;
    for version in [RoomVersionId::V1, RoomVersionId::V10, RoomVersionId::V11] {
        let room = room_of_alice(&rooms, &version).await;
        let said = rooms
            .send_one(&room, say("@alice:test", "secret"), None)
            .await
            .unwrap();
        let mut redaction = draft("@alice:test", "m.room.redaction", None, json!({}));
        redaction.redacts = Some(said.clone());
        rooms.send_one(&room, redaction, None).await.unwrap();
        let reader = rooms.reader();
        let sid = reader.room(&room).await.unwrap().unwrap().sid;
        let event = reader.event(sid, &said).await.unwrap().unwrap();
        assert_eq!(event.pdu.content().get(), "{}");
        assert!(event.redacted_by.is_some());
        assert_eq!(event.pdu.event_id, said);
    }
}

#[tokio::test]
async fn a_failed_batch_poisons_the_head_and_the_next_send_builds_on_the_store() {
    let engine = Arc::new(FaultyEngine::new(Arc::new(MemoryEngine::new())));
    let options = Options {
        reopen_after: std::time::Duration::from_millis(1),
        ..Options::default()
    };
    let store = Store::open(engine.clone(), options, migrations())
        .await
        .unwrap();
    let rooms = rooms_on(store).await;
    let room = room_of_alice(&rooms, &RoomVersionId::V12).await;
    engine
        .fail_commits
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let lost = rooms
        .send_one(&room, say("@alice:test", "lost"), None)
        .await;
    assert!(matches!(lost, Err(RoomError::Commit(_))), "{lost:?}");
    engine
        .fail_commits
        .store(false, std::sync::atomic::Ordering::SeqCst);
    let kept = loop {
        match rooms
            .send_one(&room, say("@alice:test", "kept"), None)
            .await
        {
            Ok(id) => break id,
            Err(RoomError::Commit(_)) => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await
            }
            Err(other) => panic!("{other:?}"),
        }
    };
    let reader = rooms.reader();
    let sid = reader.room(&room).await.unwrap().unwrap().sid;
    let event = reader.event(sid, &kept).await.unwrap().unwrap();
    let levels = reader
        .state_event(sid, &StateEventType::RoomJoinRules, "")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(event.pdu.prev_events, vec![levels.pdu.event_id.clone()]);
}

#[tokio::test]
async fn a_message_writes_as_much_in_a_large_room_as_in_a_small_one() {
    let rooms = rooms().await;
    let mut written = Vec::new();
    for members in [3, 400] {
        let room = room_of_alice(&rooms, &RoomVersionId::V12).await;
        for number in 0..members {
            let user = format!("@user{number}:test");
            rooms
                .send_one(&room, member(&user, "join"), None)
                .await
                .unwrap();
        }
        let before = rooms.store().stats().engine.rows;
        for number in 0..10 {
            rooms
                .send_one(&room, say("@alice:test", &number.to_string()), None)
                .await
                .unwrap();
        }
        written.push(rooms.store().stats().engine.rows - before);
    }
    assert!(written[0] > 0, "rows are counted");
    assert_eq!(written[0], written[1]);
}

#[tokio::test]
async fn a_new_reader_over_the_same_store_sees_the_same_rooms() {
    let engine = Arc::new(MemoryEngine::new());
    let store = Store::open(engine.clone(), Options::default(), migrations())
        .await
        .unwrap();
    let rooms = rooms_on(store.clone()).await;
    let room = room_of_alice(&rooms, &RoomVersionId::V12).await;
    let said = rooms
        .send_one(&room, say("@alice:test", "kept"), None)
        .await
        .unwrap();
    drop(rooms);
    store.close().await;

    let store = Store::open(engine, Options::default(), migrations())
        .await
        .unwrap();
    let rooms = rooms_on(store).await;
    let next = rooms
        .send_one(&room, say("@alice:test", "and on"), None)
        .await
        .unwrap();
    let reader = rooms.reader();
    let sid = reader.room(&room).await.unwrap().unwrap().sid;
    let event = reader.event(sid, &next).await.unwrap().unwrap();
    assert_eq!(event.pdu.prev_events, vec![said]);
}

#[tokio::test]
async fn an_older_store_is_given_the_times_of_its_events_and_the_replies_of_its_threads() {
    let rooms = rooms().await;
    let id = room_of_alice(&rooms, &RoomVersionId::V11).await;
    let root = rooms
        .send_one(&id, say("@alice:test", "root"), None)
        .await
        .unwrap();
    let mut reply = say("@alice:test", "reply");
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let relation = serde_json::from_value(relation).unwrap();
    reply.content.insert("m.relates_to".to_owned(), relation);
    rooms.send_one(&id, reply, None).await.unwrap();

    let all = vatra_store::Range::all;
    let read = async || {
        let view = rooms.store().view();
        let times = view.range(&schema::EVENT_TIMES, all(), Direction::Forward, 100);
        let replies = view.range(&schema::THREAD_REPLIES, all(), Direction::Forward, 100);
        (times.await.unwrap(), replies.await.unwrap())
    };
    let (times, replies) = read().await;
    assert_eq!((times.len(), replies.len()), (6, 1));
    let mut batch = Batch::new();
    for (key, _) in &times {
        batch.delete(&schema::EVENT_TIMES, key);
    }
    for (key, _) in &replies {
        batch.delete(&schema::THREAD_REPLIES, key);
    }
    rooms.store().write(batch).await.unwrap();
    assert_eq!(read().await, (Vec::new(), Vec::new()));
    let migration = migrations().iter().find(|it| it.version == 3).unwrap();
    (migration.run)(rooms.store().clone()).await.unwrap();
    assert_eq!(read().await, (times, replies));
}

#[tokio::test]
async fn what_became_visible_is_found_by_whoever_holds_an_older_view() {
    let rooms = rooms().await;
    let room = room_of_alice(&rooms, &RoomVersionId::V11).await;
    let old = rooms.inner.store.view();
    let mut guard = rooms.lock(&room).await.unwrap();
    let topic = draft(
        "@alice:test",
        "m.room.topic",
        Some(""),
        json!({ "topic": "new" }),
    );
    let sent = rooms.send(&mut guard, topic, None).await.unwrap();
    let event = sent.event.clone().unwrap();
    let root = guard.head().unwrap().row.root;
    drop(guard);
    sent.durable().await.unwrap();
    let ids = [event.pdu.event_id.clone()];
    // By what is remembered, and where nothing is.
    let forgetful = Events::new(rooms.inner.store.clone(), 0);
    for events in [&rooms.inner.events, &forgetful] {
        assert_eq!(events.sids(&old, &ids).await.unwrap(), [Some(event.sid)]);
        let found = events.by_ids(&old, &ids).await.unwrap();
        assert_eq!(found[0].as_ref().unwrap().sid, event.sid);
        assert!(events.get(&old, event.sid).await.unwrap().is_some());
    }
    let trees = state::StateTrees::new(rooms.inner.store.clone(), 0);
    let key = rooms.inner.ids.state_key("m.room.topic", "").await.unwrap();
    let set = trees.get(&old, root, key.unwrap()).await.unwrap();
    assert_eq!(set, Some(event.sid));
}
