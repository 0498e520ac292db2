//! A server with a bridge, which takes what it is told, refuses it, or is gone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, RoomId, RoomVersionId, UserId,
    events::{TimelineEventType, receipt::ReceiptThread},
    presence::PresenceState,
    server_name, user_id,
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vatra_store::{Batch, Direction, MemoryEngine, Options, Range, Store};

use super::{AppserviceSender, Parts};
use crate::{
    appservice::{
        Services,
        line::{Asking, Line, LineError},
        registration::{Registration, Rule},
    },
    clock::ManualClock,
    event::{build::Draft, signer::Signer},
    followers::Status,
    ids::Ids,
    random::SystemRandom,
    rooms::{CacheSizes, Rooms, ephemeral::Ephemeral},
    schema::{self, ServiceRow},
    users::{NewAccount, Users},
};

/// What a service was sent: path and body.
type Sent = (String, Value);

/// The bridge: what it was sent, and how it answers (0: not at all).
#[derive(Clone)]
struct Bridge {
    sent: Arc<Mutex<Vec<Sent>>>,
    status: Arc<Mutex<u16>>,
}

#[async_trait]
impl Line for Bridge {
    async fn send(
        &self,
        request: Request<Bytes>,
        _: Duration,
    ) -> Result<Response<Bytes>, LineError> {
        let status = *self.status.lock().unwrap();
        assert_eq!(
            request.headers()["authorization"],
            "Bearer hs_token_of_irc_0"
        );
        let path = request.uri().path().to_owned();
        let body = serde_json::from_slice(request.body()).unwrap();
        self.sent.lock().unwrap().push((path, body));
        if status == 0 {
            return Err(LineError::Unreachable("gone".to_owned()));
        }
        let answer = Response::builder().status(status);
        Ok(answer.body(Bytes::from_static(b"{}")).unwrap())
    }
}

impl Bridge {
    fn answers(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    fn forget(&self) {
        self.sent.lock().unwrap().clear();
    }

    /// What the events say, in the order they came.
    fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        for (_, body) in self.sent() {
            for event in body["events"].as_array().unwrap() {
                let content = &event["content"];
                let text = content["body"].as_str().or(content["membership"].as_str());
                heard.push(text.or(event["type"].as_str()).unwrap().to_owned());
            }
        }
        heard
    }
}

struct World {
    rooms: Rooms,
    users: Users,
    ephemeral: Ephemeral,
    bridge: Bridge,
    clock: Arc<ManualClock>,
    signer: Arc<Signer>,
    store: Store,
    stop: CancellationToken,
    tasks: TaskTracker,
}

fn registered(change: impl FnOnce(&mut Registration)) -> Services {
    let rule = |regex: &str| Rule {
        regex: regex.to_owned(),
        exclusive: false,
    };
    let mut registration = Registration {
        id: "irc".to_owned(),
        url: Some("http://127.0.0.1:1".to_owned()),
        as_token: "as_token_of_irc_0".to_owned(),
        hs_token: "hs_token_of_irc_0".to_owned(),
        sender_localpart: "bot".to_owned(),
        users: vec![rule("@irc_.*")],
        aliases: vec![rule("#irc_.*")],
        ..Registration::default()
    };
    change(&mut registration);
    let service = registration.register(server_name!("here")).unwrap();
    Services::new(vec![service]).unwrap()
}

impl World {
    /// A server with the accounts alice, bot and `irc_a`, and a bridge that listens.
    async fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let store = Store::open(engine, Options::default(), schema::migrations());
        let name = server_name!("here").to_owned();
        let signer = Signer::from_der(name, &Signer::generate(), "1".to_owned()).unwrap();
        let bridge = Bridge {
            sent: Arc::default(),
            status: Arc::new(Mutex::new(200)),
        };
        let clock = ManualClock::new(1_700_000_000_000);
        let world = Self::on(store.await.unwrap(), Arc::new(signer), clock, bridge);
        for name in ["alice", "bot", "irc_a"] {
            let new = NewAccount {
                name: Some(name.to_owned()),
                ..NewAccount::default()
            };
            world.users.register(new).await.unwrap();
        }
        world
    }

    fn on(store: Store, signer: Arc<Signer>, clock: Arc<ManualClock>, bridge: Bridge) -> Self {
        let ids = Ids::new(store.clone(), 100);
        Self {
            ephemeral: Ephemeral::new(store.clone(), clock.clone(), true),
            users: Users::new(
                store.clone(),
                ids.clone(),
                clock.clone(),
                Arc::new(SystemRandom),
                server_name!("here").to_owned(),
            ),
            rooms: Rooms::new(
                store.clone(),
                ids,
                clock.clone(),
                signer.clone(),
                CacheSizes::default(),
            ),
            bridge,
            clock,
            signer,
            store,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    async fn start(&self, services: Services) {
        let sender = AppserviceSender::new(Parts {
            rooms: self.rooms.clone(),
            ephemeral: self.ephemeral.clone(),
            services: services.clone(),
            asking: Asking::new(Arc::new(self.bridge.clone())),
            clock: self.clock.clone(),
            random: Arc::new(SystemRandom),
        });
        sender.forget_others().await.unwrap();
        for service in services.all().iter().filter(|it| it.url.is_some()) {
            let status = Status::new("irc");
            let running = sender
                .clone()
                .run(service.clone(), status, self.stop.clone());
            self.tasks.spawn(running);
        }
        // It hears of what happens once it has begun.
        let id = "irc".to_owned();
        for _ in 0..400 {
            if services.all()[0].url.is_none()
                || self
                    .store
                    .view()
                    .contains(&schema::SERVICES, &id)
                    .await
                    .unwrap()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the service does not begin");
    }

    /// Stops it, and builds it anew on the same store.
    async fn stopped(self) -> Self {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        Self::on(self.store, self.signer, self.clock, self.bridge)
    }

    async fn room(&self) -> OwnedRoomId {
        let create = json!({ "room_version": "12" });
        let create = draft("@alice:here", "m.room.create", Some(""), create);
        let created = self.rooms.create(&RoomVersionId::V12, None, create).await;
        let (mut guard, _) = created.unwrap();
        let join = member("@alice:here", "@alice:here", "join");
        self.rooms.send(&mut guard, join, None).await.unwrap();
        let public = json!({ "join_rule": "public" });
        let public = draft("@alice:here", "m.room.join_rules", Some(""), public);
        let sent = self.rooms.send(&mut guard, public, None).await.unwrap();
        let id = guard.room.id.clone();
        drop(guard);
        sent.durable().await.unwrap();
        id
    }

    async fn send(&self, room: &RoomId, draft: Draft) {
        self.rooms.send_one(room, draft, None).await.unwrap();
    }

    async fn say(&self, room: &RoomId, text: &str) {
        let content = json!({ "msgtype": "m.text", "body": text });
        let draft = draft("@alice:here", "m.room.message", None, content);
        self.send(room, draft).await;
    }

    async fn heard(&self, expected: &[&str]) {
        let heard = || self.bridge.heard() == expected;
        self.until(heard, || format!("{:?}", self.bridge.heard()))
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

    /// The service's row, once it has failed so often.
    async fn failed(&self, failures: u32) -> ServiceRow {
        for _ in 0..400 {
            let view = self.store.view();
            let row = view
                .get(&schema::SERVICES, &"irc".to_owned())
                .await
                .unwrap();
            if let Some(row) = row.filter(|row| row.failures == failures) {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it has not failed {failures} times");
    }

    async fn members(&self) -> usize {
        let view = self.store.view();
        let rows = view.range(
            &schema::SERVICE_MEMBERS,
            Range::all(),
            Direction::Forward,
            100,
        );
        rows.await.unwrap().len()
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
    let content = json!({ "membership": membership });
    draft(sender, "m.room.member", Some(of), content)
}

#[tokio::test]
async fn a_service_hears_what_is_said_where_its_users_are_and_while_they_are() {
    let world = World::new().await;
    world.start(registered(|_| {})).await;
    let (room, other) = (world.room().await, world.room().await);
    world.say(&room, "before").await;
    world
        .send(&room, member("@alice:here", "@irc_a:here", "invite"))
        .await;
    world.say(&room, "invited only").await;
    world
        .send(&room, member("@irc_a:here", "@irc_a:here", "join"))
        .await;
    world
        .send(&room, member("@bot:here", "@bot:here", "join"))
        .await;
    world.say(&room, "one").await;
    world.say(&other, "elsewhere").await;
    world
        .send(&room, member("@bot:here", "@bot:here", "leave"))
        .await;
    world.say(&room, "two").await;
    world
        .send(&room, member("@alice:here", "@irc_a:here", "leave"))
        .await;
    world.say(&room, "after").await;
    // A user of another server of the same name is not the service's.
    world
        .send(&other, member("@irc_b:b", "@irc_b:b", "join"))
        .await;
    world
        .send(&room, member("@bot:here", "@bot:here", "join"))
        .await;
    let expected = [
        "invite", "join", "join", "one", "leave", "two", "leave", "join",
    ];
    world.heard(&expected).await;
    assert_eq!(world.members().await, 1);
    let (path, body) = world.bridge.sent().remove(0);
    assert!(path.starts_with("/_matrix/app/v1/transactions/"), "{path}");
    let event = &body["events"][0];
    assert_eq!(event["state_key"], "@irc_a:here");
    assert_eq!(event["room_id"], room.as_str());
    assert!(event.get("signatures").is_none() && event["unsigned"]["age"].is_number());
}

#[tokio::test]
async fn a_service_hears_of_rooms_in_its_namespaces() {
    let world = World::new().await;
    let (room, named) = (world.room().await, world.room().await);
    world
        .start(registered(|it| {
            it.users.clear();
            it.rooms = vec![Rule {
                regex: room.to_string(),
                exclusive: false,
            }];
        }))
        .await;
    let sid = world
        .rooms
        .reader()
        .room(&named)
        .await
        .unwrap()
        .unwrap()
        .sid;
    let mut batch = Batch::new();
    let alias = "#irc_x:here".to_owned();
    batch.put(&schema::ROOM_ALIASES, &(sid, alias), &());
    world.store.write(batch).await.unwrap();
    world.say(&room, "by its id").await;
    world.say(&named, "by its alias").await;
    world.heard(&["by its id", "by its alias"]).await;
}

#[tokio::test]
async fn what_is_not_taken_is_sent_again_unchanged_also_after_a_restart() {
    let world = World::new().await;
    world.start(registered(|_| {})).await;
    let room = world.room().await;
    world.bridge.answers(0);
    world
        .send(&room, member("@irc_a:here", "@irc_a:here", "join"))
        .await;
    world.heard(&["join"]).await;
    let first = world.bridge.sent().remove(0);
    world.failed(1).await;
    world.say(&room, "one").await;
    let world = world.stopped().await;
    world.say(&room, "two").await;
    // The wait holds over the restart.
    world.start(registered(|_| {})).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.heard(&["join"]).await;
    world.bridge.answers(200);
    world.clock.advance(2_000);
    world.heard(&["join", "join", "one", "two"]).await;
    let again = world.bridge.sent().remove(1);
    assert_eq!(
        (&first.0, &first.1["events"][0]["event_id"]),
        (&again.0, &again.1["events"][0]["event_id"])
    );
    let third = world.bridge.sent().remove(2);
    assert_ne!(third.0, first.0, "another transaction has another id");
    // Nothing is told twice that was taken.
    let world = world.stopped().await;
    world.bridge.forget();
    world.start(registered(|_| {})).await;
    world.say(&room, "three").await;
    world.heard(&["three"]).await;
}

#[tokio::test]
async fn the_wait_grows_while_a_service_refuses() {
    let world = World::new().await;
    world.start(registered(|_| {})).await;
    let room = world.room().await;
    world.bridge.answers(403);
    world
        .send(&room, member("@irc_a:here", "@irc_a:here", "join"))
        .await;
    for failures in 1..=4_u32 {
        let row = world.failed(failures).await;
        let now = 1_700_000_000_000 + 400_000 * u64::from(failures - 1);
        let wait = row.retry_at - now;
        let most = 1_000 << (failures - 1);
        assert!((most / 2..=most).contains(&wait), "{wait} after {failures}");
        assert!(row.error.unwrap().contains("403"));
        world.clock.advance(400_000);
    }
    let sent = world.bridge.sent();
    assert!(sent.len() >= 4 && sent.iter().all(|it| it.0 == sent[0].0));
}

#[tokio::test]
async fn an_old_service_is_told_at_its_old_path() {
    let world = World::new().await;
    world.start(registered(|_| {})).await;
    let room = world.room().await;
    world.bridge.answers(404);
    world
        .send(&room, member("@irc_a:here", "@irc_a:here", "join"))
        .await;
    world.heard(&["join", "join"]).await;
    let paths: Vec<_> = world.bridge.sent().into_iter().map(|it| it.0).collect();
    assert!(paths[0].starts_with("/_matrix/app/v1/transactions/"));
    assert_eq!(
        paths[0].strip_prefix("/_matrix/app/v1"),
        Some(paths[1].as_str())
    );
}

#[tokio::test]
async fn many_events_are_told_in_order_in_transactions_of_a_hundred() {
    let world = World::new().await;
    let room = world.room().await;
    world
        .send(&room, member("@irc_a:here", "@irc_a:here", "join"))
        .await;
    world.start(registered(|_| {})).await;
    world.bridge.answers(0);
    world.say(&room, "first").await;
    world.heard(&["first"]).await;
    world.bridge.forget();
    let texts: Vec<_> = (0..250).map(|number| number.to_string()).collect();
    for text in &texts {
        world.say(&room, text).await;
    }
    world.bridge.answers(200);
    world.clock.advance(2_000);
    let mut expected = vec!["first"];
    expected.extend(texts.iter().map(String::as_str));
    world.heard(&expected).await;
    let sizes: Vec<_> = world
        .bridge
        .sent()
        .iter()
        .map(|it| it.1["events"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [1, 100, 100, 50]);
}

#[tokio::test]
async fn a_new_service_hears_no_history_and_a_changed_one_is_asked_for_its_users_again() {
    let world = World::new().await;
    let room = world.room().await;
    world
        .send(&room, member("@irc_a:here", "@irc_a:here", "join"))
        .await;
    world.say(&room, "history").await;
    world.start(registered(|it| it.users.clear())).await;
    world.say(&room, "of no interest").await;
    let world = world.stopped().await;
    world.start(registered(|_| {})).await;
    while world.members().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.say(&room, "of interest").await;
    world
        .until(
            || {
                world
                    .bridge
                    .heard()
                    .last()
                    .is_some_and(|it| it == "of interest")
            },
            || format!("{:?}", world.bridge.heard()),
        )
        .await;
    assert!(!world.bridge.heard().contains(&"history".to_owned()));
    // One that is gone is forgotten, and begins anew.
    let world = world.stopped().await;
    world.start(registered(|it| it.url = None)).await;
    assert_eq!(world.members().await, 0);
    world.say(&room, "nobody listens").await;
    let world = world.stopped().await;
    world.bridge.forget();
    world.start(registered(|_| {})).await;
    while world.members().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.say(&room, "again").await;
    world.heard(&["again"]).await;
}

#[tokio::test]
async fn what_passes_is_told_to_services_that_want_to_hear_of_it() {
    let world = World::new().await;
    let (room, other) = (world.room().await, world.room().await);
    world
        .send(&room, member("@irc_a:here", "@irc_a:here", "join"))
        .await;
    world
        .start(registered(|it| it.receive_ephemeral = true))
        .await;
    world.say(&room, "one").await;
    world.heard(&["one"]).await;
    let reader = world.rooms.reader();
    let sid = async |id: &RoomId| reader.room(id).await.unwrap().unwrap().sid;
    let (alice, ghost) = (user_id!("@alice:here"), user_id!("@irc_a:here"));
    let typing = &world.ephemeral.typing;
    for room in [&other, &room] {
        let set = typing.set(sid(room).await, alice.to_owned(), Some(60_000));
        set.await.unwrap();
    }
    let event = world.bridge.sent().remove(0).1["events"][0]["event_id"].clone();
    let event: &ruma::EventId = event.as_str().unwrap().try_into().unwrap();
    for (user, kind) in [
        (alice, "m.read"),
        (alice, "m.read.private"),
        (ghost, "m.read.private"),
    ] {
        let user = reader.user_sid(user).await.unwrap().unwrap();
        let receipts = &world.ephemeral.receipts;
        let thread = ReceiptThread::Unthreaded;
        let set = receipts.set(&reader, sid(&room).await, user, kind, &thread, event);
        set.await.unwrap();
    }
    let user = reader.user_sid(alice).await.unwrap().unwrap();
    let presence = &world.ephemeral.presence;
    let set = presence.set(&reader, user, PresenceState::Online, None);
    set.await.unwrap();
    let told = || {
        let sent = world.bridge.sent().into_iter();
        let units = sent.filter_map(|(_, body)| body["ephemeral"].as_array().cloned());
        let mut units: Vec<_> = units.flatten().collect();
        units.sort_by_key(|unit| unit["type"].to_string() + &unit["content"].to_string());
        units
    };
    world
        .until(|| told().len() == 4, || format!("{:?}", told()))
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let told = told();
    let kinds: Vec<_> = told
        .iter()
        .map(|unit| unit["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["m.presence", "m.receipt", "m.receipt", "m.typing"]);
    assert_eq!(told[0]["sender"], "@alice:here");
    assert_eq!(told[0]["content"]["presence"], "online");
    let read = |unit: &Value| unit["content"][event.as_str()].clone();
    assert!(read(&told[1])["m.read"]["@alice:here"]["ts"].is_number());
    assert!(read(&told[2])["m.read.private"]["@irc_a:here"]["ts"].is_number());
    assert_eq!(told[3]["content"]["user_ids"], json!(["@alice:here"]));
    assert!(
        told[1..]
            .iter()
            .all(|unit| unit["room_id"] == room.as_str())
    );
}
