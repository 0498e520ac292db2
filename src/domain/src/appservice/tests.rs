//! What is a service's, and what no registration may say.

#![allow(clippy::unwrap_used)]
use ruma::{room_alias_id, room_id, server_name, user_id};

use super::{
    Duplicate, Exclusive, Service, Services,
    namespace::Namespace,
    registration::{Registration, Rule},
};

fn rule(regex: &str, exclusive: bool) -> Rule {
    Rule {
        regex: regex.to_owned(),
        exclusive,
    }
}

fn irc() -> Registration {
    Registration {
        id: "irc".to_owned(),
        url: Some("http://127.0.0.1:9000/".to_owned()),
        as_token: "as_token_of_irc_0".to_owned(),
        hs_token: "hs_token_of_irc_0".to_owned(),
        sender_localpart: "_irc_bot".to_owned(),
        users: vec![rule("@_irc_.*", true), rule("@guest-[0-9]+:h", false)],
        aliases: vec![rule("#_irc_.*", true)],
        rooms: vec![rule("!watched:.*", false)],
        ..Registration::default()
    }
}

fn made(registration: Registration) -> Service {
    registration.register(server_name!("h")).unwrap()
}

#[test]
fn a_namespace_holds_whole_names_only() {
    let mut names = Namespace::default();
    names.add("@a|@ab", true).unwrap();
    names.add("@c.*", false).unwrap();
    for (name, holds, alone) in [
        ("@a", true, true),
        ("@ab", true, true),
        ("@abc", false, false),
        ("x@a", false, false),
        ("@cd:h", true, false),
    ] {
        assert_eq!(
            (names.holds(name), names.holds_alone(name)),
            (holds, alone),
            "{name}"
        );
    }
    for bad in [
        "(",
        ")(",
        "a)|(b",
        "(?=a)",
        r"(a)\1",
        "((((a{100}){100}){100}){100})",
    ] {
        assert!(names.add(bad, true).is_err(), "{bad}");
    }
    assert!(names.add(&"a".repeat(1_001), true).is_err());
}

#[test]
fn users_of_other_servers_are_nobodys() {
    let service = made(irc());
    assert!(service.has_user(user_id!("@_irc_bot:h")));
    assert!(service.has_user(user_id!("@_irc_x:h")));
    assert!(service.has_user(user_id!("@guest-1:h")));
    assert!(!service.has_user(user_id!("@_irc_x:elsewhere")));
    assert!(!service.has_user(user_id!("@alice:h")));
    assert!(service.has_alias(room_alias_id!("#_irc_x:h")));
    assert!(service.has_room(room_id!("!watched:elsewhere")));
    assert!(!service.has_room(room_id!("!other:h")));
    assert_eq!(service.url.as_deref(), Some("http://127.0.0.1:9000"));
    assert!(service.rate_limited, "unless it says otherwise");
}

#[test]
fn an_exclusive_name_is_its_services_alone() {
    let other = Registration {
        id: "xmpp".to_owned(),
        as_token: "as_token_of_xmpp_0".to_owned(),
        sender_localpart: "xmpp".to_owned(),
        users: vec![rule("@_.*", false), rule("@guest-.*", false)],
        aliases: Vec::new(),
        ..irc()
    };
    let services = Services::new(vec![made(irc()), made(other)]).unwrap();
    let by = |token: &str| services.by_token(token).cloned();
    let (irc, xmpp) = (by("as_token_of_irc_0"), by("as_token_of_xmpp_0"));
    assert!(irc.is_some() && xmpp.is_some() && by("hs_token_of_irc_0").is_none());
    let user = |by: &Option<std::sync::Arc<Service>>, user| {
        services.check_user(by.as_deref(), <&ruma::UserId>::try_from(user).unwrap())
    };
    assert_eq!(user(&irc, "@_irc_x:h"), Ok(()));
    assert_eq!(user(&xmpp, "@_irc_x:h"), Err(Exclusive::Taken));
    assert_eq!(user(&None, "@_irc_x:h"), Err(Exclusive::Taken));
    assert_eq!(user(&None, "@_irc_bot:h"), Err(Exclusive::Taken));
    assert_eq!(user(&irc, "@alice:h"), Err(Exclusive::Outside));
    assert_eq!(user(&None, "@alice:h"), Ok(()));
    // What is not exclusive, everyone may take.
    assert_eq!(user(&None, "@guest-1:h"), Ok(()));
    assert_eq!(user(&irc, "@guest-1:h"), Ok(()));
    assert_eq!(user(&xmpp, "@guest-1:h"), Ok(()));
    let alias = room_alias_id!("#_irc_x:h");
    assert_eq!(services.check_alias(irc.as_deref(), alias), Ok(()));
    assert_eq!(
        services.check_alias(xmpp.as_deref(), alias),
        Err(Exclusive::Outside)
    );
    assert_eq!(services.check_alias(None, alias), Err(Exclusive::Taken));
    assert_eq!(services.check_alias(None, room_alias_id!("#x:h")), Ok(()));
}

#[test]
fn two_services_are_not_one() {
    let same = |change: fn(&mut Registration)| {
        let mut other = Registration {
            id: "other".to_owned(),
            as_token: "another_token_0123".to_owned(),
            sender_localpart: "other".to_owned(),
            ..irc()
        };
        change(&mut other);
        Services::new(vec![made(irc()), made(other)]).map(|_| ())
    };
    let duplicate = |key| {
        Err(Duplicate {
            key,
            places: (0, 1),
        })
    };
    assert_eq!(same(|_| {}), Ok(()));
    assert_eq!(same(|it| it.id = irc().id), duplicate("id"));
    assert_eq!(
        same(|it| it.as_token = irc().as_token),
        duplicate("as_token")
    );
    assert_eq!(
        same(|it| it.sender_localpart = irc().sender_localpart),
        duplicate("sender_localpart")
    );
}

#[test]
fn a_registration_that_makes_no_sense_is_refused_by_its_key() {
    type Change = fn(&mut Registration);
    let faults: [(&str, Change); 14] = [
        ("id", |it| it.id.clear()),
        ("id", |it| it.id = "x".repeat(256)),
        ("as_token", |it| it.as_token = "short".to_owned()),
        ("as_token", |it| {
            it.as_token = "has spaces in it, and is long".to_owned()
        }),
        ("hs_token", |it| it.hs_token = "\u{e4}".repeat(20)),
        ("hs_token", |it| it.hs_token = it.as_token.clone()),
        ("sender_localpart", |it| {
            it.sender_localpart = "Bot".to_owned()
        }),
        ("sender_localpart", |it| it.sender_localpart.clear()),
        ("sender_localpart", |it| {
            it.sender_localpart = "x".repeat(255)
        }),
        ("url", |it| it.url = Some("ftp://h".to_owned())),
        ("url", |it| it.url = Some("localhost:9000".to_owned())),
        ("url", |it| it.url = Some("http://a:b@h/?x".to_owned())),
        ("namespaces.aliases[1].regex", |it| {
            it.aliases.push(rule("(", true))
        }),
        ("protocols", |it| it.protocols = vec![String::new()]),
    ];
    for (key, change) in faults {
        let mut registration = irc();
        change(&mut registration);
        let fault = registration.register(server_name!("h")).unwrap_err();
        assert_eq!(fault.key, key, "{fault}");
    }
    let mut many = irc();
    many.rooms = vec![rule("!a", false); 101];
    let fault = many.register(server_name!("h")).unwrap_err();
    assert_eq!(fault.key, "namespaces.rooms[100].regex");
}

#[test]
fn a_fingerprint_tells_of_other_users_only() {
    let before = *made(irc()).fingerprint();
    let mut other = irc();
    other.url = None;
    other.aliases.clear();
    assert_eq!(*made(other).fingerprint(), before);
    let mut other = irc();
    other.users.pop();
    assert_ne!(*made(other).fingerprint(), before);
}
