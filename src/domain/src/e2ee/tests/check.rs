//! What does not agree is found and mended.

use vatra_store::{Batch, Position};

use super::*;
use crate::{
    audit::Problem,
    schema::{BACKUPS, BackupRow, DEVICE_LIST_LOG, DEVICE_LISTS, KEY_STATES, ONE_TIME_KEYS},
};

impl World {
    async fn problems(&self, repair: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        let report = |problem| problems.push(problem);
        self.e2ee.check(repair, report).await.unwrap();
        problems
    }
}

async fn sound() -> (World, Device) {
    let world = world().await;
    let mut bob = world.user("bob").await;
    let mut upload = bob.everything(3);
    upload.fallback_keys = bob.fallback_key();
    world.upload(&bob, upload).await.unwrap();
    world.claim(&bob).await.unwrap();
    let new = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "abc" } });
    let new: NewBackup = serde_json::from_value(new).unwrap();
    world.e2ee.create_backup(bob.sid, &new).await.unwrap();
    let key = SessionData {
        first_message_index: 0,
        forwarded_count: 0,
        is_verified: true,
        session_data: raw(&json!({})),
    };
    let sessions = BTreeMap::from([("session".to_owned(), key)]);
    let room = ruma::room_id!("!r:test").to_owned();
    let rooms = BTreeMap::from([(room, RoomSessions { sessions })]);
    let put = world.e2ee.put_backup_keys(bob.sid, "1", &rooms);
    put.await.unwrap();
    assert_eq!(world.problems(false).await, []);
    (world, bob)
}

type Damage = (&'static str, fn(&Device, Position, &mut Batch));

#[tokio::test]
async fn damage_to_what_is_counted_is_found_and_mended() {
    let damages: &[Damage] = &[
        ("key_states", |bob, _, batch| {
            batch.delete(&KEY_STATES, &(bob.sid, bob.id.clone()));
        }),
        ("key_states", |bob, _, batch| {
            let wrong = KeyStateRow {
                one_time: vec![("signed_curve25519".to_owned(), 50)],
                ..KeyStateRow::default()
            };
            batch.put(&KEY_STATES, &(bob.sid, bob.id.clone()), &wrong);
        }),
        ("key_states", |bob, _, batch| {
            let algorithm = "signed_curve25519".to_owned();
            let id = "signed_curve25519:new".to_owned();
            let key = (bob.sid, bob.id.clone(), algorithm, Position(1), id);
            batch.put(&ONE_TIME_KEYS, &key, &"{}".to_owned());
        }),
        ("backups", |bob, _, batch| {
            let wrong = BackupRow {
                algorithm: "a".to_owned(),
                auth_data: "{}".to_owned(),
                etag: 7,
                count: 50,
                deleted: false,
            };
            batch.put(&BACKUPS, &(bob.sid, 1), &wrong);
        }),
        ("device_list_log", |bob, at, batch| {
            batch.delete(&DEVICE_LIST_LOG, &(at, bob.sid));
        }),
        ("device_lists", |bob, _, batch| {
            batch.delete(&DEVICE_LISTS, &bob.sid);
        }),
        ("device_lists", |bob, _, batch| {
            batch.put(&DEVICE_LISTS, &bob.sid, &Position(1));
        }),
    ];
    for (number, (map, damage)) in damages.iter().enumerate() {
        let (world, bob) = sound().await;
        let at = world.store.view().get(&DEVICE_LISTS, &bob.sid).await;
        let mut batch = Batch::new();
        damage(&bob, at.unwrap().unwrap(), &mut batch);
        world.store.write(batch).await.unwrap();
        let found = world.problems(true).await;
        let named = |problem: &Problem| problem.map() == Some(*map) && problem.is_derived();
        assert!(found.iter().any(named), "{number}: {found:?}");
        assert_eq!(world.problems(false).await, [], "{number}: mended");
    }
}
