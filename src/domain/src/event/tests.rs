//! Events of every room version: built, checked, redacted, shown and resolved.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{collections::HashMap, sync::Arc};

use proptest::prelude::*;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId,
    RoomVersionId, UInt, event_id,
    events::StateEventType,
    owned_room_id, owned_user_id,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
    serde::Base64,
    server_name,
    signatures::{Ed25519KeyPair, PublicKeyMap, hash_and_sign_event, reference_hash},
    user_id,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    auth,
    build::{BuildError, Draft, MAX_EVENT_BYTES, Placement, build},
    check::{Checked, Dropped, check},
    client::{Unsigned, client_json, stripped_json},
    pdu::Pdu,
    redact::redact,
    relation::{Relation, in_reply_to},
    resolve::{StateMap, resolve},
    signer::Signer,
};

const VERSIONS: [&str; 12] = [
    "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12",
];

fn rules(version: &str) -> Arc<RoomVersionRules> {
    Arc::new(RoomVersionId::try_from(version).unwrap().rules().unwrap())
}

fn key() -> (Signer, Ed25519KeyPair, PublicKeyMap) {
    let document = Signer::generate();
    let pair = Ed25519KeyPair::from_der(&document, "1".into()).unwrap();
    let signer = Signer::from_der(server_name!("a").to_owned(), &document, "1".into()).unwrap();
    let keys = [(
        "ed25519:1".to_owned(),
        Base64::new(signer.public_key().to_vec()),
    )]
    .into();
    (signer, pair, [("a".to_owned(), keys)].into())
}

fn object(value: Value) -> CanonicalJsonObject {
    serde_json::from_value(value).unwrap()
}

fn draft(kind: &str, state_key: Option<&str>, content: Value) -> Draft {
    Draft {
        sender: owned_user_id!("@alice:a"),
        kind: kind.into(),
        state_key: state_key.map(str::to_owned),
        content: object(content),
        redacts: (kind == "m.room.redaction").then(|| event_id!("$target").to_owned()),
    }
}

fn placement(version: &str) -> Placement {
    Placement {
        room_id: Some(owned_room_id!("!r:a")),
        rules: rules(version),
        prev_events: vec![event_id!("$p1").to_owned(), event_id!("$p2").to_owned()],
        auth_events: vec![event_id!("$a1").to_owned()],
        depth: 7,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1_700_000_000_u32)),
    }
}

fn drafts() -> Vec<Draft> {
    vec![
        draft(
            "m.room.message",
            None,
            json!({ "body": "q\"\\\u{1}\u{7f}ă 🔥", "n": [1, null, true, { "b": 1, "a": -2 }] }),
        ),
        draft(
            "m.room.member",
            Some("@alice:a"),
            json!({ "membership": "join", "displayname": "A" }),
        ),
        draft(
            "m.room.power_levels",
            Some(""),
            json!({ "users": { "@alice:a": 100 }, "invite": 50, "other": 1 }),
        ),
        draft(
            "m.room.create",
            Some(""),
            json!({ "creator": "@alice:a", "room_version": "x" }),
        ),
        draft("m.room.redaction", None, json!({ "reason": "spam" })),
        draft("m.room.aliases", Some("a"), json!({ "aliases": ["#x:a"] })),
        draft("org.\"odd\"\n", Some("k\""), json!({})),
    ]
}

#[test]
fn what_is_built_equals_what_the_signature_library_makes_in_every_version() {
    let (signer, pair, keys) = key();
    for version in VERSIONS {
        let at = placement(version);
        for draft in drafts() {
            let pdu = build(draft, &at, &signer).unwrap();
            let built: CanonicalJsonObject = pdu.to_canonical().unwrap();
            assert_eq!(
                serde_json::to_vec(&built).unwrap(),
                pdu.bytes().to_vec(),
                "canonical form, version {version}"
            );

            let mut theirs = built.clone();
            theirs.remove("hashes");
            theirs.remove("signatures");
            hash_and_sign_event("a", &pair, &mut theirs, &at.rules.redaction).unwrap();
            assert_eq!(built, theirs, "version {version}");
            if at.rules.event_id_format != EventIdFormatVersion::V1 {
                assert_eq!(
                    pdu.event_id.as_str(),
                    format!("${}", reference_hash(&built, &at.rules).unwrap())
                );
            }
            let read = Pdu::parse(pdu.bytes().clone(), &at.rules, None).unwrap();
            assert_eq!(format!("{read:?}"), format!("{pdu:?}"), "version {version}");
            if at.rules.event_id_format != EventIdFormatVersion::V1
                || pdu.event_id.server_name().is_some()
            {
                assert!(
                    matches!(check(pdu.bytes(), &at.rules, &keys), Ok(Checked::Whole(_))),
                    "version {version}"
                );
            }
        }
    }
}

#[test]
fn the_create_event_of_version_12_is_its_rooms_id() {
    let (signer, ..) = key();
    let mut at = placement("12");
    at.room_id = None;
    at.prev_events.clear();
    at.auth_events.clear();
    let pdu = build(
        draft("m.room.create", Some(""), json!({ "room_version": "12" })),
        &at,
        &signer,
    )
    .unwrap();
    assert_eq!(pdu.room_id.as_str()[1..], pdu.event_id.as_str()[1..]);
    assert!(!pdu.to_canonical().unwrap().contains_key("room_id"));
    let shown: Value = serde_json::from_str(client_json(&pdu, true, None).get()).unwrap();
    assert_eq!(shown["room_id"], pdu.room_id.as_str());
    auth::authorise(&at.rules, &pdu, |_, _| None).unwrap();
}

#[test]
fn an_event_may_have_65536_bytes_and_not_one_more() {
    let (signer, _, keys) = key();
    let at = placement("11");
    let message = |length: usize| {
        draft(
            "m.room.message",
            None,
            json!({ "body": "x".repeat(length) }),
        )
    };
    let rest = build(message(0), &at, &signer).unwrap().bytes().len();
    let largest = build(message(MAX_EVENT_BYTES - rest), &at, &signer).unwrap();
    assert_eq!(largest.bytes().len(), MAX_EVENT_BYTES);
    check(largest.bytes(), &at.rules, &keys).unwrap();
    assert!(matches!(
        build(message(MAX_EVENT_BYTES - rest + 1), &at, &signer),
        Err(BuildError::TooLarge)
    ));
}

#[test]
fn words_that_let_people_in_are_known_or_have_a_namespace() {
    let (signer, ..) = key();
    let at = placement("11");
    for (kind, field, said, good) in [
        ("m.room.join_rules", "join_rule", json!("knock"), true),
        ("m.room.join_rules", "join_rule", json!("pubic"), false),
        ("m.room.join_rules", "join_rule", json!(5), false),
        (
            "m.room.join_rules",
            "join_rule",
            json!("org.example.ask"),
            true,
        ),
        (
            "m.room.history_visibility",
            "history_visibility",
            json!("zz"),
            false,
        ),
        (
            "m.room.history_visibility",
            "history_visibility",
            json!("shared"),
            true,
        ),
        ("m.room.history_visibility", "join_rule", json!("zz"), true),
        ("m.room.guest_access", "guest_access", json!(true), false),
        ("org.example.x", "join_rule", json!("zz"), true),
    ] {
        let built = build(draft(kind, Some(""), json!({ field: said })), &at, &signer);
        assert_eq!(built.is_ok(), good, "{kind} {field} {said}");
    }
}

#[test]
fn fields_may_have_255_bytes_and_not_one_more() {
    let (signer, ..) = key();
    let at = placement("11");
    for (length, fits) in [(255, true), (256, false)] {
        let name = "x".repeat(length);
        assert_eq!(
            build(draft(&name, None, json!({})), &at, &signer).is_ok(),
            fits
        );
        assert_eq!(
            build(draft("m.x", Some(&name), json!({})), &at, &signer).is_ok(),
            fits
        );
    }
}

#[test]
fn a_received_event_is_whole_redacted_or_dropped() {
    let (signer, pair, keys) = key();
    let at = placement("11");
    let pdu = build(
        draft("m.room.message", None, json!({ "body": "hi" })),
        &at,
        &signer,
    )
    .unwrap();
    let changed = |change: &dyn Fn(&mut CanonicalJsonObject)| {
        let mut object = pdu.to_canonical().unwrap();
        change(&mut object);
        check(&serde_json::to_vec(&object).unwrap(), &at.rules, &keys)
    };
    assert!(matches!(changed(&|_| ()), Ok(Checked::Whole(_))));
    let tampered = changed(&|event| {
        event.insert(
            "content".into(),
            CanonicalJsonValue::Object(object(json!({ "body": "ho" }))),
        );
    });
    let Ok(Checked::Redacted(redacted)) = tampered else {
        panic!("{tampered:?}")
    };
    assert_eq!(redacted.content().get(), "{}");
    assert_eq!(redacted.event_id, pdu.event_id);

    let retyped = changed(&|event| {
        event.insert("type".into(), CanonicalJsonValue::String("m.other".into()));
    });
    assert!(matches!(retyped, Err(Dropped::BadSignature(_))));
    let unsigned = changed(&|event| {
        event.remove("signatures");
    });
    assert!(matches!(unsigned, Err(Dropped::BadSignature(_))));
    let deep = check(
        pdu.bytes().to_vec().as_slice(),
        &at.rules,
        &PublicKeyMap::new(),
    );
    assert!(matches!(deep, Err(Dropped::BadSignature(_))));

    for (field, value) in [
        ("depth", json!(-1)),
        ("depth", json!(9_007_199_254_740_992_u64)),
        ("prev_events", json!(vec!["$x"; 21])),
        ("auth_events", json!(vec!["$x"; 11])),
        ("type", json!("x".repeat(256))),
        ("sender", json!("alice")),
        ("room_id", Value::Null),
    ] {
        let mut event: Value = serde_json::from_slice(pdu.bytes()).unwrap();
        event[field] = value.clone();
        if let Ok(mut object) = serde_json::from_value::<CanonicalJsonObject>(event.clone()) {
            object.remove("hashes");
            object.remove("signatures");
            hash_and_sign_event("a", &pair, &mut object, &at.rules.redaction).unwrap();
            event = serde_json::to_value(object).unwrap();
        }
        assert!(
            check(event.to_string().as_bytes(), &at.rules, &keys).is_err(),
            "{field} {value}"
        );
    }
}

#[test]
fn redaction_keeps_the_id_and_what_the_version_keeps() {
    let (signer, _, keys) = key();
    // version, type, content, what is left
    let cases = [
        ("10", "m.room.message", json!({ "body": "x" }), json!({})),
        (
            "1",
            "m.room.aliases",
            json!({ "aliases": [] }),
            json!({ "aliases": [] }),
        ),
        ("6", "m.room.aliases", json!({ "aliases": [] }), json!({})),
        (
            "7",
            "m.room.join_rules",
            json!({ "join_rule": "public", "allow": [] }),
            json!({ "join_rule": "public" }),
        ),
        (
            "8",
            "m.room.join_rules",
            json!({ "join_rule": "public", "allow": [] }),
            json!({ "join_rule": "public", "allow": [] }),
        ),
        (
            "10",
            "m.room.power_levels",
            json!({ "invite": 1, "ban": 2 }),
            json!({ "ban": 2 }),
        ),
        (
            "11",
            "m.room.power_levels",
            json!({ "invite": 1, "ban": 2 }),
            json!({ "invite": 1, "ban": 2 }),
        ),
        ("11", "m.room.create", json!({ "x": 1 }), json!({ "x": 1 })),
    ];
    for (version, kind, content, left) in cases {
        let at = placement(version);
        let pdu = build(draft(kind, Some("a"), content), &at, &signer).unwrap();
        let emptied = redact(&pdu, &at.rules).unwrap();
        assert_eq!(
            emptied.content_as::<Value>().unwrap(),
            left,
            "{version} {kind}"
        );
        assert_eq!(emptied.event_id, pdu.event_id);
        if version != "1" {
            let again = check(emptied.bytes(), &at.rules, &keys).unwrap().into_pdu();
            assert_eq!(again.event_id, pdu.event_id, "{version} {kind}");
        }
    }
}

#[test]
fn clients_get_the_allowed_fields_only() {
    let rules = rules("10");
    let event = json!({
        "type": "m.room.topic", "state_key": "", "sender": "@b:b", "room_id": "!r:a", "origin_server_ts": 5, "depth": 3,
        "prev_events": ["$p"], "auth_events": [], "hashes": {}, "signatures": {}, "evil": 1,
        "content": { "topic": "x" }, "unsigned": { "age": 1, "prev_content": { "topic": "forged" } },
    });
    let pdu = Pdu::parse(
        event.to_string().into(),
        &rules,
        Some(event_id!("$e").to_owned()),
    )
    .unwrap();
    let empty = to_raw_value(&json!({})).unwrap();
    let unsigned = Unsigned {
        age: Some(9),
        prev_content: Some(&empty),
        ..Unsigned::default()
    };
    let shown: Value =
        serde_json::from_str(client_json(&pdu, false, Some(&unsigned)).get()).unwrap();
    let expected = json!({
        "type": "m.room.topic", "state_key": "", "sender": "@b:b", "origin_server_ts": 5, "event_id": "$e",
        "content": { "topic": "x" }, "unsigned": { "age": 9, "prev_content": {} },
    });
    assert_eq!(shown, expected);
    let stripped: Value = serde_json::from_str(stripped_json(&pdu).get()).unwrap();
    let expected = json!({ "type": "m.room.topic", "state_key": "", "sender": "@b:b", "content": { "topic": "x" } });
    assert_eq!(stripped, expected);
}

#[test]
fn a_redactions_target_is_shown_in_both_places_in_every_version() {
    let (signer, ..) = key();
    for version in VERSIONS {
        let pdu = build(
            draft("m.room.redaction", None, json!({ "reason": "r" })),
            &placement(version),
            &signer,
        )
        .unwrap();
        let shown: Value = serde_json::from_str(client_json(&pdu, true, None).get()).unwrap();
        assert_eq!(shown["redacts"], "$target", "{version}");
        assert_eq!(
            shown["content"],
            json!({ "reason": "r", "redacts": "$target" }),
            "{version}"
        );
    }
}

#[test]
fn relations_and_replies_are_read_and_malformed_ones_are_none() {
    let (signer, ..) = key();
    let of = |state_key, relates_to: Value| {
        build(
            draft("m.x", state_key, json!({ "m.relates_to": relates_to })),
            &placement("11"),
            &signer,
        )
        .unwrap()
    };
    let thread = json!({
        "rel_type": "m.thread", "event_id": "$r", "is_falling_back": true, "m.in_reply_to": { "event_id": "$l" }
    });
    let relation = Relation::of(&of(None, thread.clone())).unwrap();
    assert_eq!(
        (relation.rel_type.as_str(), relation.is_falling_back),
        ("m.thread", true)
    );
    assert_eq!(in_reply_to(&of(None, thread.clone())).unwrap(), "$l");
    assert!(Relation::of(&of(Some(""), thread.clone())).is_none());
    assert!(in_reply_to(&of(Some(""), thread)).is_none());
    let reply = json!({ "m.in_reply_to": { "event_id": "$l" } });
    assert!(Relation::of(&of(None, reply.clone())).is_none());
    assert_eq!(in_reply_to(&of(None, reply)).unwrap(), "$l");
    for malformed in [
        json!(1),
        json!({ "rel_type": 1, "event_id": "$x" }),
        json!({ "rel_type": "m.x", "event_id": "x" }),
    ] {
        assert!(Relation::of(&of(None, malformed)).is_none());
    }
}

/// A room with two branches: what the versions' algorithms are run on.
struct Forked {
    rules: Arc<RoomVersionRules>,
    events: HashMap<OwnedEventId, Arc<Pdu>>,
    base: StateMap,
    signer: Signer,
}

impl Forked {
    fn new(version: &str) -> Self {
        let (signer, ..) = key();
        let mut room = Self {
            rules: rules(version),
            events: HashMap::new(),
            base: StateMap::new(),
            signer,
        };
        let content = json!({ "creator": "@alice:a", "room_version": version });
        let steps = [
            ("@alice:a", "m.room.create", "", content),
            (
                "@alice:a",
                "m.room.member",
                "@alice:a",
                json!({ "membership": "join" }),
            ),
            (
                "@alice:a",
                "m.room.power_levels",
                "",
                json!({ "users": { "@bob:a": 50 }, "events_default": 0 }),
            ),
            (
                "@alice:a",
                "m.room.join_rules",
                "",
                json!({ "join_rule": "public" }),
            ),
            (
                "@bob:a",
                "m.room.member",
                "@bob:a",
                json!({ "membership": "join" }),
            ),
            (
                "@carol:a",
                "m.room.member",
                "@carol:a",
                json!({ "membership": "join" }),
            ),
        ];
        for (depth, (sender, kind, key, mut content)) in (1..).zip(steps) {
            if kind == "m.room.power_levels" && version != "12" {
                content["users"]["@alice:a"] = json!(100);
            }
            let state = room.base.clone();
            let base = room.add(&state, depth, sender, kind, key, content);
            room.base = base;
        }
        room
    }

    fn add(
        &mut self,
        state: &StateMap,
        depth: u64,
        sender: &str,
        kind: &str,
        key: &str,
        content: Value,
    ) -> StateMap {
        let sender = <&ruma::UserId>::try_from(sender).unwrap();
        let content = object(content);
        let auth =
            auth::auth_types(&kind.into(), sender, Some(key), &content, &self.rules).unwrap();
        let create = state
            .get(&(StateEventType::RoomCreate, String::new()))
            .and_then(|id| self.events.get(id));
        let room_id = match create {
            Some(create) => Some(create.room_id.clone()),
            None => self
                .rules
                .event_format
                .require_room_create_room_id
                .then(|| owned_room_id!("!r:a")),
        };
        let at = Placement {
            room_id,
            rules: Arc::clone(&self.rules),
            // The creator's own join is allowed by the create event alone, right before it.
            prev_events: match depth {
                1 => vec![],
                2 => state.values().cloned().collect(),
                _ => vec![event_id!("$before").to_owned()],
            },
            auth_events: auth
                .iter()
                .filter_map(|key| state.get(key).cloned())
                .collect(),
            depth,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new(1_000 + depth).unwrap()),
        };
        let draft = Draft {
            sender: sender.to_owned(),
            kind: kind.into(),
            state_key: Some(key.to_owned()),
            content,
            redacts: None,
        };
        let pdu = build(draft, &at, &self.signer).unwrap();
        auth::authorise(&self.rules, &pdu, |kind, key| self.at(state, kind, key)).unwrap();
        auth::check_auth_events(&self.rules, &pdu, |id| self.events.get(id).cloned()).unwrap();
        let mut after = state.clone();
        after.insert((kind.into(), key.to_owned()), pdu.event_id.clone());
        self.events.insert(pdu.event_id.clone(), Arc::new(pdu));
        after
    }

    fn at(&self, state: &StateMap, kind: &StateEventType, key: &str) -> Option<Arc<Pdu>> {
        self.events
            .get(state.get(&(kind.clone(), key.to_owned()))?)
            .cloned()
    }

    fn resolve(&self, states: &[StateMap]) -> StateMap {
        resolve(&self.rules, states, |id: &EventId| {
            self.events.get(id).cloned()
        })
        .unwrap()
    }
}

#[test]
fn a_ban_on_one_branch_beats_the_topic_of_the_banned_on_the_other() {
    for version in VERSIONS {
        let mut room = Forked::new(version);
        let base = room.base.clone();
        let banned = room.add(
            &base,
            7,
            "@alice:a",
            "m.room.member",
            "@bob:a",
            json!({ "membership": "ban" }),
        );
        let topic = room.add(
            &base,
            7,
            "@bob:a",
            "m.room.topic",
            "",
            json!({ "topic": "bob was here" }),
        );
        let other = room.add(
            &base,
            8,
            "@alice:a",
            "m.room.topic",
            "",
            json!({ "topic": "alice" }),
        );
        let mut alices = banned.clone();
        alices.extend(
            other
                .into_iter()
                .filter(|(key, _)| key.0 == StateEventType::RoomTopic),
        );
        let resolved = room.resolve(&[topic, alices.clone()]);
        assert_eq!(resolved, alices, "version {version}");
    }
}

#[test]
fn states_that_agree_come_out_as_they_went_in() {
    let room = Forked::new("11");
    assert_eq!(room.resolve(&[]), StateMap::new());
    assert_eq!(
        room.resolve(&[room.base.clone(), room.base.clone()]),
        room.base
    );
}

#[test]
fn in_version_1_the_deepest_allowed_event_wins() {
    let mut room = Forked::new("1");
    let base = room.base.clone();
    let low = room.add(
        &base,
        7,
        "@alice:a",
        "m.room.name",
        "",
        json!({ "name": "low" }),
    );
    let deep = room.add(
        &base,
        9,
        "@bob:a",
        "m.room.name",
        "",
        json!({ "name": "deep" }),
    );
    assert_eq!(room.resolve(&[low.clone(), deep.clone()]), deep);
    let demoted = json!({ "users": { "@alice:a": 100 } });
    let demoting = room.add(&low, 8, "@alice:a", "m.room.power_levels", "", demoted);
    assert_eq!(room.resolve(&[demoting.clone(), deep]), demoting);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_order_of_the_states_gives_the_same_state(
        version in prop::sample::select(&VERSIONS[..]),
        steps in prop::collection::vec((0_usize..3, 0_usize..6, 7_u64..12), 1..10),
        turn in 0_usize..3,
    ) {
        let mut room = Forked::new(version);
        let mut branches = vec![room.base.clone(); 3];
        for (branch, what, depth) in steps {
            let state = branches[branch].clone();
            let levels = if version == "12" { json!({ "@bob:a": depth }) } else { json!({ "@alice:a": 100, "@bob:a": depth }) };
            let (kind, key, content) = match what {
                0 => ("m.room.power_levels", "", json!({ "users": levels })),
                1 => ("m.room.join_rules", "", json!({ "join_rule": if depth % 2 == 0 { "invite" } else { "public" } })),
                2 => ("m.room.member", "@bob:a", json!({ "membership": "ban" })),
                3 => ("m.room.member", "@carol:a", json!({ "membership": "leave" })),
                4 => ("m.room.topic", "", json!({ "topic": depth })),
                _ => ("m.room.name", "", json!({ "name": depth })),
            };
            branches[branch] = room.add(&state, depth, "@alice:a", kind, key, content);
        }
        let resolved = room.resolve(&branches);
        branches.rotate_left(turn);
        prop_assert_eq!(&room.resolve(&branches), &resolved);
        branches.swap(0, 1);
        prop_assert_eq!(&room.resolve(&branches), &resolved);
    }
}

#[test]
fn strangers_cannot_speak() {
    let room = Forked::new("11");
    let mut at = placement("11");
    at.room_id = Some(owned_room_id!("!r:a"));
    let mut message = draft("m.room.message", None, json!({ "body": "x" }));
    message.sender = user_id!("@dave:a").to_owned();
    let pdu = build(message, &at, &room.signer).unwrap();
    assert!(
        auth::authorise(&room.rules, &pdu, |kind, key| room
            .at(&room.base, kind, key))
        .is_err()
    );
}
