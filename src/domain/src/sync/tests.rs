//! What /sync costs in reads of the store, over the in-memory engine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{sync::Arc, time::Duration};

use ruma::{CanonicalJsonObject, OwnedRoomId, RoomVersionId, UserId, events::TimelineEventType};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use vatra_store::{MemoryEngine, Options, Store, testing::CountingEngine};

use super::*;
use crate::{
    clock::ManualClock,
    e2ee::E2ee,
    event::{build::Draft, signer::Signer},
    ids::Ids,
    random::SystemRandom,
    rooms::{CacheSizes, ephemeral::Ephemeral, unread::Unreads},
    schema::migrations,
    users::Users,
};

/// A server without HTTP, and the count of what it reads.
struct Server {
    engine: Arc<CountingEngine>,
    rooms: Rooms,
    syncs: Syncs,
}

impl Server {
    async fn start() -> Self {
        let engine = Arc::new(CountingEngine::new(Arc::new(MemoryEngine::new())));
        let store = Store::open(engine.clone(), Options::default(), migrations())
            .await
            .unwrap();
        let name = ruma::server_name!("test").to_owned();
        let signer = Signer::from_der(name.clone(), &Signer::generate(), "1".to_owned()).unwrap();
        let ids = Ids::new(store.clone(), 1_000);
        let clock = ManualClock::new(1_000);
        let rooms = Rooms::new(
            store.clone(),
            ids.clone(),
            clock.clone(),
            Arc::new(signer),
            CacheSizes::default(),
        );
        let random = Arc::new(SystemRandom);
        let providers = Providers {
            rooms: rooms.clone(),
            e2ee: E2ee::new(store.clone(), ids.clone()),
            users: Users::new(store.clone(), ids, clock.clone(), random, name),
            ephemeral: Ephemeral::new(store.clone(), clock, false),
            unreads: Unreads::new(100),
        };
        let (waiters, stop) = (Waiters::new(rooms.clone()), CancellationToken::new());
        tokio::spawn(waiters.clone().run(store.wakes(), stop.clone()));
        let syncs = Syncs::new(rooms.clone(), waiters, providers, 1 << 20, stop);
        Self {
            engine,
            rooms,
            syncs,
        }
    }

    async fn send(
        &self,
        room: &OwnedRoomId,
        sender: &str,
        kind: &str,
        key: Option<&str>,
        content: serde_json::Value,
    ) {
        let draft = draft(sender, kind, key, content);
        self.rooms.send_one(room, draft, None).await.unwrap();
    }

    async fn say(&self, room: &OwnedRoomId, body: &str) {
        let content = json!({ "msgtype": "m.text", "body": body });
        self.send(room, "@alice:test", "m.room.message", None, content)
            .await;
    }

    /// A public room of alice with some members.
    async fn room(&self, members: &[&str]) -> OwnedRoomId {
        let create = draft(
            "@alice:test",
            "m.room.create",
            Some(""),
            json!({ "room_version": "12" }),
        );
        let (guard, sent) = self
            .rooms
            .create(&RoomVersionId::V12, None, create)
            .await
            .unwrap();
        let room = guard.room.id.clone();
        drop(guard);
        sent.durable().await.unwrap();
        let join = json!({ "membership": "join" });
        self.send(
            &room,
            "@alice:test",
            "m.room.member",
            Some("@alice:test"),
            join.clone(),
        )
        .await;
        for (kind, content) in [
            ("m.room.power_levels", json!({})),
            ("m.room.join_rules", json!({ "join_rule": "public" })),
            (
                "m.room.history_visibility",
                json!({ "history_visibility": "shared" }),
            ),
        ] {
            self.send(&room, "@alice:test", kind, Some(""), content)
                .await;
        }
        for member in members {
            self.send(&room, member, "m.room.member", Some(member), join.clone())
                .await;
        }
        room
    }

    async fn viewer(&self, user: &str) -> Viewer {
        let user = UserId::parse(user).unwrap();
        let sid = self.rooms.ids().intern_user(&user).await.unwrap();
        Viewer {
            user,
            sid,
            device: None,
        }
    }

    /// One answer at once, and how many reads it took.
    async fn poll(&self, viewer: &Viewer, since: Option<&str>) -> (SyncResponse, u64) {
        let filter = json!({
            "presence": { "types": [] },
            "room": { "timeline": { "limit": 50 }, "state": { "lazy_load_members": true } },
        });
        let request = SyncRequest {
            since: since.map(|token| token.parse().unwrap()),
            timeout: Duration::ZERO,
            filter: serde_json::from_value(filter).unwrap(),
            ..SyncRequest::default()
        };
        self.engine.take_reads();
        let answer = self.syncs.sync(viewer, &request).await.unwrap();
        (answer, self.engine.take_reads())
    }
}

fn draft(sender: &str, kind: &str, state_key: Option<&str>, content: serde_json::Value) -> Draft {
    let content: CanonicalJsonObject = serde_json::from_value(content).unwrap();
    Draft {
        sender: UserId::parse(sender).unwrap(),
        kind: TimelineEventType::from(kind),
        state_key: state_key.map(str::to_owned),
        content,
        redacts: None,
    }
}

/// The bodies of the messages in an answer.
fn bodies(answer: &SyncResponse, room: &OwnedRoomId) -> Vec<String> {
    let joined = answer.rooms.join.get(room);
    let events = joined
        .into_iter()
        .flat_map(|joined| &joined.timeline.events);
    events
        .filter_map(|event| {
            let event: serde_json::Value = serde_json::from_str(event.get()).unwrap();
            Some(event.pointer("/content/body")?.as_str()?.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn an_idle_poll_reads_nothing_and_an_event_is_read_once_for_all_who_wait() {
    let server = Server::start().await;
    let room = server
        .room(&["@bob:test", "@carol:test", "@dan:test"])
        .await;
    let mut waiting = Vec::new();
    for user in ["@bob:test", "@carol:test", "@dan:test"] {
        let viewer = server.viewer(user).await;
        let (answer, _) = server.poll(&viewer, None).await;
        waiting.push((viewer, answer.next_batch));
    }
    for number in 1..=100_u64 {
        for (viewer, since) in &waiting {
            let (answer, reads) = server.poll(viewer, Some(since)).await;
            assert!(answer.is_empty());
            assert_eq!(reads, 0, "an idle poll reads nothing");
        }
        let body = format!("message {number}");
        server.say(&room, &body).await;
        let mut all = 0;
        for (viewer, since) in &mut waiting {
            let (answer, reads) = server.poll(viewer, Some(since)).await;
            assert_eq!(bodies(&answer, &room), [body.as_str()]);
            let unread = answer
                .rooms
                .join
                .get(&room)
                .and_then(|it| it.unread_notifications);
            assert_eq!(unread.map(|it| it.notification_count), Some(number));
            *since = answer.next_batch;
            all += reads;
        }
        // The first who looks reads the room's log; what anyone needs beside it is known from the poll before.
        let most = if number == 1 { 8 } else { 1 };
        assert!(
            all <= most,
            "message {number} cost {all} reads for three who wait"
        );
    }
}

#[tokio::test]
async fn what_is_kept_of_a_room_follows_state_receipts_and_redactions() {
    let server = Server::start().await;
    let room = server.room(&["@bob:test"]).await;
    let bob = server.viewer("@bob:test").await;
    let (first, _) = server.poll(&bob, None).await;
    server.say(&room, "one").await;
    let (second, _) = server.poll(&bob, Some(&first.next_batch)).await;
    assert_eq!(bodies(&second, &room), ["one"]);

    // A change of state shows as such, and the room's earlier moments stay what they were.
    let topic = json!({ "topic": "warm" });
    server
        .send(&room, "@alice:test", "m.room.topic", Some(""), topic)
        .await;
    server.say(&room, "two").await;
    let (third, _) = server.poll(&bob, Some(&second.next_batch)).await;
    let joined = third.rooms.join.get(&room).unwrap();
    assert_eq!(joined.timeline.events.len(), 2);
    let (again, _) = server.poll(&bob, Some(&first.next_batch)).await;
    assert_eq!(bodies(&again, &room), ["one", "two"]);

    // Who has read is told so, and has nothing unread.
    let reader = server.rooms.reader();
    let known = reader.room(&room).await.unwrap().unwrap();
    let newest = reader
        .log(
            known.sid,
            Position(0),
            reader.watermark(),
            vatra_store::Direction::Backward,
            1,
        )
        .await
        .unwrap();
    let (_, newest) = newest.first().unwrap();
    let event = reader.event_by_sid(newest.event).await.unwrap().unwrap();
    let receipts = server.syncs.inner.providers.ephemeral.receipts.clone();
    let thread = ruma::events::receipt::ReceiptThread::Unthreaded;
    receipts
        .set(
            &reader,
            known.sid,
            bob.sid,
            "m.read",
            &thread,
            &event.pdu.event_id,
        )
        .await
        .unwrap();
    let (fourth, _) = server.poll(&bob, Some(&third.next_batch)).await;
    let joined = fourth.rooms.join.get(&room).unwrap();
    assert_eq!(joined.ephemeral.events.len(), 1);
    assert_eq!(joined.unread_notifications.unwrap().notification_count, 0);

    // A redacted event is shown as it is now, to who asks for an older moment as well.
    let mut redaction = draft("@alice:test", "m.room.redaction", None, json!({}));
    redaction.redacts = Some(event.pdu.event_id.clone());
    server.rooms.send_one(&room, redaction, None).await.unwrap();
    let (redacted, _) = server.poll(&bob, Some(&second.next_batch)).await;
    assert_eq!(bodies(&redacted, &room), Vec::<String>::new());

    // An edit is bundled though the event was shown without one before.
    server.say(&room, "three").await;
    let (fifth, _) = server.poll(&bob, Some(&fourth.next_batch)).await;
    let shown = fifth
        .rooms
        .join
        .get(&room)
        .unwrap()
        .timeline
        .events
        .last()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_str(shown.get()).unwrap();
    let target = shown.get("event_id").unwrap();
    let edit = json!({
        "msgtype": "m.text", "body": "* 3", "m.new_content": { "msgtype": "m.text", "body": "3" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": target },
    });
    server
        .send(&room, "@alice:test", "m.room.message", None, edit)
        .await;
    let (edited, _) = server.poll(&bob, Some(&fourth.next_batch)).await;
    let events = &edited.rooms.join.get(&room).unwrap().timeline.events;
    let replaced = events.iter().any(|event| {
        let event: serde_json::Value = serde_json::from_str(event.get()).unwrap();
        event.get("event_id") == Some(target)
            && event.pointer("/unsigned/m.relations/m.replace").is_some()
    });
    assert!(replaced);
}
