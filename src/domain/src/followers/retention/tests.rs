//! What is emptied, what stays, and what comes late.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, UInt};
use serde_json::{Value, json};

use super::{
    super::push_sender::tests::world::{World, draft},
    *,
};
use crate::{clock::Clock, users::Requester};

const DAY: Millis = 86_400_000;

/// A server that empties old messages when a test says so.
struct Bench {
    world: World,
    retention: Retention,
    alice: Requester,
    room: OwnedRoomId,
}

impl Bench {
    async fn new(policy: Policy) -> Self {
        let world = World::new().await;
        let retention = Retention::new(Parts {
            rooms: world.rooms.clone(),
            clock: world.clock.clone(),
            policy,
            interval: Duration::from_secs(1),
        });
        let alice = world.user("alice").await;
        let room = world.room(&alice).await;
        Self {
            world,
            retention,
            alice,
            room,
        }
    }

    async fn keeps_for(&self, content: Value) {
        let kept = draft("@alice:here", "m.room.retention", Some(""), content);
        self.world.send(&self.room, kept).await;
    }

    async fn say(&self, text: &str) -> OwnedEventId {
        self.world.say(&self.room, &self.alice, text).await
    }

    async fn round(&self) {
        let stop = CancellationToken::new();
        self.retention.round(&stop).await.unwrap();
    }

    async fn event(&self, id: &OwnedEventId) -> Arc<Event> {
        let reader = self.world.rooms.reader();
        reader.event_anywhere(id).await.unwrap().unwrap()
    }

    /// Whether there is anything left of what an event says.
    async fn is_kept(&self, id: &OwnedEventId) -> bool {
        let event = self.event(id).await;
        let bytes = event.pdu.bytes();
        let body = event.pdu.content().get() != "{}";
        assert_eq!(body, !event.is_empty());
        assert_eq!(body, String::from_utf8_lossy(bytes).contains("body"));
        body
    }

    /// Nothing that `vatra check` would find.
    async fn is_sound(&self) {
        let mut problems = Vec::new();
        let check = self
            .world
            .rooms
            .check(false, |problem| problems.push(problem));
        check.await.unwrap();
        assert!(problems.is_empty(), "{problems:?}");
    }
}

#[tokio::test]
async fn old_messages_are_emptied_and_all_else_stays() {
    let bench = Bench::new(Policy::default()).await;
    let early = bench.say("early").await;
    let reply = json!({
        "msgtype": "m.text", "body": "reply",
        "m.relates_to": { "rel_type": "m.thread", "event_id": early },
    });
    let reply = draft("@alice:here", "m.room.message", None, reply);
    let reply = bench.world.send(&bench.room, reply).await;
    bench.keeps_for(json!({ "max_lifetime": 10 * DAY })).await;
    let state = bench.world.rooms.reader();
    let room = state.room(&bench.room).await.unwrap().unwrap();
    let state = state.current_state(room.sid).await.unwrap();
    bench.world.clock.advance(6 * DAY);
    let later = bench.say("later").await;
    bench.round().await;
    assert!(bench.is_kept(&early).await, "six days old");
    bench.world.clock.advance(6 * DAY);
    bench.round().await;
    assert_eq!(bench.retention.emptied(), 2);
    assert!(!bench.is_kept(&early).await);
    assert!(!bench.is_kept(&reply).await);
    assert!(bench.is_kept(&later).await);
    let reader = bench.world.rooms.reader();
    let related = reader.relations(room.sid, &early, Direction::Forward, 10);
    assert!(related.await.unwrap().is_empty());
    for event in state {
        let now = reader.event_by_sid(event.sid).await.unwrap().unwrap();
        assert_eq!(now.pdu.bytes(), event.pdu.bytes(), "{}", event.pdu.kind);
    }
    bench.is_sound().await;
    // The graph goes on, and the newest stays however old it is.
    bench.world.clock.advance(60 * DAY);
    bench.round().await;
    assert!(bench.is_kept(&later).await);
    let newest = bench.say("newest").await;
    bench.round().await;
    assert!(!bench.is_kept(&later).await);
    assert!(bench.is_kept(&newest).await);
    assert_eq!(bench.event(&newest).await.pdu.prev_events, [later]);
    // Once more changes nothing.
    bench.round().await;
    assert_eq!(bench.retention.emptied(), 3);
    bench.is_sound().await;
    bench.world.stopped().await;
}

#[tokio::test]
async fn many_messages_are_emptied_in_several_batches() {
    let bench = Bench::new(Policy {
        default: Some(DAY),
        ..Policy::default()
    })
    .await;
    for number in 0..130 {
        bench.say(&number.to_string()).await;
    }
    bench.world.clock.advance(2 * DAY);
    bench.say("newest").await;
    bench.round().await;
    assert_eq!(bench.retention.emptied(), 130);
    bench.is_sound().await;
    bench.world.stopped().await;
}

#[tokio::test]
async fn without_a_policy_nothing_is_emptied() {
    let bench = Bench::new(Policy::default()).await;
    let said = bench.say("said").await;
    bench.keeps_for(json!({ "max_lifetime": "soon" })).await;
    bench.world.clock.advance(10_000 * DAY);
    bench.say("newest").await;
    bench.round().await;
    assert!(bench.is_kept(&said).await);
    bench.world.stopped().await;
}

#[tokio::test]
async fn what_comes_late_is_emptied_in_the_next_round() {
    let bench = Bench::new(Policy {
        default: Some(10 * DAY),
        ..Policy::default()
    })
    .await;
    let start = bench.world.clock.now();
    bench.say("early").await;
    bench.world.clock.advance(20 * DAY);
    bench.say("newest").await;
    bench.round().await;
    // One from long ago through the log, and one that the log does not tell of.
    let mut late = Vec::new();
    for text in ["late", "filled in"] {
        let content = json!({ "msgtype": "m.text", "body": text });
        let said = draft("@alice:here", "m.room.message", None, content);
        let sent = MilliSecondsSinceUnixEpoch(UInt::new_saturating(start));
        let rooms = &bench.world.rooms;
        let sent = rooms.send_one_at(&bench.room, said, None, Some(sent));
        late.push(sent.await.unwrap());
    }
    let filled = bench.event(&late[1]).await;
    let mut batch = Batch::new();
    batch.delete(&schema::LOG, &filled.position);
    let sid = filled.sid;
    batch.put_at_position(&schema::PAST, move |position| ((position, sid), ()));
    bench.world.store.write(batch).await.unwrap();
    bench.say("newest now").await;
    bench.round().await;
    for id in &late {
        assert!(!bench.is_kept(id).await);
    }
    bench.world.stopped().await;
}
