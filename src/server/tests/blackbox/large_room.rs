//! What a message costs in a large room: figures for docs/performance.md, made by `make bench`.

use std::{sync::Arc, time::Duration};

use ruma::{CanonicalJsonObject, OwnedRoomId, RoomVersionId, UserId, events::TimelineEventType};
use serde_json::{Value, json};
use vatra::{
    config::Config,
    server::{self, Running},
};
use vatra_domain::{event::build::Draft, rooms::Rooms};
use vatra_store::testing::CountingEngine;

/// How often the rooms take turns, and how many messages each gets in a turn.
const TURNS: usize = 6;
const MESSAGES: usize = 2_000;

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

/// Registering thousands of accounts would take minutes of argon2: the members join through the domain.
async fn room(rooms: &Rooms, members: usize) -> OwnedRoomId {
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

/// Eight senders at once, then time for whatever follows the log.
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
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// User and system time of this process, in steps of 10 ms.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).unwrap().parse::<u64>().unwrap();
    (ticks(11) + ticks(12)) * 10
}

async fn start() -> (Running, Arc<CountingEngine>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::try_it();
    config.data_dir = folder.path().join("data");
    config.media_dir = folder.path().join("media");
    config.client.listen = "127.0.0.1:0".parse().unwrap();
    config.federation.listen = "127.0.0.1:0".parse().unwrap();
    let engine = server::open_engine(&config).await.unwrap();
    let engine = Arc::new(CountingEngine::new(engine));
    let running = server::start(config, engine.clone()).await.unwrap();
    (running, engine, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of a minute; make bench runs it"]
async fn a_message_costs_the_same_in_a_room_of_5_and_of_5000() {
    let (running, engine, _folder) = start().await;
    let rooms = running.app.rooms.clone();
    let sizes = [5, 5_000];
    let both = [room(&rooms, 5).await, room(&rooms, 5_000).await];
    for room in &both {
        talk(&rooms, room).await;
    }
    let (mut cpu, mut rows) = ([0_u64; 2], [0_u64; 2]);
    for _ in 0..TURNS {
        for ((room, cpu), rows) in both.iter().zip(&mut cpu).zip(&mut rows) {
            engine.take_writes();
            let before = cpu_ms();
            talk(&rooms, room).await;
            *cpu += cpu_ms() - before;
            *rows += engine.take_writes();
        }
    }
    let messages = u64::try_from(TURNS * MESSAGES).unwrap();
    for ((size, cpu), rows) in sizes.iter().zip(cpu).zip(rows) {
        let (micros, hundredths) = (cpu * 1_000 / messages, rows * 100 / messages);
        println!(
            "room of {size}: {micros} us of CPU and {}.{:02} rows written a message, nobody online",
            hundredths / 100,
            hundredths % 100
        );
    }
    running.stop().await;
    let [small, large] = rows;
    assert!(large * 10 <= small * 11, "rows: {small} and {large}");
    let [small, large] = cpu;
    assert!(large <= small * 2, "CPU: {small} ms and {large} ms");
}
