//! A room whose events a policy server judges: p of the network, which signs all but spam.

use ruma::{OwnedRoomId, RoomVersionId, canonical_json};
use serde_json::{Value, json, value::RawValue};
use vodozemac::Ed25519SecretKey;

use super::world::{Net, Server};
use crate::{
    event::build::Draft,
    remote::RemoteError,
    rooms::{TxnKey, receive::ReceiveError},
    schema::Status,
    users::Requester,
};

fn key() -> Ed25519SecretKey {
    Ed25519SecretKey::from_slice(&[7; 32])
}

/// The answer of the policy server.
pub(super) fn sign(event: &RawValue) -> Result<Value, (u16, Value)> {
    if event.get().contains("spam") {
        return Err((400, json!({ "errcode": "M_FORBIDDEN", "error": "spam" })));
    }
    let event = serde_json::from_str(event.get()).unwrap();
    let rules = RoomVersionId::V10.rules().unwrap().redaction;
    let mut form = canonical_json::redact(event, &rules, None).unwrap();
    form.remove("signatures");
    form.remove("unsigned");
    let signature = key().sign(serde_json::to_string(&form).unwrap().as_bytes());
    Ok(json!({ "p": { "ed25519:policy_server": signature.to_base64() } }))
}

struct Scene {
    net: Net,
    a: Server,
    b: Server,
    p: Server,
    alice: Requester,
    bob: Requester,
    room: OwnedRoomId,
}

/// alice of a, bob of b, and pat of p, whose server judges from now on.
async fn scene() -> Scene {
    let net = Net::default();
    let (a, b, p) = (
        net.server("a").await,
        net.server("b").await,
        net.server("p").await,
    );
    let (alice, bob, pat) = (
        a.user("alice").await,
        b.user("bob").await,
        p.user("pat").await,
    );
    let room = a.room(&alice, "10").await;
    b.join(&bob, &room, &a).await.unwrap();
    p.join(&pat, &room, &a).await.unwrap();
    let member = ("m.room.member".to_owned(), pat.user.to_string());
    let joined = a.state(&room).await[&member].clone();
    assert_eq!(a.tell(&b, &room, &[joined]).await, [Ok(())]);
    let scene = Scene {
        net,
        a,
        b,
        p,
        alice,
        bob,
        room,
    };
    let key = key().public_key().to_base64();
    let named = scene
        .names(json!({ "via": "p", "public_keys": { "ed25519": key } }))
        .await;
    assert_eq!(
        scene.a.tell(&scene.b, &scene.room, &[named]).await,
        [Ok(())]
    );
    scene
}

impl Scene {
    async fn names(&self, content: Value) -> ruma::OwnedEventId {
        self.a.clock.advance(10);
        let draft = draft(&self.alice, "m.room.policy", Some(""), content);
        self.a
            .receiver
            .send_one(&self.room, draft, None)
            .await
            .unwrap()
    }

    async fn says(
        &self,
        text: &str,
        txn: Option<TxnKey>,
    ) -> Result<ruma::OwnedEventId, ReceiveError> {
        self.a.clock.advance(10);
        let draft = draft(&self.alice, "m.room.message", None, json!({ "body": text }));
        self.a.receiver.send_one(&self.room, draft, txn).await
    }

    /// bob's server asks nobody.
    async fn bob_says(&self, text: &str) -> ruma::OwnedEventId {
        self.b.clock.advance(10);
        let draft = draft(&self.bob, "m.room.message", None, json!({ "body": text }));
        let mut guard = self.b.rooms.lock(&self.room).await.unwrap();
        let sent = self.b.rooms.send(&mut guard, draft, None).await.unwrap();
        drop(guard);
        sent.durable().await.unwrap()
    }
}

fn draft(by: &Requester, kind: &str, key: Option<&str>, content: Value) -> Draft {
    Draft {
        sender: by.user.clone(),
        kind: kind.into(),
        state_key: key.map(str::to_owned),
        content: serde_json::from_value(content).unwrap(),
        redacts: None,
    }
}

#[tokio::test]
async fn what_is_sent_here_carries_the_signature_or_is_not_sent() {
    let scene = scene().await;
    let txn = TxnKey {
        user: scene.alice.sid,
        device: "D".to_owned(),
        endpoint: "send".to_owned(),
        id: "1".to_owned(),
    };
    let id = scene.says("hello", Some(txn.clone())).await.unwrap();
    let again = scene.says("hello", Some(txn)).await.unwrap();
    assert_eq!(id, again, "a repeated transaction");
    let sent = scene.a.event(&scene.room, &id).await.unwrap();
    assert!(String::from_utf8_lossy(sent.pdu.bytes()).contains("ed25519:policy_server"));
    assert_eq!(sent.pdu.event_id, id, "no signature changes an event's id");
    assert_eq!(scene.a.tell(&scene.b, &scene.room, &[id]).await, [Ok(())]);

    let refused = scene.says("spam", None).await;
    assert!(
        matches!(refused, Err(ReceiveError::Policy(RemoteError::Answered(_)))),
        "{refused:?}"
    );
    assert_eq!(scene.a.heard(&scene.room).await, ["hello"]);
    assert_eq!(scene.b.heard(&scene.room).await, ["hello"]);
    // State is judged as well.
    let topic = draft(
        &scene.alice,
        "m.room.topic",
        Some(""),
        json!({ "topic": "spam" }),
    );
    assert!(
        scene
            .a
            .receiver
            .send_one(&scene.room, topic, None)
            .await
            .is_err()
    );
    // Nobody is asked where the policy server cannot be reached.
    scene.net.cut(&scene.a, &scene.p);
    assert!(scene.says("unheard", None).await.is_err());
    // But it can be dismissed.
    scene.names(json!({})).await;
    scene.says("spam again", None).await.unwrap();
    assert_eq!(scene.a.heard(&scene.room).await, ["hello", "spam again"]);
    scene.a.is_sound().await;
}

#[tokio::test]
async fn what_comes_without_a_signature_is_asked_for_and_shown_only_with_it() {
    let scene = scene().await;
    let (good, bad) = (scene.bob_says("hello").await, scene.bob_says("spam").await);
    assert_eq!(
        scene
            .b
            .tell(&scene.a, &scene.room, &[good.clone(), bad.clone()])
            .await,
        [Ok(()), Ok(())]
    );
    assert_eq!(scene.a.heard(&scene.room).await, ["hello"]);
    assert_eq!(
        scene.a.event(&scene.room, &bad).await.unwrap().status,
        Status::SoftFailed
    );
    let taken = scene.a.event(&scene.room, &good).await.unwrap();
    assert!(String::from_utf8_lossy(taken.pdu.bytes()).contains("ed25519:policy_server"));
    // What follows it is judged for itself.
    let next = scene.bob_says("again").await;
    assert_eq!(scene.b.tell(&scene.a, &scene.room, &[next]).await, [Ok(())]);
    assert_eq!(scene.a.heard(&scene.room).await, ["hello", "again"]);
    scene.a.is_sound().await;
}

#[tokio::test]
async fn a_policy_server_that_has_left_or_has_another_key_does_not_judge_or_is_not_believed() {
    let scene = scene().await;
    let other = Ed25519SecretKey::from_slice(&[8; 32])
        .public_key()
        .to_base64();
    scene
        .names(json!({ "via": "p", "public_keys": { "ed25519": other } }))
        .await;
    let refused = scene.says("hello", None).await;
    assert!(
        matches!(
            refused,
            Err(ReceiveError::Policy(RemoteError::Unreadable(_)))
        ),
        "{refused:?}"
    );
    // A key in the other alphabet is the same key; one that is none names nobody.
    let key = key()
        .public_key()
        .to_base64()
        .replace('+', "-")
        .replace('/', "_");
    scene
        .names(json!({ "via": "p", "public_keys": { "ed25519": key } }))
        .await;
    scene.says("judged", None).await.unwrap();
    scene
        .names(json!({ "via": "p", "public_keys": { "ed25519": "short" } }))
        .await;
    scene.says("spam", None).await.unwrap();
    scene
        .names(json!({ "via": "q", "public_keys": { "ed25519": key } }))
        .await;
    scene.says("spam 2", None).await.unwrap();
    assert_eq!(
        scene.a.heard(&scene.room).await,
        ["judged", "spam", "spam 2"]
    );
}
