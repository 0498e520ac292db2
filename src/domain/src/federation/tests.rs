//! What other servers tell, and what of it is taken.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ruma::{
    CanonicalJsonObject, EventId, OwnedRoomId, RoomId, RoomVersionId, ServerName, UserId,
    events::TimelineEventType, presence::PresenceState, serde::Raw, server_name,
};
use serde_json::{Value, json, value::RawValue};
use vatra_store::{MemoryEngine, Options, Store};

use super::{
    edus::Edus,
    transaction::{Receive, Received, Transaction, TransactionError, Transactions},
};
use crate::{
    clock::ManualClock,
    event::{build::Draft, signer::Signer},
    ids::Ids,
    rooms::{CacheSizes, Rooms, ephemeral::Ephemeral},
    schema::{self, RoomSid},
};

/// Takes everything, and remembers it: (room, how many events).
#[derive(Default)]
struct Taker(Mutex<Vec<(String, usize)>>);

#[async_trait]
impl Receive for Taker {
    async fn receive(
        &self,
        _: &ServerName,
        room: &RoomId,
        events: Vec<Box<RawValue>>,
    ) -> Vec<Received> {
        self.0
            .lock()
            .unwrap()
            .push((room.to_string(), events.len()));
        let results = events.iter().enumerate().map(|(place, _)| {
            let id = EventId::parse(format!("${room}{place}").replace([':', '!'], "")).ok();
            (
                id,
                if place == 0 {
                    Ok(())
                } else {
                    Err("no".to_owned())
                },
            )
        });
        results.collect()
    }
}

struct World {
    rooms: Rooms,
    ephemeral: Ephemeral,
    transactions: Transactions,
    taker: Arc<Taker>,
    clock: Arc<ManualClock>,
    store: Store,
}

impl World {
    async fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let store = Store::open(engine, Options::default(), schema::migrations())
            .await
            .unwrap();
        Self::on(store)
    }

    fn on(store: Store) -> Self {
        let name = server_name!("here").to_owned();
        let signer = Signer::from_der(name, &Signer::generate(), "1".to_owned()).unwrap();
        let clock = ManualClock::new(1_700_000_000_000);
        let ids = Ids::new(store.clone(), 100);
        let rooms = Rooms::new(
            store.clone(),
            ids,
            clock.clone(),
            Arc::new(signer),
            CacheSizes::default(),
        );
        let ephemeral = Ephemeral::new(store.clone(), clock.clone(), true);
        let edus = Edus::new(rooms.clone(), ephemeral.clone(), Vec::new());
        let taker = Arc::new(Taker::default());
        let transactions = Transactions::new(store.clone(), clock.clone(), edus, taker.clone());
        Self {
            rooms,
            ephemeral,
            transactions,
            taker,
            clock,
            store,
        }
    }

    /// A room of alice with bob of server b in it.
    async fn room(&self) -> (OwnedRoomId, RoomSid) {
        let create = draft(
            "@alice:here",
            "m.room.create",
            "",
            json!({ "room_version": "12" }),
        );
        let (mut guard, _) = self
            .rooms
            .create(&RoomVersionId::V12, None, create)
            .await
            .unwrap();
        let drafts = [
            draft(
                "@alice:here",
                "m.room.member",
                "@alice:here",
                json!({ "membership": "join" }),
            ),
            draft(
                "@alice:here",
                "m.room.join_rules",
                "",
                json!({ "join_rule": "public" }),
            ),
            draft(
                "@bob:b",
                "m.room.member",
                "@bob:b",
                json!({ "membership": "join" }),
            ),
        ];
        for draft in drafts {
            self.rooms
                .send(&mut guard, draft, None)
                .await
                .unwrap()
                .durable()
                .await
                .unwrap();
        }
        (guard.room.id.clone(), guard.room.sid)
    }

    async fn edu(&self, origin: &str, edu: Value) {
        let transaction = transaction(origin, &edu.to_string(), vec![], vec![edu.clone()]);
        self.transactions.take(transaction).await.unwrap();
    }

    fn typing(&self, room: RoomSid) -> Vec<String> {
        let users = self.ephemeral.typing.users(room).into_iter();
        users.map(|user| user.to_string()).collect()
    }
}

fn draft(sender: &str, kind: &str, state_key: &str, content: Value) -> Draft {
    let content: CanonicalJsonObject = serde_json::from_value(content).unwrap();
    Draft {
        sender: UserId::parse(sender).unwrap(),
        kind: TimelineEventType::from(kind),
        state_key: Some(state_key.to_owned()),
        content,
        redacts: None,
    }
}

fn transaction(origin: &str, id: &str, events: Vec<Value>, edus: Vec<Value>) -> Transaction {
    let raw = |value: Value| RawValue::from_string(value.to_string()).unwrap();
    let id: String = id.chars().take(200).collect();
    Transaction {
        origin: ServerName::parse(origin).unwrap(),
        said_origin: ServerName::parse(origin).unwrap(),
        id,
        events: events.into_iter().map(raw).collect(),
        edus: edus
            .into_iter()
            .map(|edu| Raw::from_json(raw(edu)))
            .collect(),
    }
}

#[tokio::test]
async fn a_transaction_is_taken_once_and_answered_the_same_also_after_a_restart() {
    let world = World::new().await;
    let events = || {
        vec![
            json!({ "room_id": "!a:b" }),
            json!({ "room_id": "!c:b" }),
            json!({ "room_id": "!a:b" }),
        ]
    };
    let first = world
        .transactions
        .take(transaction("b", "1", events(), vec![]))
        .await
        .unwrap();
    assert_eq!(first.len(), 3);
    assert_eq!(first.values().filter(|result| result.is_err()).count(), 1);
    let mut taken = world.taker.0.lock().unwrap().clone();
    taken.sort();
    assert_eq!(taken, [("!a:b".to_owned(), 2), ("!c:b".to_owned(), 1)]);
    let again = world
        .transactions
        .take(transaction("b", "1", events(), vec![]))
        .await
        .unwrap();
    assert_eq!(again, first);
    let restarted = World::on(world.store.clone());
    restarted.clock.advance(24 * 3_600_000);
    let again = restarted
        .transactions
        .take(transaction("b", "1", vec![], vec![]))
        .await
        .unwrap();
    assert_eq!(again, first);
    assert_eq!(restarted.taker.0.lock().unwrap().len(), 0);
    // Another server's transaction of that id is another transaction.
    restarted
        .transactions
        .take(transaction("c", "1", events(), vec![]))
        .await
        .unwrap();
    assert_eq!(restarted.taker.0.lock().unwrap().len(), 2);
    // Nobody repeats what is days old: it is forgotten.
    restarted.clock.advance(3 * 24 * 3_600_000);
    restarted
        .transactions
        .take(transaction("c", "2", vec![], vec![]))
        .await
        .unwrap();
    let rows = restarted.store.view();
    let rows = rows.range(
        &schema::IN_TRANSACTIONS,
        vatra_store::Range::all(),
        vatra_store::Direction::Forward,
        9,
    );
    assert_eq!(rows.await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_same_transaction_side_by_side_is_taken_once() {
    let world = World::new().await;
    let events = || vec![json!({ "room_id": "!a:b" })];
    let many = (0..5).map(|_| {
        world
            .transactions
            .take(transaction("b", "1", events(), vec![]))
    });
    for outcome in futures::future::join_all(many).await {
        assert_eq!(outcome.unwrap().len(), 1);
    }
    assert_eq!(world.taker.0.lock().unwrap().len(), 1);
    let flood = (0..50).map(|n| {
        world
            .transactions
            .take(transaction("b", &format!("f{n}"), events(), vec![]))
    });
    let outcomes = futures::future::join_all(flood).await;
    let too_many = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(TransactionError::TooMany)));
    assert!(too_many.count() > 0);
}

#[tokio::test]
async fn what_is_too_large_or_from_someone_else_is_refused_whole() {
    let world = World::new().await;
    let mut lying = transaction("b", "1", vec![], vec![]);
    lying.said_origin = server_name!("c").to_owned();
    let event = json!({ "room_id": "!a:b" });
    for bad in [
        lying,
        transaction("b", "2", vec![event.clone(); 51], vec![]),
        transaction("b", "3", vec![], vec![json!({}); 101]),
    ] {
        let outcome = world.transactions.take(bad).await;
        assert!(
            matches!(outcome, Err(TransactionError::Refused(_))),
            "{outcome:?}"
        );
    }
    let odd = vec![json!([]), json!({ "room_id": 7 }), json!("x"), event];
    let edus = vec![
        json!(1),
        json!({ "edu_type": "m.typing" }),
        json!({ "edu_type": "x", "content": {} }),
    ];
    let results = world
        .transactions
        .take(transaction("b", "4", odd, edus))
        .await
        .unwrap();
    assert_eq!(
        results.len(),
        1,
        "what cannot be read is dropped, the rest is taken"
    );
}

#[tokio::test]
async fn typing_is_believed_of_the_servers_own_users_in_rooms_they_are_in() {
    let world = World::new().await;
    let (room, sid) = world.room().await;
    let typing = |user: &str, on: bool| json!({ "edu_type": "m.typing", "content": { "room_id": room, "user_id": user, "typing": on } });
    world.edu("c", typing("@bob:b", true)).await;
    world.edu("b", typing("@alice:here", true)).await;
    world.edu("b", typing("@stranger:b", true)).await;
    assert_eq!(world.typing(sid), [""; 0]);
    world.edu("b", typing("@bob:b", true)).await;
    assert_eq!(world.typing(sid), ["@bob:b"]);
    world.edu("b", typing("@bob:b", false)).await;
    assert_eq!(world.typing(sid), [""; 0]);
    // The room does not let the server in any longer.
    let acl = json!({ "allow": ["*"], "deny": ["B"] });
    let acl = draft("@alice:here", "m.room.server_acl", "", acl);
    world.rooms.send_one(&room, acl, None).await.unwrap();
    let mut late = typing("@bob:b", true);
    late["n"] = json!(2);
    world.edu("b", late).await;
    assert_eq!(world.typing(sid), [""; 0]);
}

#[tokio::test]
async fn receipts_are_believed_for_events_of_their_room_only() {
    let world = World::new().await;
    let (room, sid) = world.room().await;
    let (_, other) = world.room().await;
    let reader = world.rooms.reader();
    let create = async |room| {
        let event = reader
            .state_event(room, &"m.room.create".into(), "")
            .await
            .unwrap()
            .unwrap();
        event.pdu.event_id.to_string()
    };
    let (own, foreign) = (create(sid).await, create(other).await);
    let receipt = |user: &str, event: &str| {
        let data = json!({ user: { "data": { "ts": 5 }, "event_ids": [event] } });
        json!({ "edu_type": "m.receipt", "content": { &room: { "m.read": data } } })
    };
    let bob = reader
        .user_sid(&UserId::parse("@bob:b").unwrap())
        .await
        .unwrap()
        .unwrap();
    let stored = async || {
        let key = (sid, bob, "m.read".to_owned(), String::new());
        let row = world
            .store
            .view()
            .get(&schema::RECEIPTS, &key)
            .await
            .unwrap();
        row.map(|row| row.event_id)
    };
    world.edu("b", receipt("@bob:b", &foreign)).await;
    world.edu("c", receipt("@bob:b", &own)).await;
    assert_eq!(stored().await, None);
    world.edu("b", receipt("@bob:b", &own)).await;
    assert_eq!(stored().await, Some(own));
}

#[tokio::test]
async fn presence_is_believed_of_the_servers_own_users() {
    let world = World::new().await;
    world.room().await;
    let reader = world.rooms.reader();
    let presence = |user: &str, state: &str| {
        let update = json!({ "user_id": user, "presence": state, "last_active_ago": 5000, "status_msg": "hi" });
        json!({ "edu_type": "m.presence", "content": { "push": [update] } })
    };
    let of = async |user: &str| {
        let sid = reader
            .user_sid(&UserId::parse(user).unwrap())
            .await
            .unwrap();
        sid.and_then(|sid| world.ephemeral.presence.get(sid))
            .map(|presence| presence.state)
    };
    world.edu("b", presence("@alice:here", "offline")).await;
    world.edu("c", presence("@bob:b", "online")).await;
    world.edu("b", presence("@unknown:b", "online")).await;
    assert_eq!((of("@alice:here").await, of("@bob:b").await), (None, None));
    world.edu("b", presence("@bob:b", "unavailable")).await;
    assert_eq!(of("@bob:b").await, Some(PresenceState::Unavailable));
}
