//! Messages to devices.

use vatra_store::Position;

use super::*;

const NOTHING: [u64; 0] = [];

fn to(recipients: &[(&Device, Recipient)], content: &Value) -> Messages {
    let mut messages = Messages::new();
    for (device, recipient) in recipients {
        let of_user = messages.entry(device.user.clone()).or_default();
        of_user.insert(recipient.clone(), raw(content));
    }
    messages
}

fn only(device: &Device) -> (&Device, Recipient) {
    (device, Recipient::Device(device.id.clone()))
}

impl World {
    async fn send(&self, sender: &Device, txn: &str, messages: &Messages) -> Result<(), E2eeError> {
        let txn = SenderTxn {
            sid: sender.sid,
            device: &sender.id,
            id: txn,
        };
        let send = self.e2ee.send(&sender.user, Some(txn), "m.test", messages);
        send.await
    }

    /// What waits for a device after a position: the numbers in the messages, and where to go on.
    async fn read(&self, device: &Device, after: Position, limit: usize) -> (Vec<u64>, Position) {
        let view = self.store.view();
        let span = (after, view.watermark());
        let waiting = self
            .e2ee
            .waiting(&view, device.sid, &device.id, span, limit)
            .await
            .unwrap();
        let numbers = waiting.events.iter().map(|event| {
            let event = json_of(event);
            assert_eq!(event["type"], "m.test");
            event["content"]["number"].as_u64().unwrap()
        });
        (numbers.collect(), waiting.upto)
    }

    async fn acknowledge(&self, device: &Device, upto: Position) {
        self.e2ee
            .acknowledge(device.sid, &device.id, upto)
            .await
            .unwrap();
        // What was submitted before this is written when this is.
        self.store.write(vatra_store::Batch::new()).await.unwrap();
    }
}

#[tokio::test]
async fn messages_wait_in_order_until_they_are_acknowledged() {
    let world = world().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    for number in 0..5 {
        let messages = to(&[only(&bob)], &json!({ "number": number }));
        world
            .send(&alice, &number.to_string(), &messages)
            .await
            .unwrap();
    }
    let start = Position::ZERO;
    let (first, place) = world.read(&bob, start, 3).await;
    assert_eq!(first, [0, 1, 2]);
    assert_eq!(
        world.read(&bob, start, 3).await,
        (first, place),
        "the same again"
    );
    let (rest, end) = world.read(&bob, place, 3).await;
    assert_eq!(rest, [3, 4]);
    world.acknowledge(&bob, place).await;
    assert_eq!(
        world.read(&bob, start, 10).await.0,
        [3, 4],
        "the first three are gone"
    );
    world.acknowledge(&bob, end).await;
    assert_eq!(world.read(&bob, start, 10).await.0, NOTHING);
    world.acknowledge(&bob, end).await;
    let messages = to(&[only(&bob)], &json!({ "number": 9 }));
    world.send(&alice, "9", &messages).await.unwrap();
    assert_eq!(
        world.read(&bob, end, 10).await.0,
        [9],
        "and what comes is seen"
    );
}

#[tokio::test]
async fn a_message_to_all_devices_reaches_each_and_a_named_one_gets_its_own() {
    let world = world().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let second = world.device(bob.user.clone(), bob.sid).await;
    let mut messages = to(&[(&bob, Recipient::All)], &json!({ "number": 1 }));
    let named = to(&[only(&second)], &json!({ "number": 2 }));
    for (user, contents) in named {
        messages.entry(user).or_default().extend(contents);
    }
    let unknown = Recipient::Device("NONE".to_owned());
    messages
        .get_mut(&bob.user)
        .unwrap()
        .insert(unknown, raw(&json!({})));
    world.send(&alice, "1", &messages).await.unwrap();
    assert_eq!(world.read(&bob, Position::ZERO, 10).await.0, [1]);
    assert_eq!(world.read(&second, Position::ZERO, 10).await.0, [2]);
    assert_eq!(world.read(&alice, Position::ZERO, 10).await.0, NOTHING);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_repeated_transaction_sends_nothing_also_when_both_come_at_once() {
    let world = Arc::new(world().await);
    let (alice, bob) = (Arc::new(world.user("alice").await), world.user("bob").await);
    let messages = Arc::new(to(&[only(&bob)], &json!({ "number": 1 })));
    let sends: Vec<_> = (0..10)
        .map(|_| {
            let (world, alice) = (Arc::clone(&world), Arc::clone(&alice));
            let messages = Arc::clone(&messages);
            tokio::spawn(async move { world.send(&alice, "same", &messages).await })
        })
        .collect();
    for send in sends {
        send.await.unwrap().unwrap();
    }
    assert_eq!(world.read(&bob, Position::ZERO, 10).await.0, [1]);
    let other = world.device(alice.user.clone(), alice.sid).await;
    world.send(&other, "same", &messages).await.unwrap();
    let seen = world.read(&bob, Position::ZERO, 10).await.0;
    assert_eq!(seen, [1, 1], "another device has transactions of its own");
}

#[tokio::test]
async fn a_large_sending_arrives_whole() {
    let world = world().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut devices = vec![world.device(bob.user.clone(), bob.sid).await];
    for _ in 0..100 {
        devices.push(world.device(bob.user.clone(), bob.sid).await);
    }
    let content = json!({ "number": 1, "filling": "x".repeat(60 << 10) });
    let messages = to(&[(&bob, Recipient::All)], &content);
    world.send(&alice, "1", &messages).await.unwrap();
    world.send(&alice, "1", &messages).await.unwrap();
    for device in &devices {
        assert_eq!(world.read(device, Position::ZERO, 10).await.0, [1]);
    }
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_nobody_gets_any_of_it() {
    let world = world().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let carol = world.user("carol").await;
    for (number, bad) in [
        json!("text"),
        json!([]),
        json!({ "number": 1, "filling": "x".repeat(MAX_MESSAGE) }),
    ]
    .into_iter()
    .enumerate()
    {
        let mut messages = to(&[only(&bob)], &json!({ "number": 1 }));
        messages.extend(to(&[only(&carol)], &bad));
        let refused = world.send(&alice, &number.to_string(), &messages).await;
        assert!(refused.is_err(), "{number}");
    }
    assert_eq!(world.read(&bob, Position::ZERO, 10).await.0, NOTHING);
    let messages = to(&[only(&bob)], &json!({ "number": 1 }));
    let long = "t".repeat(MAX_ID + 1);
    assert!(world.send(&alice, &long, &messages).await.is_err());
}

#[tokio::test]
async fn a_device_that_goes_takes_its_messages_along() {
    let world = world().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let messages = to(&[only(&bob)], &json!({ "number": 1 }));
    world.send(&alice, "1", &messages).await.unwrap();
    world.users.logout(bob.sid, &bob.id).await.unwrap();
    let login = Login {
        device: Some(bob.id.clone().into()),
        ..Login::default()
    };
    world
        .users
        .login(bob.user.clone(), bob.sid, login)
        .await
        .unwrap();
    assert_eq!(world.read(&bob, Position::ZERO, 10).await.0, NOTHING);
}

#[tokio::test]
async fn a_dehydrated_device_receives_for_its_user_and_is_replaced_whole() {
    let world = world().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let mut sleeping = Device {
        user: bob.user.clone(),
        sid: bob.sid,
        id: "SLEEPING".to_owned(),
        account: Account::new(),
    };
    let put = |device: &mut Device| {
        let new = json!({
            "device_id": device.id,
            "initial_device_display_name": "asleep",
            "device_data": { "algorithm": "m.test", "device_pickle": "encrypted" },
            "device_keys": device.keys(),
            "one_time_keys": device.one_time_keys(2),
            "fallback_keys": device.fallback_key(),
        });
        serde_json::from_value::<NewDehydrated>(new).unwrap()
    };
    let new = put(&mut sleeping);
    world
        .e2ee
        .put_dehydrated(&bob.user, bob.sid, new)
        .await
        .unwrap();
    assert!(world.claim(&sleeping).await.is_some());
    for number in 0..3 {
        let messages = to(&[only(&sleeping)], &json!({ "number": number }));
        world
            .send(&alice, &number.to_string(), &messages)
            .await
            .unwrap();
    }
    let read = async |device: &str, after| {
        let messages = world.e2ee.dehydrated_messages(bob.sid, device, after);
        messages.await.map(|page| (page.events.len(), page.upto))
    };
    let (count, place) = read("SLEEPING", Position::ZERO).await.unwrap();
    assert_eq!(count, 3);
    assert_eq!(read("SLEEPING", place).await.unwrap().0, 0);
    assert!(read(&bob.id, Position::ZERO).await.is_err());

    let mut next = Device {
        id: "NEXT".to_owned(),
        account: Account::new(),
        ..sleeping
    };
    let new = put(&mut next);
    world
        .e2ee
        .put_dehydrated(&bob.user, bob.sid, new)
        .await
        .unwrap();
    let devices = world.users.devices(bob.sid).await.unwrap();
    let mut ids: Vec<_> = devices.into_iter().map(|device| device.id).collect();
    ids.retain(|id| *id != bob.id);
    assert_eq!(ids, ["NEXT"]);
    let mut taken = put(&mut next);
    taken.device_id.clone_from(&bob.id);
    assert!(
        world
            .e2ee
            .put_dehydrated(&bob.user, bob.sid, taken)
            .await
            .is_err()
    );
    assert_eq!(world.e2ee.delete_dehydrated(bob.sid).await.unwrap(), "NEXT");
    assert!(world.e2ee.dehydrated(bob.sid).await.is_err());
    assert!(world.keys(&alice, &next).await.devices.is_empty());
}
