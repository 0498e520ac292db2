//! Each way in which a store can be damaged, found by its name; mended where the row is derived, reported where it is primary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use ruma::{OwnedEventId, RoomVersionId, events::receipt::ReceiptThread, user_id};
use serde_json::{Value as Json, json};
use vatra_store::{Batch, Map, Position};

use super::super::{Rooms, tests};
use crate::{
    audit::Problem,
    clock::ManualClock,
    rooms::ephemeral::Ephemeral,
    schema::{
        ALIASES, AliasRow, CURRENT_STATE, DeltaRow, EVENT_SIDS, EVENTS, EventRow, EventSid,
        HeadRow, LOG, LogRow, MEMBER_COUNTS, MEMBERSHIPS, Membership, MembershipRow, RECEIPT_LOG,
        RELATIONS, ROOM_ALIASES, ROOM_HEADS, ROOM_LOG, ROOM_MEMBERS, ROOM_SIDS, ROOMS, RoomOrder,
        RoomSid, STATE_DELTAS, STATE_KEY_SIDS, STATE_NODES, TIMELINE, USER_IDS, USER_SIDS, UserSid,
    },
};

/// A room with some of everything, and what its rows say.
struct Fixture {
    rooms: Rooms,
    room: RoomSid,
    id: String,
    bob: UserSid,
    carol: UserSid,
    eve: UserSid,
    said: OwnedEventId,
    sid: EventSid,
    event: EventRow,
    /// Bob's reaction to what was said.
    reaction: EventRow,
    head: HeadRow,
    delta: ((RoomSid, Position), DeltaRow),
    receipt: (
        (RoomSid, Position, UserSid),
        (RoomSid, UserSid, String, String),
    ),
    bob_row: MembershipRow,
    carol_row: MembershipRow,
}

async fn fixture(version: &RoomVersionId) -> Fixture {
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
    let said = rooms
        .send_one(&room, tests::say("@alice:test", "hello"), None)
        .await
        .unwrap();
    let relates =
        json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": said, "key": "+" } });
    let reaction = tests::draft("@bob:test", "m.reaction", None, relates);
    let reaction = rooms.send_one(&room, reaction, None).await.unwrap();
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
    rooms.store().write(batch).await.unwrap();

    let view = rooms.store().view();
    let event_sid = view
        .get(&EVENT_SIDS, &said.to_string())
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
        event: view.get(&EVENTS, &event_sid).await.unwrap().unwrap(),
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
        rooms,
    }
}

impl Fixture {
    async fn problems(&self, repair: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.rooms
            .check(repair, |problem| problems.push(problem))
            .await
            .unwrap();
        problems
    }

    async fn damaged(version: &RoomVersionId, damage: fn(&Fixture, &mut Batch)) -> Self {
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

    fn log(&self) -> LogRow {
        let (room, order) = (self.room, self.event.head.order);
        LogRow {
            room,
            event: self.sid,
            order,
        }
    }

    fn relation(&self) -> (RoomSid, String, RoomOrder) {
        (self.room, self.said.to_string(), self.reaction.head.order)
    }

    fn rewrite(&self, batch: &mut Batch, change: fn(&mut Json)) {
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

type Damage = (&'static str, &'static str, fn(&Fixture, &mut Batch));

fn bob_member(at: &Fixture) -> (RoomSid, String, String) {
    (at.room, "m.room.member".to_owned(), "@bob:test".to_owned())
}

const DERIVED: &[Damage] = &[
    ("event_sids", "missing", |at, b| {
        b.delete(&EVENT_SIDS, &at.said.to_string());
    }),
    ("event_sids", "wrong", |at, b| {
        b.put(&EVENT_SIDS, &at.said.to_string(), &EventSid(1));
    }),
    ("event_sids", "calls for", |at, b| {
        b.put(&EVENT_SIDS, &"$other".to_owned(), &at.sid);
    }),
    ("timeline", "missing", |at, b| {
        b.delete(&TIMELINE, &(at.room, at.event.head.order));
    }),
    ("timeline", "wrong", |at, b| {
        b.put(&TIMELINE, &(at.room, at.event.head.order), &EventSid(1));
    }),
    ("timeline", "calls for", |at, b| {
        b.put(&TIMELINE, &(at.room, RoomOrder(7)), &at.sid);
    }),
    ("room_log", "missing", |at, b| {
        b.delete(&ROOM_LOG, &(at.room, at.event.head.position));
    }),
    ("room_log", "calls for", |at, b| {
        b.put(&ROOM_LOG, &(at.room, Position(1 << 60)), &at.log());
    }),
    ("log", "missing", |at, b| {
        b.delete(&LOG, &at.event.head.position);
    }),
    ("log", "wrong", |at, b| {
        b.put(
            &LOG,
            &at.event.head.position,
            &LogRow {
                order: RoomOrder(7),
                ..at.log()
            },
        );
    }),
    ("log", "calls for", |at, b| {
        b.put(&LOG, &Position(1 << 60), &at.log());
    }),
    ("relations", "missing", |at, b| {
        b.delete(&RELATIONS, &at.relation());
    }),
    ("relations", "wrong", |at, b| {
        b.put(
            &Map::<_, String>::new(RELATIONS.keyspace(), RELATIONS.id(), "x"),
            &at.relation(),
            &"?".to_owned(),
        );
    }),
    ("current_state", "missing", |at, b| {
        b.delete(&CURRENT_STATE, &bob_member(at));
    }),
    ("current_state", "wrong", |at, b| {
        b.put(&CURRENT_STATE, &bob_member(at), &at.sid);
    }),
    ("current_state", "calls for", |at, b| {
        b.put(
            &CURRENT_STATE,
            &(at.room, "m.room.topic".to_owned(), String::new()),
            &at.sid,
        );
    }),
    ("memberships", "missing", |at, b| {
        b.delete(&MEMBERSHIPS, &(at.bob, at.room));
    }),
    ("memberships", "missing", |at, b| {
        b.delete(&MEMBERSHIPS, &(at.carol, at.room));
    }),
    ("memberships", "wrong", |at, b| {
        b.put(
            &MEMBERSHIPS,
            &(at.bob, at.room),
            &MembershipRow {
                membership: Membership::Ban,
                ..at.bob_row
            },
        );
    }),
    ("memberships", "wrong", |at, b| {
        b.put(
            &MEMBERSHIPS,
            &(at.carol, at.room),
            &MembershipRow {
                joined_until: MembershipRow::STILL,
                ..at.carol_row
            },
        );
    }),
    ("memberships", "calls for", |at, b| {
        b.put(&MEMBERSHIPS, &(at.eve, at.room), &at.bob_row);
    }),
    ("room_members", "missing", |at, b| {
        b.delete(&ROOM_MEMBERS, &(at.room, Membership::Join, at.bob));
    }),
    ("room_members", "wrong", |at, b| {
        b.put(&ROOM_MEMBERS, &(at.room, Membership::Join, at.bob), &at.sid);
    }),
    ("room_members", "calls for", |at, b| {
        b.put(&ROOM_MEMBERS, &(at.room, Membership::Ban, at.bob), &at.sid);
    }),
    ("member_counts", "missing", |at, b| {
        b.delete(&MEMBER_COUNTS, &(at.room, Membership::Join));
    }),
    ("member_counts", "wrong", |at, b| {
        b.put(&MEMBER_COUNTS, &(at.room, Membership::Join), &7);
    }),
    ("member_counts", "wrong", |at, b| {
        b.put(&MEMBER_COUNTS, &(at.room, Membership::Knock), &7);
    }),
    ("room_aliases", "missing", |at, b| {
        b.delete(&ROOM_ALIASES, &(at.room, "#tea:test".to_owned()));
    }),
    ("room_aliases", "calls for", |at, b| {
        b.put(&ROOM_ALIASES, &(at.room, "#gone:test".to_owned()), &());
    }),
    ("receipt_log", "missing", |at, b| {
        b.delete(&RECEIPT_LOG, &at.receipt.0);
    }),
    ("receipt_log", "calls for", |at, b| {
        b.put(
            &RECEIPT_LOG,
            &(at.room, Position(1 << 60), at.bob),
            &at.receipt.1,
        );
    }),
    ("user_sids", "missing", |_, b| {
        b.delete(&USER_SIDS, &"@bob:test".to_owned());
    }),
    ("user_ids", "missing", |at, b| {
        b.delete(&USER_IDS, &at.bob);
    }),
    ("room_sids", "missing", |at, b| {
        b.delete(&ROOM_SIDS, &at.id);
    }),
    ("state_key_sids", "missing", |_, b| {
        b.delete(
            &STATE_KEY_SIDS,
            &("m.room.member".to_owned(), "@bob:test".to_owned()),
        );
    }),
];

#[tokio::test]
async fn damage_to_derived_rows_is_found_and_mended() {
    for (number, (map, words, damage)) in DERIVED.iter().enumerate() {
        let name = format!("{number}: {map} {words}");
        let fixture = Fixture::damaged(&RoomVersionId::V12, *damage).await;
        let found = fixture.problems(false).await;
        let named = |problem: &&Problem| problem.map() == Some(*map) && problem.is_derived();
        let problem = found.iter().find(named);
        let problem = problem.unwrap_or_else(|| panic!("{name}: not found: {found:?}"));
        assert!(problem.to_string().contains(*words), "{name}: {problem}");
        fixture.problems(true).await;
        assert_eq!(fixture.problems(false).await, [], "{name}: mended");
        let view = fixture.rooms.store().view();
        for (user, row) in [
            (fixture.bob, fixture.bob_row),
            (fixture.carol, fixture.carol_row),
        ] {
            let mended = view.get(&MEMBERSHIPS, &(user, fixture.room)).await.unwrap();
            assert_eq!(mended, Some(row), "{name}");
        }
    }
}

const PRIMARY: &[Damage] = &[
    ("events", "cannot decode", |at, b| {
        b.put(
            &Map::<_, String>::new(EVENTS.keyspace(), EVENTS.id(), "x"),
            &at.sid,
            &"?".to_owned(),
        );
    }),
    ("events", "malformed", |at, b| {
        b.put(
            &EVENTS,
            &at.sid,
            &EventRow {
                pdu: "{".into(),
                ..at.event.clone()
            },
        );
    }),
    ("events", "not what was hashed", |at, b| {
        at.rewrite(b, |json| json["content"]["body"] = json!("hullo"))
    }),
    ("events", "its content has the id", |at, b| {
        at.rewrite(b, |json| json["depth"] = json!(99))
    }),
    ("events", "signature is wrong", |at, b| {
        at.rewrite(b, |json| {
            json["signatures"]["test"]["ed25519:1"] = json!("A".repeat(86))
        })
    }),
    ("events", "has no signature", |at, b| {
        at.rewrite(b, |json| json["signatures"] = json!({}))
    }),
    ("events", "no event", |at, b| {
        b.delete(&EVENTS, &at.sid);
    }),
    ("events", "in the state", |at, b| {
        b.delete(&EVENTS, &at.bob_row.event);
    }),
    ("events", "ends in it", |at, b| {
        b.delete(&EVENTS, &at.head.extremities[0].0);
    }),
    ("rooms", "no row", |at, b| {
        b.delete(&ROOMS, &at.room);
    }),
    ("state_nodes", "lost this node", |at, b| {
        b.delete(&STATE_NODES, &at.head.root.unwrap());
    }),
    ("room_heads", "after the last change", |at, b| {
        b.put(
            &ROOM_HEADS,
            &at.room,
            &HeadRow {
                root: None,
                ..at.head.clone()
            },
        );
    }),
    ("room_heads", "no head", |at, b| {
        b.delete(&ROOM_HEADS, &at.room);
    }),
    ("state_deltas", "differ otherwise", |at, b| {
        let mut delta = at.delta.1.clone();
        delta.changes[0].new = Some(at.sid);
        b.put(&STATE_DELTAS, &at.delta.0, &delta);
    }),
    ("aliases", "there is no room", |_, b| {
        let row = AliasRow {
            room: "!gone:test".to_owned(),
            creator: "@alice:test".to_owned(),
        };
        b.put(&ALIASES, &"#gone:test".to_owned(), &row);
    }),
];

#[tokio::test]
async fn damage_to_primary_rows_is_reported_and_left_for_a_backup() {
    for (number, (map, words, damage)) in PRIMARY.iter().enumerate() {
        let fixture = Fixture::damaged(&RoomVersionId::V12, *damage).await;
        for repair in [false, true, false] {
            let found = fixture.problems(repair).await;
            let named = |problem: &Problem| {
                problem.map() == Some(*map)
                    && !problem.is_derived()
                    && problem.to_string().contains(*words)
            };
            assert!(
                found.iter().any(named),
                "{number}: {map} {words}, repair {repair}: {found:?}"
            );
        }
    }
}

#[tokio::test]
async fn rooms_of_every_version_are_sound() {
    for version in 1..=12 {
        let version = RoomVersionId::try_from(version.to_string()).unwrap();
        assert_eq!(
            fixture(&version).await.problems(false).await,
            [],
            "version {version}"
        );
    }
}
