//! What a message costs in a large room: figures for docs/performance.md, made by `make bench`.

use std::{sync::Arc, time::Duration};

use ruma::{
    CanonicalJsonObject, OwnedRoomId, RoomVersionId, ServerName, UserId, events::TimelineEventType,
};
use serde_json::{Value, json};
use vatra::{
    config::Config,
    server::{self, Running},
};
use vatra_domain::{
    clock::SystemClock,
    event::{build::Draft, signer::Signer},
    ids::Ids,
    rooms::{CacheSizes, Rooms},
    schema,
};
use vatra_store::{Options, Store, testing::CountingEngine};

/// How often the rooms take turns, and how many messages each gets in a turn.
const TURNS: usize = 6;
const MESSAGES: usize = 2_000;

pub(crate) fn draft(sender: &str, kind: &str, state_key: Option<&str>, content: Value) -> Draft {
    let content: CanonicalJsonObject = serde_json::from_value(content).unwrap();
    Draft {
        sender: UserId::parse(sender).unwrap(),
        kind: TimelineEventType::from(kind),
        state_key: state_key.map(str::to_owned),
        content,
        redacts: None,
    }
}

/// Registering thousands of accounts would take minutes of argon2: the members join through the domain.
pub(crate) async fn room(rooms: &Rooms, members: usize) -> OwnedRoomId {
    let create = draft("@owner:localhost", "m.room.create", Some(""), json!({}));
    let (mut guard, _) = rooms
        .create(&RoomVersionId::V12, None, create)
        .await
        .unwrap();
    let join = json!({ "membership": "join" });
    let joined = |user: &str| draft(user, "m.room.member", Some(user), join.clone());
    let mut last = rooms
        .send(&mut guard, joined("@owner:localhost"), None)
        .await;
    for (kind, content) in [
        ("m.room.power_levels", json!({})),
        ("m.room.join_rules", json!({ "join_rule": "public" })),
        (
            "m.room.history_visibility",
            json!({ "history_visibility": "shared" }),
        ),
    ] {
        let draft = draft("@owner:localhost", kind, Some(""), content);
        last = rooms.send(&mut guard, draft, None).await;
    }
    for number in 1..members {
        let user = format!("@member{number}:localhost");
        last = rooms.send(&mut guard, joined(&user), None).await;
    }
    last.unwrap().durable().await.unwrap();
    guard.room.id.clone()
}

/// Eight senders at once, until every message is acknowledged.
async fn talk(rooms: &Rooms, room: &OwnedRoomId) {
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let (rooms, room) = (rooms.clone(), room.clone());
            tokio::spawn(async move {
                for number in 0..MESSAGES / 8 {
                    let content = json!({ "msgtype": "m.text", "body": format!("message {number} of some length") });
                    let draft = draft("@owner:localhost", "m.room.message", None, content);
                    rooms.send_one(&room, draft, None).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
}

/// Waits until every follower has caught up with the log.
pub(crate) async fn caught_up(running: &Running) {
    let lags = || {
        let watermark = running.app.store.watermark();
        let followers = running.app.followers.iter();
        followers.map(move |follower| (follower.name.clone(), follower.lag(watermark)))
    };
    for _ in 0..3_000 {
        if lags().all(|(_, lag)| lag == 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "behind after half a minute: {:?}",
        lags().collect::<Vec<_>>()
    );
}

/// User and system time of this process, in steps of 10 ms.
pub(crate) fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).unwrap().parse::<u64>().unwrap();
    (ticks(11) + ticks(12)) * 10
}

pub(crate) fn config(folder: &tempfile::TempDir) -> Config {
    let mut config = Config::try_it();
    config.data_dir = folder.path().join("data");
    config.media_dir = folder.path().join("media");
    config.client.listen = "127.0.0.1:0".parse().unwrap();
    config.federation.listen = "127.0.0.1:0".parse().unwrap();
    config
}

async fn start(folder: &tempfile::TempDir) -> (Running, Arc<CountingEngine>) {
    let config = config(folder);
    let engine = server::open_engine(&config).await.unwrap();
    let engine = Arc::new(CountingEngine::new(engine));
    let running = server::start(config, engine.clone()).await.unwrap();
    (running, engine)
}

/// Rooms that nobody follows: what a message costs until it is acknowledged, and nothing else.
async fn unfollowed(folder: &tempfile::TempDir) -> (Store, Rooms) {
    let engine = server::open_engine(&config(folder)).await.unwrap();
    let store = Store::open(engine, Options::default(), schema::migrations());
    let store = store.await.unwrap();
    let name = ServerName::parse("localhost").unwrap();
    let signer = Signer::from_der(name, &Signer::generate(), "1".to_owned()).unwrap();
    let rooms = Rooms::new(
        store.clone(),
        Ids::new(store.clone(), 50_000),
        Arc::new(SystemClock),
        Arc::new(signer),
        CacheSizes::default(),
    );
    (store, rooms)
}

/// The cost of a message by the size of its room.
struct Cost {
    micros: u64,
    hundredths_of_rows: u64,
}

const SIZES: [usize; 2] = [5, 5_000];

/// Lets rooms of both sizes talk in turns. `settled` waits for whatever a turn has left to do, and tells how many rows were written.
async fn measured(rooms: &Rooms, settled: impl AsyncFn() -> u64) -> [Cost; 2] {
    let both = [room(rooms, SIZES[0]).await, room(rooms, SIZES[1]).await];
    for room in &both {
        talk(rooms, room).await;
    }
    settled().await;
    let (mut cpu, mut rows) = ([0_u64; 2], [0_u64; 2]);
    for _ in 0..TURNS {
        for ((room, cpu), rows) in both.iter().zip(&mut cpu).zip(&mut rows) {
            let before = cpu_ms();
            talk(rooms, room).await;
            *rows += settled().await;
            *cpu += cpu_ms() - before;
        }
    }
    let messages = u64::try_from(TURNS * MESSAGES).unwrap();
    [0, 1].map(|size| Cost {
        micros: cpu[size] * 1_000 / messages,
        hundredths_of_rows: rows[size] * 100 / messages,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a minute; make bench runs it"]
async fn a_message_costs_the_same_in_a_room_of_5_and_of_5000() {
    let folder = tempfile::tempdir().unwrap();
    let (store, rooms) = unfollowed(&folder).await;
    let accepted = measured(&rooms, async || 0).await;
    store.close().await;

    let folder = tempfile::tempdir().unwrap();
    let (running, engine) = start(&folder).await;
    let rooms = running.app.rooms.clone();
    let settled = async || {
        caught_up(&running).await;
        engine.take_writes()
    };
    let whole = measured(&rooms, settled).await;
    running.stop().await;
    for (place, size) in SIZES.iter().enumerate() {
        let rows = whole[place].hundredths_of_rows;
        println!(
            "room of {size}: {} us of CPU until a message is accepted; {} us and {}.{:02} rows until every follower has \
             caught up, nobody online",
            accepted[place].micros,
            whole[place].micros,
            rows / 100,
            rows % 100
        );
    }
    let [small, large] = accepted.map(|cost| cost.micros);
    assert!(large * 10 <= small * 13, "accepted: {small} and {large} us");
    let [small, large] = [&whole[0], &whole[1]].map(|cost| cost.micros);
    assert!(large <= small * 2, "whole: {small} and {large} us");
    let [small, large] = whole.map(|cost| cost.hundredths_of_rows);
    assert!(large <= small * 2, "rows: {small} and {large}");
}
