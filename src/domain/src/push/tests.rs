//! The default rules, held against events of many kinds.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ruma::{
    RoomVersionId, UserId, event_id,
    events::room::power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent},
    push::{NewPatternedPushRule, NewPushRule, RuleKind, Ruleset},
    user_id,
};
use serde_json::{Value, json};

use super::{Context, Outcome, defaults, evaluate};
use crate::event::pdu::Pdu;

fn event(kind: &str, state_key: Option<&str>, content: Value) -> Pdu {
    let mut event = json!({
        "type": kind, "sender": "@bob:a", "room_id": "!r:a", "origin_server_ts": 1, "depth": 3,
        "prev_events": [], "auth_events": [], "content": content,
    });
    if let Some(key) = state_key {
        event["state_key"] = json!(key);
    }
    let rules = RoomVersionId::V11.rules().unwrap();
    Pdu::parse(
        event.to_string().into(),
        &rules,
        Some(event_id!("$e").to_owned()),
    )
    .unwrap()
}

fn judge(ruleset: &Ruleset, pdu: &Pdu, member_count: u64, bob_level: i32) -> Outcome {
    let rules = RoomVersionId::V11.rules().unwrap().authorization;
    let mut content = RoomPowerLevelsEventContent::new(&rules);
    content
        .users
        .insert(user_id!("@bob:a").to_owned(), bob_level.into());
    let power = RoomPowerLevels::new(content.into(), &rules, None::<ruma::OwnedUserId>);
    evaluate(
        ruleset,
        pdu,
        &context(user_id!("@alice:a"), member_count, Some(power)),
    )
}

fn context(user: &UserId, members: u64, power: Option<RoomPowerLevels>) -> Context {
    Context {
        user: user.to_owned(),
        display_name: "Alice W*".to_owned(),
        members,
        power: power.map(std::sync::Arc::new),
        room: ruma::owned_room_id!("!r:a"),
    }
}

#[test]
fn the_default_rules_judge_every_kind_of_event() {
    let message = |more: Value| {
        let mut content = json!({ "msgtype": "m.text", "body": "hello" });
        content
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event("m.room.message", None, content)
    };
    // event, members, bob's level, notify, highlight, sound
    let cases = [
        (
            "a message in a large room",
            message(json!({})),
            9,
            0,
            true,
            false,
            false,
        ),
        (
            "a message in a room of two",
            message(json!({})),
            2,
            0,
            true,
            false,
            true,
        ),
        (
            "a notice",
            message(json!({ "msgtype": "m.notice" })),
            2,
            0,
            false,
            false,
            false,
        ),
        (
            "a mention",
            message(json!({ "m.mentions": { "user_ids": ["@alice:a"] } })),
            9,
            0,
            true,
            true,
            true,
        ),
        (
            "a mention of another",
            message(json!({ "m.mentions": { "user_ids": ["@carol:a"] } })),
            9,
            0,
            true,
            false,
            false,
        ),
        (
            "@room of an admin",
            message(json!({ "m.mentions": { "room": true } })),
            9,
            100,
            true,
            true,
            false,
        ),
        (
            "@room of nobody",
            message(json!({ "m.mentions": { "room": true } })),
            9,
            0,
            true,
            false,
            false,
        ),
        (
            "an edit",
            message(json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" } })),
            2,
            0,
            false,
            false,
            false,
        ),
        (
            "an encrypted message",
            event("m.room.encrypted", None, json!({})),
            9,
            0,
            true,
            false,
            false,
        ),
        (
            "a reaction",
            event("m.reaction", None, json!({})),
            2,
            0,
            false,
            false,
            false,
        ),
        (
            "a call",
            event("m.call.invite", None, json!({})),
            9,
            0,
            true,
            false,
            true,
        ),
        (
            "an invite to me",
            event(
                "m.room.member",
                Some("@alice:a"),
                json!({ "membership": "invite" }),
            ),
            9,
            0,
            true,
            false,
            true,
        ),
        (
            "an invite to another",
            event(
                "m.room.member",
                Some("@carol:a"),
                json!({ "membership": "invite" }),
            ),
            9,
            0,
            false,
            false,
            false,
        ),
        (
            "a tombstone",
            event("m.room.tombstone", Some(""), json!({})),
            9,
            0,
            true,
            true,
            false,
        ),
        (
            "a topic",
            event("m.room.topic", Some(""), json!({ "topic": "x" })),
            9,
            0,
            false,
            false,
            false,
        ),
    ];
    let ruleset = defaults(user_id!("@alice:a"));
    for (name, pdu, members, level, notify, highlight, sound) in cases {
        let outcome = judge(&ruleset, &pdu, members, level);
        let got = (outcome.notify, outcome.highlight, outcome.sound.is_some());
        assert_eq!(got, (notify, highlight, sound), "{name}: {outcome:?}");
    }
}

#[test]
fn a_poll_that_starts_or_ends_notifies_and_an_answer_does_not() {
    let ruleset = defaults(user_id!("@alice:a"));
    for (kind, members, notify, sound) in [
        ("start", 2, true, true),
        ("end", 2, true, true),
        ("start", 9, true, false),
        ("end", 9, true, false),
        ("response", 2, false, false),
    ] {
        let kind = format!("org.matrix.msc3381.poll.{kind}");
        let outcome = judge(&ruleset, &event(&kind, None, json!({})), members, 0);
        assert_eq!(
            (outcome.notify, outcome.sound.is_some()),
            (notify, sound),
            "{kind}"
        );
    }
}

#[test]
fn the_master_rule_silences_everything() {
    let mut ruleset = defaults(user_id!("@alice:a"));
    ruleset
        .set_enabled(RuleKind::Override, ".m.rule.master", true)
        .unwrap();
    let pdu = event(
        "m.room.message",
        None,
        json!({ "m.mentions": { "user_ids": ["@alice:a"] } }),
    );
    assert!(!judge(&ruleset, &pdu, 2, 0).notify);
}

#[test]
fn ones_own_events_do_not_notify() {
    let ruleset = defaults(user_id!("@bob:a"));
    let pdu = event("m.room.message", None, json!({ "body": "bob" }));
    assert_eq!(
        evaluate(&ruleset, &pdu, &context(user_id!("@bob:a"), 2, None)),
        Outcome::default()
    );
}

#[test]
fn a_keyword_is_found_as_a_word_of_the_body_only() {
    let mut ruleset = defaults(user_id!("@alice:a"));
    let rule = NewPatternedPushRule::new(
        "cake".into(),
        "cake".into(),
        vec![ruma::push::Action::Notify],
    );
    ruleset
        .insert(NewPushRule::Content(rule), None, None)
        .unwrap();
    let said = |body: &str| {
        judge(
            &ruleset,
            &event("m.room.message", None, json!({ "body": body })),
            9,
            0,
        )
        .rule_id
        .unwrap()
    };
    assert_eq!(said("eat CAKE now"), "cake");
    assert_eq!(said("pancakes"), ".m.rule.message");
}

#[test]
fn deeply_nested_content_is_judged_without_a_panic() {
    let deep = format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000));
    let text = format!(
        r#"{{"type":"m.room.message","sender":"@bob:a","room_id":"!r:a","origin_server_ts":1,"depth":3,"prev_events":[],"auth_events":[],"content":{{"x":{deep}}}}}"#
    );
    let rules = RoomVersionId::V11.rules().unwrap();
    let pdu = Pdu::parse(text.into(), &rules, Some(event_id!("$e").to_owned())).unwrap();
    assert!(judge(&defaults(user_id!("@alice:a")), &pdu, 9, 0).notify);
}

#[test]
fn mentions_are_guessed_from_the_text_where_the_event_names_none() {
    let ruleset = defaults(user_id!("@alice:a"));
    // body, bob's level, whether it is a highlight
    let cases = [
        ("are you there, Alice?", 0, true),
        ("@alice:a is away", 0, true),
        ("the malice of it", 0, false),
        ("ask Alice W* then", 0, true),
        ("@room dinner", 50, true),
        ("@room dinner", 0, false),
    ];
    for (body, level, highlight) in cases {
        let plain = event("m.room.message", None, json!({ "body": body }));
        assert_eq!(
            judge(&ruleset, &plain, 9, level).highlight,
            highlight,
            "{body}"
        );
        let says = json!({ "body": body, "m.mentions": {} });
        let says = event("m.room.message", None, says);
        assert!(!judge(&ruleset, &says, 9, level).highlight, "{body}");
    }
}
