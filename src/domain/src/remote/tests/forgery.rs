//! Keys and signatures: what must not be believed.

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedServerSigningKeyId,
    RoomVersionId, UInt, events::TimelineEventType, owned_room_id, owned_user_id, server_name,
    signatures::Verified,
};
use serde_json::json;
use vatra_store::{Direction, Range};

use super::world::{self, Net, Server, json as answer, signer};
use crate::{
    clock::{Clock, ManualClock, to_ruma},
    event::{
        build::{Draft, Placement, build},
        signer::Signer,
    },
    remote::KeyError,
    schema,
};

const NOW: u64 = 1_700_000_000_000;
const DAY: u64 = 24 * 3_600_000;

fn key(version: &str) -> OwnedServerSigningKeyId {
    format!("ed25519:{version}").try_into().unwrap()
}

fn at(millis: u64) -> MilliSecondsSinceUnixEpoch {
    to_ruma(millis)
}

/// Whether `server` takes b's key `k1` for something signed at a time.
async fn has_key(server: &Server, millis: u64) -> bool {
    let wanted = [(server_name!("b.example").to_owned(), key("k1"))];
    !server.keys.verifying(&wanted, at(millis)).await.is_empty()
}

/// What b would publish, before it is signed.
fn document(signer: &Signer, valid_until: u64) -> CanonicalJsonObject {
    let public = ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(signer.public_key());
    let document = json!({
        "server_name": signer.server_name(),
        "valid_until_ts": valid_until,
        "verify_keys": { signer.key_id(): { "key": public } },
        "old_verify_keys": {},
    });
    serde_json::from_value(document).unwrap()
}

fn signed(mut object: CanonicalJsonObject, by: &Signer) -> CanonicalJsonObject {
    by.sign_json(&mut object).unwrap();
    object
}

fn with(
    mut object: CanonicalJsonObject,
    name: &str,
    value: serde_json::Value,
) -> CanonicalJsonObject {
    object.insert(
        name.to_owned(),
        CanonicalJsonValue::try_from(value).unwrap(),
    );
    object
}

fn serve(net: &Net, server: &str, document: CanonicalJsonObject) {
    net.set(server, move |_| {
        let response = answer(&document);
        Box::pin(async move { response })
    });
}

#[tokio::test]
async fn a_document_is_believed_only_if_its_own_server_signed_it_with_a_key_in_it() {
    let clock = ManualClock::new(NOW);
    let (b, mallory) = (signer("b.example", "k1"), signer("mallory.example", "k1"));
    // b's name, another key.
    let other = signer("b.example", "k2");
    let good = document(&b, NOW + DAY);
    let forged = [
        ("not signed", good.clone()),
        ("signed by another server", signed(good.clone(), &mallory)),
        (
            "signed with a key that is not listed",
            signed(good.clone(), &other),
        ),
        (
            "changed after it was signed",
            with(
                signed(good.clone(), &b),
                "valid_until_ts",
                json!(NOW + 2 * DAY),
            ),
        ),
        (
            "of another server",
            signed(document(&mallory, NOW + DAY), &mallory),
        ),
        (
            "with a key that is none",
            signed(
                with(
                    good.clone(),
                    "verify_keys",
                    json!({ "ed25519:k1": { "key": "AAAA" } }),
                ),
                &b,
            ),
        ),
        (
            "too large",
            signed(with(good.clone(), "x", json!("x".repeat(70_000))), &b),
        ),
        ("signed with a retired key", {
            let mut whole = serde_json::to_value(&good).unwrap();
            let mut key = whole["verify_keys"]["ed25519:k1"].take();
            key["expired_ts"] = json!(NOW);
            whole["verify_keys"] = json!({});
            whole["old_verify_keys"] = json!({ "ed25519:k1": key });
            signed(serde_json::from_value(whole).unwrap(), &b)
        }),
    ];
    for (what, document) in forged {
        let net = Net::default();
        let a = Server::new(&net, &clock, "a.example").await;
        serve(&net, "b.example", document);
        assert!(!has_key(&a, NOW).await, "{what}");
        let view = a.store.view();
        let rows = view.range(
            &schema::SERVER_KEYS,
            Range::prefix(&("b.example".to_owned(),)),
            Direction::Forward,
            9,
        );
        assert!(rows.await.unwrap().is_empty(), "{what}");
    }
    let net = Net::default();
    let a = Server::new(&net, &clock, "a.example").await;
    serve(&net, "b.example", signed(good, &b));
    assert!(has_key(&a, NOW).await);
}

#[tokio::test]
async fn nobody_tells_a_server_its_own_keys() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let impostor = signer("a.example", "k9");
    serve(
        &net,
        "a.example",
        signed(document(&impostor, NOW + DAY), &impostor),
    );
    let wanted = [(a.name.clone(), key("k9"))];
    assert!(a.keys.verifying(&wanted, at(NOW)).await.is_empty());
    assert_eq!(net.count("a.example"), 0);
    let own = [(a.name.clone(), key("k1"))];
    assert_eq!(a.keys.verifying(&own, at(NOW)).await.len(), 1);
}

#[tokio::test]
async fn a_key_is_fetched_once_however_many_ask_and_kept_over_a_restart() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let b = Server::new(&net, &clock, "b.example").await;
    b.publish(&net);
    let many = futures::future::join_all((0..50).map(|_| has_key(&a, NOW))).await;
    assert!(many.into_iter().all(|has| has));
    assert_eq!(net.count("b.example"), 1);
    net.remove("b.example");
    let again = Server::on(&net, &clock, a.signer.clone(), &[], a.store.clone()).await;
    assert!(has_key(&again, NOW).await);
    // What is not there is not asked for again and again.
    let other = [(b.name.clone(), key("k7"))];
    for _ in 0..5 {
        assert!(again.keys.verifying(&other, at(NOW)).await.is_empty());
    }
    assert_eq!(net.count("b.example"), 2);
}

#[tokio::test]
async fn a_key_holds_as_long_as_its_server_says_and_a_week_at_most() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let b = signer("b.example", "k1");
    serve(
        &net,
        "b.example",
        signed(document(&b, NOW + 1000 * DAY), &b),
    );
    assert!(has_key(&a, NOW).await);
    net.remove("b.example");
    assert!(has_key(&a, NOW + 7 * DAY).await);
    assert!(
        !has_key(&a, NOW + 7 * DAY + 1).await,
        "a week has passed since it was said"
    );
    // Once the time has come, the server is asked again.
    clock.advance(8 * DAY);
    assert!(!has_key(&a, clock.now()).await);
    serve(
        &net,
        "b.example",
        signed(document(&b, clock.now() + DAY), &b),
    );
    clock.advance(60_000);
    assert!(has_key(&a, clock.now()).await);
    assert!(
        has_key(&a, NOW).await,
        "what held then still holds for then"
    );
}

#[tokio::test]
async fn a_replaced_key_of_this_server_checks_the_past_and_nothing_else() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let old = Server::new(&net, &clock, "b.example").await;
    clock.advance(DAY);
    let new = Server::on(
        &net,
        &clock,
        signer("b.example", "k2"),
        &[],
        old.store.clone(),
    )
    .await;
    new.publish(&net);
    let published = serde_json::to_value(new.keys.published().await.unwrap()).unwrap();
    let retired = &published["old_verify_keys"]["ed25519:k1"];
    assert_eq!(retired["expired_ts"], NOW + DAY);
    assert!(published["verify_keys"]["ed25519:k2"].is_object());
    assert!(has_key(&a, NOW).await, "an event of yesterday");
    assert!(!has_key(&a, clock.now() + 1).await, "a request of now");
    let new_key = [(new.name.clone(), key("k2"))];
    assert_eq!(a.keys.verifying(&new_key, at(clock.now())).await.len(), 1);
}

#[tokio::test]
async fn only_a_trusted_notary_speaks_for_a_server_that_is_gone() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let b = signer("b.example", "k1");
    let notary = Server::new(&net, &clock, "n.example").await;
    let speaks = |documents: Vec<CanonicalJsonObject>| {
        let keys = notary.keys.clone();
        net.set("n.example", move |request| {
            let (keys, documents) = (keys.clone(), documents.clone());
            Box::pin(async move {
                if request.uri().path().ends_with("/query") {
                    let body = serde_json::to_vec(&json!({ "server_keys": documents })).unwrap();
                    return http::Response::new(body.into());
                }
                world::json(&keys.published().await.unwrap())
            })
        });
    };
    let own = signed(document(&b, NOW + DAY), &b);
    let both = signed(own.clone(), &notary.signer);

    speaks(vec![both.clone()]);
    let trusting_nobody = Server::new(&net, &clock, "a.example").await;
    assert!(!has_key(&trusting_nobody, NOW).await);
    let trusting = || Server::with(&net, &clock, signer("a.example", "k1"), &["n.example"]);
    assert!(has_key(&trusting().await, NOW).await);

    speaks(vec![own]);
    assert!(
        !has_key(&trusting().await, NOW).await,
        "the notary has not signed it"
    );
    speaks(vec![signed(document(&b, NOW + DAY), &notary.signer)]);
    assert!(
        !has_key(&trusting().await, NOW).await,
        "the server has not signed it"
    );
    speaks(vec![signed(
        document(&notary.signer, NOW + DAY),
        &notary.signer,
    )]);
    assert!(
        !has_key(&trusting().await, NOW).await,
        "it is about another server"
    );
}

#[tokio::test]
async fn a_notary_signs_what_it_has_checked_and_nothing_else() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let notary = Server::new(&net, &clock, "n.example").await;
    let b = Server::new(&net, &clock, "b.example").await;
    b.publish(&net);
    let document = notary
        .keys
        .notarised(&b.name, &[], at(0))
        .await
        .unwrap()
        .unwrap();
    let signatures = document["signatures"].as_object().unwrap();
    assert!(signatures.contains_key("b.example") && signatures.contains_key("n.example"));
    net.remove("b.example");
    assert!(
        notary
            .keys
            .notarised(&b.name, &[], at(0))
            .await
            .unwrap()
            .is_some(),
        "as it was"
    );
    let forged = signer("c.example", "k1");
    serve(&net, "c.example", self::document(&forged, NOW + DAY));
    assert!(
        notary
            .keys
            .notarised(server_name!("c.example"), &[], at(0))
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        notary
            .keys
            .notarised(server_name!("gone.example"), &[], at(0))
            .await
            .unwrap()
            .is_none()
    );
}

/// A message of a user of b, made at a time.
fn message(signer: &Signer, version: &RoomVersionId, made: u64) -> CanonicalJsonObject {
    let draft = Draft {
        sender: owned_user_id!("@x:b.example"),
        kind: TimelineEventType::RoomMessage,
        state_key: None,
        content: serde_json::from_value(json!({ "body": "hello", "msgtype": "m.text" })).unwrap(),
        redacts: None,
    };
    let at = Placement {
        room_id: Some(owned_room_id!("!r:b.example")),
        rules: Arc::new(version.rules().unwrap()),
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 7,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new(made).unwrap()),
    };
    build(draft, &at, signer).unwrap().to_canonical().unwrap()
}

#[tokio::test]
async fn an_event_must_be_signed_by_its_senders_server_with_a_key_of_its_time() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let b = Server::new(&net, &clock, "b.example").await;
    b.publish(&net);
    let mallory = Server::new(&net, &clock, "mallory.example").await;
    mallory.publish(&net);
    for version in [
        RoomVersionId::V1,
        RoomVersionId::V4,
        RoomVersionId::V6,
        RoomVersionId::V11,
    ] {
        let rules = version.rules().unwrap();
        let check = async |event: &CanonicalJsonObject| a.keys.check_event(event, &rules).await;
        let good = message(&b.signer, &version, NOW);
        assert_eq!(check(&good).await.unwrap(), Verified::All);

        let changed = with(
            good.clone(),
            "content",
            json!({ "body": "bye", "msgtype": "m.text" }),
        );
        assert_eq!(
            check(&changed).await.unwrap(),
            Verified::Signatures,
            "{version}"
        );

        let deeper = with(good.clone(), "depth", json!(8));
        assert!(matches!(
            check(&deeper).await,
            Err(KeyError::BadSignature(_))
        ));
        // Another server speaks for b's user.
        let forged = message(&mallory.signer, &version, NOW);
        assert!(matches!(
            check(&forged).await,
            Err(KeyError::BadSignature(_))
        ));
        let impostor = signer("b.example", "k1");
        let forged = message(&impostor, &version, NOW);
        assert!(matches!(
            check(&forged).await,
            Err(KeyError::BadSignature(_))
        ));
        let unknown = message(&signer("b.example", "k5"), &version, NOW);
        assert!(matches!(check(&unknown).await, Err(KeyError::NoKey(_))));
        // Made when the key holds no more: from room version 5 on that counts.
        let late = message(&b.signer, &version, NOW + 3 * DAY);
        let outcome = check(&late).await;
        if rules.enforce_key_validity {
            assert!(
                matches!(outcome, Err(KeyError::NoKey(_))),
                "{version}: {outcome:?}"
            );
        } else {
            assert_eq!(outcome.unwrap(), Verified::All);
        }
    }
}

#[tokio::test]
async fn an_object_is_checked_for_one_server_whoever_else_has_signed_it() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let b = Server::new(&net, &clock, "b.example").await;
    b.publish(&net);
    let object: CanonicalJsonObject = serde_json::from_value(json!({ "x": 1 })).unwrap();
    let good = signed(
        signed(object.clone(), &b.signer),
        &signer("stranger.example", "k1"),
    );
    a.keys.verify_json(&b.name, &good, at(NOW)).await.unwrap();
    let changed = with(good, "x", json!(2));
    a.keys
        .verify_json(&b.name, &changed, at(NOW))
        .await
        .unwrap_err();
    let unsigned = signed(object, &signer("stranger.example", "k1"));
    a.keys
        .verify_json(&b.name, &unsigned, at(NOW))
        .await
        .unwrap_err();
}
