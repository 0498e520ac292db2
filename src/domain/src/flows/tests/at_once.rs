//! What is done at once on one server, and what is left of that which fails.

use futures::future::join_all;
use ruma::{
    RoomVersionId, api::client::room::create_room::v3::Request, push::NewConditionalPushRule,
    serde::Raw,
};
use serde_json::{json, value::to_raw_value};
use vatra_store::{Direction, Range};

use super::world::Net;
use crate::{
    flows::{FlowError, create_room::create_room},
    rooms::Rooms,
    schema::{ALIASES, ROOM_ALIASES, ROOM_HEADS},
};

async fn rows(rooms: &Rooms) -> (usize, usize, usize) {
    let (view, all) = (rooms.store().view(), Range::all);
    let heads = view
        .range(&ROOM_HEADS, all(), Direction::Forward, 100)
        .await
        .unwrap();
    let aliases = view
        .range(&ALIASES, all(), Direction::Forward, 100)
        .await
        .unwrap();
    let by_room = view
        .range(&ROOM_ALIASES, all(), Direction::Forward, 100)
        .await
        .unwrap();
    (heads.len(), aliases.len(), by_room.len())
}

#[tokio::test]
async fn who_loses_a_race_for_an_alias_makes_no_room() {
    let server = Net::default().server("test").await;
    let alice = server.user("alice").await;
    let (users, receiver, rooms) = (server.users, server.receiver, server.rooms);
    let calls = (0..8).map(|_| {
        let mut request = Request::new();
        request.room_alias_name = Some("tea".to_owned());
        create_room(&users, &receiver, &alice, request, &RoomVersionId::V12)
    });
    let (made, refused): (Vec<_>, Vec<_>) =
        join_all(calls).await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    for error in refused.into_iter().map(Result::unwrap_err) {
        assert!(matches!(error, FlowError::AliasTaken), "{error:?}");
    }
    assert_eq!(
        rows(&rooms).await,
        (1, 1, 1),
        "rooms, aliases, aliases by room"
    );
}

#[tokio::test]
async fn a_room_that_cannot_be_finished_gives_its_alias_back() {
    let server = Net::default().server("test").await;
    let alice = server.user("alice").await;
    let (users, receiver, rooms) = (server.users, server.receiver, server.rooms);
    let mut request = Request::new();
    request.room_alias_name = Some("tea".to_owned());
    let mut bad = request.clone();
    // In version 12 a creator has no place in the power levels.
    let levels = to_raw_value(&json!({ "users": { "@alice:test": 100 } })).unwrap();
    bad.power_level_content_override = Some(Raw::from_json(levels));
    create_room(&users, &receiver, &alice, bad, &RoomVersionId::V12)
        .await
        .unwrap_err();
    let (_, aliases, by_room) = rows(&rooms).await;
    assert_eq!((aliases, by_room), (0, 0));
    create_room(&users, &receiver, &alice, request, &RoomVersionId::V12)
        .await
        .unwrap();
}

#[tokio::test]
async fn of_push_rules_changed_at_once_none_is_lost() {
    let server = Net::default().server("test").await;
    let alice = server.user("alice").await;
    let users = server.users;
    let calls = (0..8).map(|number| {
        let users = users.clone();
        async move {
            let rule = NewConditionalPushRule::new(format!("rule{number}"), vec![], vec![]);
            let add = |rules: &mut ruma::push::Ruleset| {
                rules.insert(ruma::push::NewPushRule::Override(rule.clone()), None, None)
            };
            users
                .change_push_rules(alice.sid, add)
                .await
                .unwrap()
                .unwrap();
        }
    });
    join_all(calls).await;
    let rules = users.push_rules(alice.sid).await.unwrap();
    for number in 0..8 {
        let id = format!("rule{number}");
        assert!(
            rules.get(ruma::push::RuleKind::Override, &id).is_some(),
            "{id}"
        );
    }
    assert_eq!(
        users
            .check(false, |problem| panic!("{problem}"))
            .await
            .unwrap(),
        0
    );
}
