//! Each way in which a store can be damaged, found by its name; mended where the row is derived, reported where it is primary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fixture;

use ruma::RoomVersionId;
use serde_json::json;
use vatra_store::{Batch, Map, Position};

use self::fixture::{Fixture, fixture};
use crate::{
    audit::Problem,
    schema::{
        ALIASES, AliasRow, CURRENT_STATE, EVENT_SIDS, EVENT_TIMES, EVENTS, EventRow, EventSid,
        GAPS, GapRow, HeadRow, JOINED_SERVERS, LOG, LogRow, MEMBER_COUNTS, MEMBERSHIPS, MISSING,
        Membership, MembershipRow, PAST, RECEIPT_LOG, RELATED, RELATIONS, ROOM_ALIASES, ROOM_HEADS,
        ROOM_LOG, ROOM_MEMBERS, ROOM_SIDS, ROOMS, RoomOrder, RoomSid, SERVER_ROOMS, STATE_DELTAS,
        STATE_KEY_SIDS, STATE_NODES, THREAD_REPLIES, TIMELINE, USER_IDS, USER_SIDS,
    },
};

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
    ("event_times", "missing", |at, b| {
        b.delete(&EVENT_TIMES, &at.time());
    }),
    ("event_times", "wrong", |at, b| {
        b.put(&EVENT_TIMES, &at.time(), &EventSid(1));
    }),
    ("event_times", "calls for", |at, b| {
        b.put(&EVENT_TIMES, &(at.room, 7, at.event.head.order), &at.sid);
    }),
    ("past", "missing", |at, b| {
        b.delete(&PAST, &at.past);
    }),
    ("past", "missing", |at, b| {
        // As if it had been filled in before a gap.
        let mut row = at.event.clone();
        row.head.position = Position::ZERO;
        b.put(&EVENTS, &at.sid, &row);
        b.delete(&LOG, &at.event.head.position);
        b.delete(&ROOM_LOG, &(at.room, at.event.head.position));
    }),
    ("past", "calls for", |at, b| {
        b.put(&PAST, &(Position(7), at.sid), &());
    }),
    ("thread_replies", "missing", |at, b| {
        b.delete(&THREAD_REPLIES, &(at.room, at.reply.head.order));
    }),
    ("thread_replies", "wrong", |at, b| {
        b.put(
            &THREAD_REPLIES,
            &(at.room, at.reply.head.order),
            &"$other".to_owned(),
        );
    }),
    ("thread_replies", "calls for", |at, b| {
        b.put(
            &THREAD_REPLIES,
            &(at.room, at.event.head.order),
            &at.said.to_string(),
        );
    }),
    ("thread_replies", "calls for", |at, b| {
        b.put(
            &THREAD_REPLIES,
            &(at.room, RoomOrder(7)),
            &at.said.to_string(),
        );
    }),
    ("related", "missing", |at, b| {
        b.delete(&RELATED, &(at.room, at.said.to_string()));
    }),
    ("joined_servers", "missing", |at, b| {
        b.delete(&JOINED_SERVERS, &(at.room, "other".to_owned()));
    }),
    ("joined_servers", "wrong", |at, b| {
        b.put(&JOINED_SERVERS, &(at.room, String::new()), &7);
    }),
    ("joined_servers", "wrong", |at, b| {
        b.put(&JOINED_SERVERS, &(at.room, "gone".to_owned()), &7);
    }),
    ("missing", "missing", |at, b| {
        b.delete(&MISSING, &(at.room, "$gone".to_owned()));
    }),
    ("missing", "calls for", |at, b| {
        b.put(
            &MISSING,
            &(at.room, "$other".to_owned()),
            &at.event.head.order,
        );
    }),
    ("server_rooms", "missing", |at, b| {
        b.delete(&SERVER_ROOMS, &("other".to_owned(), at.room));
    }),
    ("server_rooms", "calls for", |at, b| {
        b.put(&SERVER_ROOMS, &("gone".to_owned(), at.room), &());
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
    ("events", "no event", |_, b| {
        b.put(&PAST, &(Position(7), EventSid(1 << 60)), &());
    }),
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
    ("gaps", "does not stand there", |at, b| {
        let row = GapRow {
            event: at.sid,
            missing: Vec::new(),
        };
        b.put(&GAPS, &(at.room, RoomOrder(7)), &row);
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
