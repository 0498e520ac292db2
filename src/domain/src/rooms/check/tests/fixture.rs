//! A sound room, to be damaged.

use ruma::{OwnedEventId, RoomVersionId, events::receipt::ReceiptThread, user_id};
use serde_json::{Value as Json, json};
use vatra_store::{Batch, Position};

use super::super::super::{Rooms, tests};
use crate::{
    audit::Problem,
    clock::ManualClock,
    rooms::ephemeral::Ephemeral,
    schema::{
        ALIASES, AliasRow, DeltaRow, EVENT_SIDS, EVENTS, EventRow, EventSid, GAPS, GapRow, HeadRow,
        LogRow, MEMBERSHIPS, MISSING, MembershipRow, PAST, RECEIPT_LOG, ROOM_ALIASES, ROOM_HEADS,
        ROOM_SERVERS, ReceiptKey, RoomOrder, RoomServerRow, RoomSid, SERVER_ROOMS, STATE_DELTAS,
        UserSid,
    },
};

/// A room with some of everything, and what its rows say.
pub(super) struct Fixture {
    pub(super) rooms: Rooms,
    pub(super) room: RoomSid,
    pub(super) id: String,
    pub(super) bob: UserSid,
    pub(super) carol: UserSid,
    pub(super) eve: UserSid,
    pub(super) said: OwnedEventId,
    pub(super) sid: EventSid,
    pub(super) event: EventRow,
    /// Bob's reaction to what was said.
    pub(super) reaction: EventRow,
    /// Bob's reply to it, in a thread.
    pub(super) reply: EventRow,
    pub(super) head: HeadRow,
    pub(super) delta: ((RoomSid, Position), DeltaRow),
    pub(super) receipt: ((RoomSid, Position, UserSid), ReceiptKey),
    pub(super) bob_row: MembershipRow,
    pub(super) carol_row: MembershipRow,
    /// The row of a message that was emptied because its time was over.
    pub(super) past: (Position, EventSid),
}

pub(super) async fn fixture(version: &RoomVersionId) -> Fixture {
    let rooms = tests::rooms().await;
    let room = tests::room_of_alice(&rooms, version).await;
    for (user, membership) in [
        ("@bob:test", "join"),
        ("@carol:test", "join"),
        ("@carol:test", "leave"),
    ] {
        rooms
            .send_one(&room, tests::member(user, membership), None)
            .await
            .unwrap();
    }
    let old = rooms
        .send_one(&room, tests::say("@alice:test", "long ago"), None)
        .await
        .unwrap();
    let said = rooms
        .send_one(&room, tests::say("@alice:test", "hello"), None)
        .await
        .unwrap();
    let relates =
        json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": said, "key": "+" } });
    let reaction = tests::draft("@bob:test", "m.reaction", None, relates);
    let reaction = rooms.send_one(&room, reaction, None).await.unwrap();
    let replies = json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": said } });
    let reply = tests::draft("@bob:test", "m.room.message", None, replies);
    let reply = rooms.send_one(&room, reply, None).await.unwrap();
    rooms
        .send_one(&room, tests::member("@dan:other", "join"), None)
        .await
        .unwrap();
    let secret = rooms
        .send_one(&room, tests::say("@alice:test", "secret"), None)
        .await
        .unwrap();
    let mut redaction = tests::draft("@alice:test", "m.room.redaction", None, json!({}));
    redaction.redacts = Some(secret);
    rooms.send_one(&room, redaction, None).await.unwrap();

    let bob = rooms
        .ids()
        .intern_user(user_id!("@bob:test"))
        .await
        .unwrap();
    let carol = rooms
        .ids()
        .intern_user(user_id!("@carol:test"))
        .await
        .unwrap();
    let eve = rooms
        .ids()
        .intern_user(user_id!("@eve:test"))
        .await
        .unwrap();
    let view = rooms.store().view();
    let old = view.get(&EVENT_SIDS, &old.to_string()).await.unwrap();
    let old = [old.unwrap()];
    let emptied = rooms.empty_expired(&room, &old, Batch::new()).await;
    assert_eq!(emptied.unwrap(), 1);
    let reader = rooms.reader();
    let sid = reader.room(&room).await.unwrap().unwrap().sid;
    let ephemeral = Ephemeral::new(rooms.store().clone(), ManualClock::new(1_000), true);
    let thread = ReceiptThread::Unthreaded;
    ephemeral
        .receipts
        .set(&reader, sid, bob, "m.read", &thread, &said)
        .await
        .unwrap();
    let mut batch = Batch::new();
    let alias = AliasRow {
        room: room.to_string(),
        creator: "@alice:test".to_owned(),
    };
    batch.put(&ALIASES, &"#tea:test".to_owned(), &alias);
    batch.put(&ROOM_ALIASES, &(sid, "#tea:test".to_owned()), &());
    let view = rooms.store().view();
    let event_sid = view
        .get(&EVENT_SIDS, &said.to_string())
        .await
        .unwrap()
        .unwrap();
    let event = view.get(&EVENTS, &event_sid).await.unwrap().unwrap();
    let gap = GapRow {
        event: event_sid,
        missing: vec!["$gone".to_owned()],
    };
    batch.put(&GAPS, &(sid, event.head.order), &gap);
    batch.put(&MISSING, &(sid, "$gone".to_owned()), &event.head.order);
    let server = RoomServerRow {
        members: 1,
        since: event.head.position,
        until: None,
    };
    batch.put(&ROOM_SERVERS, &(sid, "other".to_owned()), &server);
    batch.put(&SERVER_ROOMS, &("other".to_owned(), sid), &());
    rooms.store().write(batch).await.unwrap();

    let view = rooms.store().view();
    let reply = view
        .get(&EVENT_SIDS, &reply.to_string())
        .await
        .unwrap()
        .unwrap();
    let reaction = view
        .get(&EVENT_SIDS, &reaction.to_string())
        .await
        .unwrap()
        .unwrap();
    let all = vatra_store::Range::all;
    let back = vatra_store::Direction::Backward;
    Fixture {
        room: sid,
        id: room.to_string(),
        bob,
        carol,
        eve,
        said,
        sid: event_sid,
        event,
        reply: view.get(&EVENTS, &reply).await.unwrap().unwrap(),
        reaction: view.get(&EVENTS, &reaction).await.unwrap().unwrap(),
        head: view.get(&ROOM_HEADS, &sid).await.unwrap().unwrap(),
        delta: view
            .first(&STATE_DELTAS, all(), back)
            .await
            .unwrap()
            .unwrap(),
        receipt: view
            .first(&RECEIPT_LOG, all(), back)
            .await
            .unwrap()
            .unwrap(),
        bob_row: view.get(&MEMBERSHIPS, &(bob, sid)).await.unwrap().unwrap(),
        carol_row: view
            .get(&MEMBERSHIPS, &(carol, sid))
            .await
            .unwrap()
            .unwrap(),
        past: view.first(&PAST, all(), back).await.unwrap().unwrap().0,
        rooms,
    }
}

impl Fixture {
    pub(super) async fn problems(&self, repair: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.rooms
            .check(repair, |problem| problems.push(problem))
            .await
            .unwrap();
        problems
    }

    pub(super) async fn damaged(version: &RoomVersionId, damage: fn(&Fixture, &mut Batch)) -> Self {
        let fixture = fixture(version).await;
        assert_eq!(
            fixture.problems(false).await,
            [],
            "a sound room of version {version}"
        );
        let mut batch = Batch::new();
        damage(&fixture, &mut batch);
        fixture.rooms.store().write(batch).await.unwrap();
        fixture
    }

    pub(super) fn log(&self) -> LogRow {
        let (room, order) = (self.room, self.event.head.order);
        LogRow {
            room,
            event: self.sid,
            order,
        }
    }

    pub(super) fn relation(&self) -> (RoomSid, String, RoomOrder) {
        (self.room, self.said.to_string(), self.reaction.head.order)
    }

    pub(super) fn time(&self) -> (RoomSid, u64, RoomOrder) {
        let json: Json = serde_json::from_slice(&self.event.pdu).unwrap();
        let sent = json["origin_server_ts"].as_u64().unwrap();
        (self.room, sent, self.event.head.order)
    }

    pub(super) fn rewrite(&self, batch: &mut Batch, change: fn(&mut Json)) {
        let mut json: Json = serde_json::from_slice(&self.event.pdu).unwrap();
        change(&mut json);
        let pdu = serde_json::to_vec(&json).unwrap().into();
        batch.put(
            &EVENTS,
            &self.sid,
            &EventRow {
                pdu,
                ..self.event.clone()
            },
        );
    }
}
