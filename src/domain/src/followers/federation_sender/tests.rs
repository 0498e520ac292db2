//! A server with users of others in its rooms, and those others in memory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, RoomVersionId, ServerName, UserId,
    events::{StateEventType, TimelineEventType, receipt::ReceiptThread},
    presence::PresenceState,
    server_name,
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vatra_store::{Batch, Direction, MemoryEngine, Options, Range, Store};

use super::{FederationSender, Parts};
use crate::{
    clock::{Clock, ManualClock},
    event::{build::Draft, signer::Signer},
    followers::{Status, run},
    ids::Ids,
    random::SystemRandom,
    remote::{self, ByteStream, Remote, Transport, TransportError, transport::ready},
    rooms::{CacheSizes, Rooms, ephemeral::Ephemeral},
    schema,
};

/// What other servers have been sent: (server, transaction id, body).
type Sent = (String, String, Value);

/// Other servers: they take what they are sent, refuse it, or are gone.
#[derive(Clone, Default)]
struct Others {
    sent: Arc<Mutex<Vec<Sent>>>,
    status: Arc<Mutex<HashMap<String, u16>>>,
}

#[async_trait]
impl Transport for Others {
    async fn send(
        &self,
        destination: &ServerName,
        request: Request<Bytes>,
    ) -> Result<Response<ByteStream>, TransportError> {
        let status = self
            .status
            .lock()
            .unwrap()
            .get(destination.as_str())
            .copied();
        if status == Some(0) {
            return Err(TransportError::NoConnection("gone".to_owned()));
        }
        let txn = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let body = serde_json::from_slice(request.body()).unwrap();
        self.sent
            .lock()
            .unwrap()
            .push((destination.to_string(), txn, body));
        let response = Response::builder().status(status.unwrap_or(200));
        Ok(response
            .body(ready(Bytes::from_static(br#"{"pdus":{}}"#)))
            .unwrap())
    }

    async fn fetch(&self, _: &http::Uri) -> Result<Response<ByteStream>, TransportError> {
        Err(TransportError::NoConnection("no web".to_owned()))
    }
}

impl Others {
    fn set(&self, server: &str, status: u16) {
        self.status
            .lock()
            .unwrap()
            .insert(server.to_owned(), status);
    }

    fn to(&self, server: &str) -> Vec<Sent> {
        let sent = self.sent.lock().unwrap();
        sent.iter()
            .filter(|(name, ..)| name == server)
            .cloned()
            .collect()
    }

    /// The bodies of messages that a server got, in order, and the memberships.
    fn told(&self, server: &str) -> Vec<String> {
        let mut told = Vec::new();
        for (_, _, body) in self.to(server) {
            for pdu in body["pdus"].as_array().into_iter().flatten() {
                let content = &pdu["content"];
                let text = content["body"].as_str().or(content["membership"].as_str());
                told.push(text.unwrap_or("?").to_owned());
            }
        }
        told
    }

    fn edus(&self, server: &str) -> Vec<Value> {
        let bodies = self.to(server).into_iter();
        let edus = bodies.filter_map(|(_, _, body)| body["edus"].as_array().cloned());
        edus.flatten().collect()
    }
}

struct World {
    rooms: Rooms,
    remote: Remote,
    ephemeral: Ephemeral,
    others: Others,
    clock: Arc<ManualClock>,
    signer: Arc<Signer>,
    store: Store,
    stop: CancellationToken,
    tasks: TaskTracker,
    sender: Option<FederationSender>,
}

impl World {
    async fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let store = Store::open(engine, Options::default(), schema::migrations())
            .await
            .unwrap();
        let name = server_name!("here").to_owned();
        let signer = Signer::from_der(name, &Signer::generate(), "1".to_owned()).unwrap();
        let clock = ManualClock::new(1_700_000_000_000);
        Self::on(store, Arc::new(signer), clock, Others::default())
    }

    fn on(store: Store, signer: Arc<Signer>, clock: Arc<ManualClock>, others: Others) -> Self {
        let ids = Ids::new(store.clone(), 100);
        let rooms = Rooms::new(
            store.clone(),
            ids,
            clock.clone(),
            signer.clone(),
            CacheSizes::default(),
        );
        let remote = Remote::new(remote::Parts {
            store: store.clone(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom),
            signer: signer.clone(),
            transport: Arc::new(others.clone()),
        });
        Self {
            ephemeral: Ephemeral::new(store.clone(), clock.clone(), true),
            rooms,
            remote,
            others,
            clock,
            signer,
            store,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            sender: None,
        }
    }

    fn start(&mut self) {
        let sender = FederationSender::new(Parts {
            rooms: self.rooms.clone(),
            remote: self.remote.clone(),
            ephemeral: self.ephemeral.clone(),
            clock: self.clock.clone(),
            tasks: self.tasks.clone(),
            shutdown: self.stop.clone(),
        });
        let status = Status::new("federation_sender");
        let follower = Arc::new(sender.clone());
        self.tasks
            .spawn(run(follower, self.store.clone(), status, self.stop.clone()));
        self.tasks.spawn(sender.clone().run());
        self.sender = Some(sender);
    }

    /// Stops it, and begins again on the same store.
    async fn restarted(self) -> Self {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let mut again = Self::on(self.store, self.signer, self.clock, self.others);
        again.start();
        again
    }

    async fn room(&self) -> OwnedRoomId {
        let create = draft(
            "@alice:here",
            "m.room.create",
            Some(""),
            json!({ "room_version": "12" }),
        );
        let (mut guard, _) = self
            .rooms
            .create(&RoomVersionId::V12, None, create)
            .await
            .unwrap();
        let join = member("@alice:here", "@alice:here", "join");
        self.rooms.send(&mut guard, join, None).await.unwrap();
        let public = draft(
            "@alice:here",
            "m.room.join_rules",
            Some(""),
            json!({ "join_rule": "public" }),
        );
        let sent = self.rooms.send(&mut guard, public, None).await.unwrap();
        let id = guard.room.id.clone();
        drop(guard);
        sent.durable().await.unwrap();
        id
    }

    async fn send(&self, room: &OwnedRoomId, draft: Draft) {
        self.rooms.send_one(room, draft, None).await.unwrap();
    }

    async fn say(&self, room: &OwnedRoomId, text: &str) {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.send(room, draft("@alice:here", "m.room.message", None, content))
            .await;
    }

    async fn told(&self, server: &str, expected: &[&str]) {
        self.until(
            || self.others.told(server) == expected,
            || format!("{:?}", self.others.told(server)),
        )
        .await;
    }

    async fn until(&self, holds: impl Fn() -> bool, otherwise: impl Fn() -> String) {
        for _ in 0..400 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{}", otherwise());
    }

    /// Nothing more is sent for a moment.
    async fn quiet(&self) {
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

fn draft(sender: &str, kind: &str, state_key: Option<&str>, content: Value) -> Draft {
    let content: CanonicalJsonObject = serde_json::from_value(content).unwrap();
    Draft {
        sender: UserId::parse(sender).unwrap(),
        kind: TimelineEventType::from(kind),
        state_key: state_key.map(str::to_owned),
        content,
        redacts: None,
    }
}

fn member(sender: &str, of: &str, membership: &str) -> Draft {
    draft(
        sender,
        "m.room.member",
        Some(of),
        json!({ "membership": membership }),
    )
}

#[tokio::test]
async fn a_server_is_told_what_local_users_say_while_it_is_there_and_that_it_was_thrown_out() {
    let mut world = World::new().await;
    world.start();
    let room = world.room().await;
    world.say(&room, "before").await;
    world.send(&room, member("@bob:b", "@bob:b", "join")).await;
    world.say(&room, "one").await;
    let remote = json!({ "msgtype": "m.text", "body": "of bob" });
    world
        .send(&room, draft("@bob:b", "m.room.message", None, remote))
        .await;
    world.say(&room, "two").await;
    world
        .send(&room, member("@alice:here", "@bob:b", "leave"))
        .await;
    world.say(&room, "after").await;
    world.told("b", &["one", "two", "leave"]).await;
    world.quiet().await;
    world.told("b", &["one", "two", "leave"]).await;
    let pdu = &world.others.to("b")[0].2["pdus"][0];
    assert!(pdu["signatures"]["here"]["ed25519:1"].is_string() && pdu.get("unsigned").is_none());
    assert_eq!(world.others.to("b")[0].2["origin"], "here");
}

#[tokio::test]
async fn it_is_told_when_two_of_its_users_are_there_and_one_goes() {
    let mut world = World::new().await;
    world.start();
    let room = world.room().await;
    for user in ["@bob:b", "@bill:b", "@carol:c"] {
        world.send(&room, member(user, user, "join")).await;
    }
    world.send(&room, member("@bob:b", "@bob:b", "leave")).await;
    world.say(&room, "one").await;
    world
        .send(&room, member("@bill:b", "@bill:b", "leave"))
        .await;
    world.say(&room, "two").await;
    world.told("b", &["one"]).await;
    world.told("c", &["one", "two"]).await;
    // Whoever comes back gets what is said from then on.
    world.send(&room, member("@bob:b", "@bob:b", "join")).await;
    world.say(&room, "three").await;
    world.told("b", &["one", "three"]).await;
}

#[tokio::test]
async fn what_this_server_let_in_for_another_is_told_to_the_others_and_not_back() {
    let mut world = World::new().await;
    let room = world.room().await;
    for user in ["@carol:c", "@bob:b"] {
        world.send(&room, member(user, user, "join")).await;
    }
    let reader = world.rooms.reader();
    let sid = reader.room(&room).await.unwrap().unwrap().sid;
    let joined = reader
        .state_event(sid, &StateEventType::RoomMember, "@bob:b")
        .await
        .unwrap()
        .unwrap();
    let mut batch = Batch::new();
    batch.put(&schema::RELAYED, &joined.sid, &());
    world.store.write(batch).await.unwrap();
    world.start();
    world.say(&room, "one").await;
    world.told("c", &["join", "one"]).await;
    world.told("b", &["one"]).await;
}

#[tokio::test]
async fn an_invite_that_comes_to_nothing_is_told_to_the_server_of_the_invited() {
    let mut world = World::new().await;
    world.start();
    let room = world.room().await;
    world
        .send(&room, member("@alice:here", "@bob:b", "invite"))
        .await;
    world.say(&room, "secret").await;
    world
        .send(&room, member("@alice:here", "@bob:b", "leave"))
        .await;
    world.say(&room, "secret").await;
    world.told("b", &["leave"]).await;
    world.quiet().await;
    world.told("b", &["leave"]).await;
}

#[tokio::test]
async fn a_transaction_has_fifty_events_and_nothing_is_missed_or_sent_twice() {
    let mut world = World::new().await;
    let (one, two) = (world.room().await, world.room().await);
    for room in [&one, &two] {
        world.send(room, member("@bob:b", "@bob:b", "join")).await;
    }
    let mut said = Vec::new();
    for number in 0..130 {
        let room = if number % 3 == 0 { &one } else { &two };
        world.say(room, &format!("{number}")).await;
        said.push(format!("{number}"));
    }
    world.start();
    let expected: Vec<&str> = said.iter().map(String::as_str).collect();
    world.told("b", &expected).await;
    let sizes: Vec<_> = world
        .others
        .to("b")
        .iter()
        .map(|(_, _, body)| body["pdus"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [50, 50, 30]);
    world.say(&one, "more").await;
    world
        .until(
            || world.others.told("b").len() == 131,
            || "the last".to_owned(),
        )
        .await;
    let mut world = world.restarted().await;
    world.quiet().await;
    assert_eq!(
        world.others.told("b").len(),
        131,
        "a restart sends nothing again"
    );
    world.say(&two, "again").await;
    world
        .until(
            || world.others.told("b").len() == 132,
            || "after a restart".to_owned(),
        )
        .await;
    world.sender = None;
}

#[tokio::test]
async fn a_transaction_that_was_not_taken_comes_again_as_it_was_also_after_a_restart() {
    let mut world = World::new().await;
    world.start();
    let room = world.room().await;
    world.send(&room, member("@bob:b", "@bob:b", "join")).await;
    world.others.set("b", 502);
    world.say(&room, "one").await;
    world
        .until(
            || world.others.to("b").len() == 1,
            || "the first attempt".to_owned(),
        )
        .await;
    let first = world.others.to("b")[0].clone();
    // Said while it is away: it does not change what was fixed.
    world.say(&room, "two").await;
    world.quiet().await;
    let world = world.restarted().await;
    world.quiet().await;
    assert_eq!(
        world.others.to("b").len(),
        1,
        "the wait outlives the restart"
    );
    world.others.set("b", 200);
    world.clock.advance(2_000);
    world.told("b", &["one", "one", "two"]).await;
    let sent = world.others.to("b");
    assert_eq!(sent[1].1, first.1, "the same id");
    assert_eq!(sent[1].2, first.2, "the same content");
    assert_ne!(sent[2].1, first.1);
}

#[tokio::test]
async fn a_server_that_is_gone_holds_up_nobody_and_is_told_when_it_is_heard_from() {
    let mut world = World::new().await;
    world.start();
    let room = world.room().await;
    for user in ["@bob:b", "@carol:c"] {
        world.send(&room, member(user, user, "join")).await;
    }
    world.others.set("b", 0);
    for text in ["one", "two", "three"] {
        world.say(&room, text).await;
    }
    world.told("c", &["one", "two", "three"]).await;
    world.quiet().await;
    let view = world
        .sender
        .as_ref()
        .unwrap()
        .destination(server_name!("b"))
        .await
        .unwrap();
    assert_eq!(view.behind_in, 1);
    assert!(view.backoff.unwrap().reason.contains("gone"));
    world.others.set("b", 200);
    world.remote.heard_from(server_name!("b")).await;
    world.told("b", &["one", "two", "three"]).await;
    world.quiet().await;
    let view = world
        .sender
        .as_ref()
        .unwrap()
        .destination(server_name!("b"))
        .await
        .unwrap();
    assert_eq!((view.behind_in, view.backoff), (0, None));
}

#[tokio::test]
async fn a_transaction_that_is_refused_again_and_again_is_set_aside_in_sight() {
    let mut world = World::new().await;
    world.start();
    let room = world.room().await;
    world.send(&room, member("@bob:b", "@bob:b", "join")).await;
    world.others.set("b", 400);
    world.say(&room, "poison").await;
    for attempt in 1..=5 {
        world
            .until(
                || world.others.to("b").len() == attempt,
                || format!("attempt {attempt}"),
            )
            .await;
        world.quiet().await;
        if attempt == 5 {
            world.others.set("b", 200);
        }
        world.clock.advance(40_000);
    }
    world.say(&room, "next").await;
    world
        .told(
            "b",
            &["poison", "poison", "poison", "poison", "poison", "next"],
        )
        .await;
    let view = world
        .sender
        .as_ref()
        .unwrap()
        .destination(server_name!("b"))
        .await
        .unwrap();
    assert_eq!(view.row.set_aside, 1);
}

#[tokio::test]
async fn what_a_server_does_not_take_for_ours_waits_until_it_does() {
    let mut world = World::new().await;
    world.start();
    let room = world.room().await;
    world.send(&room, member("@bob:b", "@bob:b", "join")).await;
    world.others.set("b", 401);
    world.say(&room, "patience").await;
    for attempt in 1..=8 {
        world
            .until(
                || world.others.to("b").len() == attempt,
                || format!("attempt {attempt}"),
            )
            .await;
        world.quiet().await;
        if attempt == 8 {
            world.others.set("b", 200);
        }
        world.clock.advance(86_400_000);
    }
    world.told("b", &["patience"; 9]).await;
    let view = world
        .sender
        .as_ref()
        .unwrap()
        .destination(server_name!("b"))
        .await
        .unwrap();
    assert_eq!((view.row.set_aside, view.behind_in), (0, 0));
}

#[tokio::test]
async fn whoever_was_away_for_long_is_told_the_newest_of_each_room() {
    let mut world = World::new().await;
    world.start();
    let rooms = [world.room().await, world.room().await, world.room().await];
    for room in &rooms {
        world.send(room, member("@bob:b", "@bob:b", "join")).await;
        world.say(room, "hello").await;
    }
    world.told("b", &["hello", "hello", "hello"]).await;
    world.others.set("b", 0);
    for number in 0..40 {
        for (index, room) in rooms.iter().enumerate() {
            world.say(room, &format!("{index}.{number}")).await;
        }
    }
    world.quiet().await;
    // One transaction was fixed before it was known that the outage is long.
    let fixed = world
        .store
        .view()
        .get(&schema::OUT_TRANSACTIONS, &"b".to_owned())
        .await
        .unwrap()
        .unwrap();
    world.clock.advance(4 * 3_600_000);
    world.others.set("b", 200);
    world.remote.heard_from(server_name!("b")).await;
    world
        .until(
            || world.others.told("b").len() >= 3 + fixed.events.len() + 3,
            || format!("{:?}", world.others.told("b")),
        )
        .await;
    world.quiet().await;
    let told = world.others.told("b");
    let mut last: Vec<_> = told.iter().rev().take(3).cloned().collect();
    last.sort();
    assert_eq!(last, ["0.39", "1.39", "2.39"], "{told:?}");
    assert_eq!(told.len(), 3 + fixed.events.len() + 3);
    world.say(&rooms[1], "live").await;
    world
        .until(
            || world.others.told("b").last().unwrap() == "live",
            || "live again".to_owned(),
        )
        .await;
}

#[tokio::test]
async fn saying_something_writes_nothing_for_each_destination() {
    let mut world = World::new().await;
    world.start();
    let room = world.room().await;
    for number in 0..30 {
        let user = format!("@u:s{number}");
        world.send(&room, member(&user, &user, "join")).await;
        world.others.set(&format!("s{number}"), 0);
    }
    world.say(&room, "first").await;
    world.quiet().await;
    let rows = async || {
        let view = world.store.view();
        let outbox = view
            .range(&schema::OUTBOX, Range::all(), Direction::Forward, 999)
            .await
            .unwrap();
        let destinations = view.range(&schema::DESTINATIONS, Range::all(), Direction::Forward, 999);
        let fixed = view
            .range(
                &schema::OUT_TRANSACTIONS,
                Range::all(),
                Direction::Forward,
                999,
            )
            .await;
        (
            outbox.len(),
            destinations.await.unwrap().len() + fixed.unwrap().len(),
        )
    };
    let before = rows().await;
    for number in 0..20 {
        world.say(&room, &format!("{number}")).await;
    }
    world.quiet().await;
    let after = rows().await;
    assert_eq!(after, (before.0 + 20, before.1));
}

#[tokio::test]
async fn typing_receipts_and_presence_of_local_users_are_told() {
    let mut world = World::new().await;
    world.start();
    let room = world.room().await;
    world.send(&room, member("@bob:b", "@bob:b", "join")).await;
    world.say(&room, "one").await;
    world.told("b", &["one"]).await;
    let reader = world.rooms.reader();
    let known = reader.room(&room).await.unwrap().unwrap();
    let alice = UserId::parse("@alice:here").unwrap();
    let sid = reader.user_sid(&alice).await.unwrap().unwrap();
    let bob = UserId::parse("@bob:b").unwrap();

    world
        .ephemeral
        .typing
        .set(known.sid, alice.clone(), Some(30_000))
        .await
        .unwrap();
    // What others told us is not told on.
    world
        .ephemeral
        .typing
        .set(known.sid, bob, Some(30_000))
        .await
        .unwrap();
    let typing = |typing: bool| json!({ "edu_type": "m.typing", "content": { "room_id": room, "user_id": "@alice:here", "typing": typing } });
    world
        .until(
            || world.others.edus("b") == [typing(true)],
            || format!("{:?}", world.others.edus("b")),
        )
        .await;
    world
        .ephemeral
        .typing
        .set(known.sid, alice.clone(), None)
        .await
        .unwrap();
    world
        .until(
            || world.others.edus("b").last() == Some(&typing(false)),
            || "typing ends".to_owned(),
        )
        .await;

    let event = reader
        .state_event(known.sid, &"m.room.create".into(), "")
        .await
        .unwrap()
        .unwrap();
    let (id, receipts) = (event.pdu.event_id.clone(), &world.ephemeral.receipts);
    receipts
        .set(
            &reader,
            known.sid,
            sid,
            "m.read.private",
            &ReceiptThread::Unthreaded,
            &id,
        )
        .await
        .unwrap();
    receipts
        .set(&reader, known.sid, sid, "m.read", &ReceiptThread::Main, &id)
        .await
        .unwrap();
    let ts = world.clock.now();
    let receipt = json!({
        "edu_type": "m.receipt",
        "content": { &room: { "m.read": { "@alice:here": { "data": { "ts": ts, "thread_id": "main" }, "event_ids": [id] } } } },
    });
    world
        .until(
            || world.others.edus("b").last() == Some(&receipt),
            || format!("{:?}", world.others.edus("b")),
        )
        .await;

    let status = Some(Some("here".to_owned()));
    world
        .ephemeral
        .presence
        .set(&reader, sid, PresenceState::Online, status)
        .await
        .unwrap();
    let is_presence = |edu: &Value| {
        edu["edu_type"] == "m.presence"
            && edu["content"]["push"][0]["user_id"] == "@alice:here"
            && edu["content"]["push"][0]["status_msg"] == "here"
    };
    world
        .until(
            || world.others.edus("b").last().is_some_and(is_presence),
            || format!("{:?}", world.others.edus("b")),
        )
        .await;
    assert_eq!(world.others.edus("b").len(), 4);
}

#[tokio::test]
async fn a_unit_for_a_server_without_a_room_is_told_after_a_restart() {
    let mut world = World::new().await;
    world.start();
    world.others.set("z", 0);
    let unit = json!({ "edu_type": "m.direct_to_device", "content": { "n": 1 } });
    let text = unit.to_string();
    let mut batch = Batch::new();
    batch.put_at_position(&schema::EDU_OUTBOX, move |position| {
        (("z".to_owned(), position, 0), text)
    });
    batch.wake(schema::topic::elsewhere());
    world.store.write(batch).await.unwrap();
    world.quiet().await;
    world.others.set("z", 200);
    world.clock.advance(10_000);
    let world = world.restarted().await;
    world
        .until(
            || world.others.edus("z").len() == 1,
            || format!("{}", world.others.edus("z").len()),
        )
        .await;
    assert_eq!(world.others.edus("z"), [unit]);
}

#[tokio::test]
async fn units_that_must_arrive_do_over_restarts_and_outages_a_hundred_at_a_time() {
    let mut world = World::new().await;
    world.start();
    world.others.set("b", 0);
    let unit =
        |number: u64| json!({ "edu_type": "m.direct_to_device", "content": { "n": number } });
    let mut batch = Batch::new();
    for number in 0..130 {
        let text = unit(number).to_string();
        batch.put_at_position(&schema::EDU_OUTBOX, move |position| {
            (("b".to_owned(), position, number), text)
        });
    }
    batch.wake(schema::topic::elsewhere());
    world.store.write(batch).await.unwrap();
    world.quiet().await;
    world.others.set("b", 200);
    world.clock.advance(10_000);
    let world = world.restarted().await;
    world
        .until(
            || world.others.edus("b").len() >= 130,
            || format!("{}", world.others.edus("b").len()),
        )
        .await;
    let expected: Vec<Value> = (0..130).map(unit).collect();
    assert_eq!(world.others.edus("b"), expected);
    let sizes = world.others.to("b");
    let sizes: Vec<_> = sizes
        .iter()
        .map(|(_, _, body)| body["edus"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [100, 30]);
    world.quiet().await;
    let view = world.store.view();
    assert!(
        view.first(&schema::EDU_OUTBOX, Range::all(), Direction::Forward)
            .await
            .unwrap()
            .is_none()
    );
}
