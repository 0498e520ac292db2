//! Who is looked at, and what that costs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ruma::OwnedRoomId;
use serde_json::json;
use vatra_store::{Direction, Range};

use super::super::push_sender::tests::world::{World, draft, member};
use crate::{schema, users::Requester};

/// A room of this many users, of whom the first so many have pushers.
async fn room(world: &World, members: usize, pushers: usize) -> (OwnedRoomId, Requester) {
    let alice = world.user("alice").await;
    let room = world.room(&alice).await;
    for number in 0..members {
        if number < pushers {
            let user = world.user(&format!("u{number}")).await;
            world.join(&room, &user).await;
            world.push_later(&user).await;
        } else {
            let user = format!("@u{number}:here");
            world.send(&room, member(&user, &user, "join")).await;
        }
    }
    world.settled().await;
    (room, alice)
}

/// What a message costs all followers together: rules held against it, and reads of the store.
async fn cost(world: &World, room: &OwnedRoomId, alice: &Requester) -> (u64, u64) {
    world.say(room, alice, "into memory").await;
    world.settled().await;
    let before = world.notices.judged();
    world.engine.take_reads();
    world.say(room, alice, "counted").await;
    world.settled().await;
    (world.notices.judged() - before, world.engine.take_reads())
}

#[tokio::test]
async fn a_message_costs_nothing_for_members_without_pushers() {
    let mut costs = Vec::new();
    for (members, pushers) in [(4, 0), (200, 0), (4, 3), (200, 3)] {
        let world = World::new().await;
        // Else nobody in the world has a pusher, and nothing is looked at.
        let other = world.user("other").await;
        world.push(&other, "phone").await;
        let (room, alice) = room(&world, members, pushers).await;
        costs.push(cost(&world, &room, &alice).await);
    }
    assert_eq!((costs[0].0, costs[1].0), (0, 0));
    assert_eq!((costs[2].0, costs[3].0), (3, 3));
    assert_eq!(
        costs[0].1, costs[1].1,
        "reads do not grow with members: {costs:?}"
    );
    // Two of the followers may meet a wake-up more or less; a hundred and ninety-six members would be many more.
    assert!(
        costs[2].1.abs_diff(costs[3].1) <= 10,
        "nor where some have pushers: {costs:?}"
    );
    // The sender's own reads are among them.
    assert!(costs[0].1 <= 12, "{costs:?}");
}

#[tokio::test]
async fn fifty_of_a_thousand_are_judged_and_read_in_batches() {
    let world = World::new().await;
    let (room, alice) = room(&world, 1_000, 50).await;
    let (judged, reads) = cost(&world, &room, &alice).await;
    assert_eq!(judged, 50);
    let notified = world.store.view();
    let rows = notified
        .range(
            &schema::NOTICES,
            Range::all(),
            Direction::Forward,
            usize::MAX,
        )
        .await
        .unwrap();
    assert_eq!(rows.len(), 100, "two messages for each");
    // For each phone: its pushers, its state, and what is unread in three reads; and asserts when states are stored.
    assert!(reads <= 20 + 50 * 8, "{reads}");
}

#[tokio::test]
async fn the_list_of_a_user_is_bounded() {
    let world = World::new().await;
    let (room, alice) = room(&world, 1, 1).await;
    for number in 0..720 {
        world.say(&room, &alice, &number.to_string()).await;
    }
    world.settled().await;
    let view = world.store.view();
    let rows = view.range(
        &schema::NOTICES,
        Range::all(),
        Direction::Forward,
        usize::MAX,
    );
    let rows = rows.await.unwrap();
    assert!((500..=700).contains(&rows.len()), "{}", rows.len());
    let reader = world.rooms.reader();
    let last = reader.event_by_sid(rows.last().unwrap().1.event);
    let last = last.await.unwrap().unwrap();
    assert!(last.pdu.content().get().contains("719"));
}

#[tokio::test]
async fn a_thread_is_read_by_its_own_receipt_and_by_one_of_no_thread() {
    let world = World::new().await;
    let (room, alice) = room(&world, 1, 1).await;
    let reader = world.rooms.reader();
    let bob = reader.user_sid(ruma::user_id!("@u0:here"));
    let bob = bob.await.unwrap().unwrap();
    let root = world.say(&room, &alice, "root").await;
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let reply = json!({ "msgtype": "m.text", "body": "reply", "m.relates_to": relation });
    world
        .send(&room, draft("@alice:here", "m.room.message", None, reply))
        .await;
    world.settled().await;
    let unread = world.notices.unread(bob).await.unwrap();
    assert_eq!(unread.len(), 2);
    let threads: Vec<_> = unread.into_iter().map(|(_, row)| row.thread).collect();
    assert_eq!(threads, [None, Some(root.to_string())]);
    // One's own word in the main timeline reads that, and not the thread.
    let own = json!({ "msgtype": "m.text", "body": "own" });
    world
        .send(&room, draft("@u0:here", "m.room.message", None, own))
        .await;
    world.settled().await;
    let unread = world.notices.unread(bob).await.unwrap();
    assert_eq!(unread.len(), 1);
    assert_eq!(unread[0].1.thread.as_deref(), Some(root.as_str()));
}
