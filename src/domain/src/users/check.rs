//! What `vatra check` asks of accounts: names, e-mail addresses, tokens and account data against the second rows that find them.

use ruma::UserId;
use serde_json::value::RawValue;

use super::Users;
use crate::{
    audit::{Audit, AuditError, PAGE, Pages, Problem},
    schema::{
        ACCOUNT_DATA, ACCOUNT_DATA_LOG, ACCOUNTS, DEVICE_TOKENS, EMAIL_OWNERS, EMAILS, IDENTITIES,
        PUSHER_STATES, PUSHERS, PusherStateRow, TAKEN_NAMES, TOKENS, USER_IDENTITIES, USER_IDS,
        UserSid,
    },
};

impl Users {
    /// Reads tokens and account data and reports what does not agree; `repair` writes derived rows anew. Gives the number of
    /// problems.
    ///
    /// # Errors
    /// If the store cannot be read, or does not take a repair.
    pub async fn check(
        &self,
        repair: bool,
        mut report: impl FnMut(Problem) + Send,
    ) -> Result<u64, AuditError> {
        let mut audit = Audit::new(self.inner.store.clone(), repair, &mut report);
        names(&mut audit).await?;
        emails(&mut audit).await?;
        identities(&mut audit).await?;
        tokens(&mut audit).await?;
        account_data(&mut audit).await?;
        pushers(&mut audit).await?;
        Ok(audit.problems())
    }
}

/// An account's name is taken, and no other.
async fn names(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&ACCOUNTS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let sids: Vec<UserSid> = page.iter().map(|(sid, _)| *sid).collect();
        let ids = Audit::read_many(&view, &USER_IDS, &sids).await?;
        let mut wanted = Vec::with_capacity(sids.len());
        for (sid, id) in sids.into_iter().zip(ids) {
            match id.map(UserId::parse) {
                Some(Ok(id)) => wanted.push((id.localpart().to_owned(), sid)),
                _ => audit.damaged(&USER_IDS, &sid, "has an account and no name"),
            }
        }
        audit.rows_are(&view, &TAKEN_NAMES, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&TAKEN_NAMES, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let sids: Vec<UserSid> = page.iter().map(|(_, sid)| *sid).collect();
        let accounts = Audit::read_many(&view, &ACCOUNTS, &sids).await?;
        let ids = Audit::read_many(&view, &USER_IDS, &sids).await?;
        for (((name, sid), account), id) in page.iter().zip(accounts).zip(ids) {
            let named = id
                .and_then(|id| UserId::parse(id).ok())
                .is_none_or(|id| id.localpart() == name);
            if account.is_none() || !named {
                audit.row_is(&TAKEN_NAMES, name, Some(sid), None);
            }
        }
    }
    Ok(())
}

/// An address that an account has is its own, and no other.
async fn emails(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&EMAILS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let wanted = page
            .into_iter()
            .map(|((user, address), _)| (address, user))
            .collect();
        audit.rows_are(&view, &EMAIL_OWNERS, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&EMAIL_OWNERS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let keys: Vec<_> = page
            .iter()
            .map(|(address, user)| (*user, address.clone()))
            .collect();
        let emails = Audit::read_many(&view, &EMAILS, &keys).await?;
        for ((address, user), email) in page.iter().zip(emails) {
            if email.is_none() {
                audit.row_is(&EMAIL_OWNERS, address, Some(user), None);
            }
        }
    }
    Ok(())
}

/// An identity's account has that identity, and no other.
async fn identities(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&IDENTITIES, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let wanted = page
            .into_iter()
            .map(|((provider, subject), user)| ((user, provider, subject), ()))
            .collect();
        audit.rows_are(&view, &USER_IDENTITIES, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&USER_IDENTITIES, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let keys: Vec<_> = page
            .iter()
            .map(|((_, provider, subject), ())| (provider.clone(), subject.clone()))
            .collect();
        let owners = Audit::read_many(&view, &IDENTITIES, &keys).await?;
        for ((key, ()), owner) in page.iter().zip(owners) {
            if owner != Some(key.0) {
                audit.row_is(&USER_IDENTITIES, key, Some(&()), None);
            }
        }
    }
    Ok(())
}

async fn tokens(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&TOKENS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let wanted = page
            .into_iter()
            .map(|(hash, row)| ((row.user, row.device, hash), ()))
            .collect();
        audit.rows_are(&view, &DEVICE_TOKENS, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&DEVICE_TOKENS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let hashes: Vec<_> = page.iter().map(|((.., hash), ())| *hash).collect();
        let tokens = Audit::read_many(&view, &TOKENS, &hashes).await?;
        for ((key, ()), token) in page.iter().zip(tokens) {
            if token.is_none_or(|token| token.user != key.0 || token.device != key.1) {
                audit.row_is(&DEVICE_TOKENS, key, Some(&()), None);
            }
        }
    }
    Ok(())
}

async fn account_data(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&ACCOUNT_DATA, PAGE / 10);
    while let Some(page) = rows.next(&view, audit).await? {
        let mut wanted = Vec::with_capacity(page.len());
        for (key, row) in page {
            if RawValue::from_string(row.content).is_err() {
                audit.damaged(&ACCOUNT_DATA, &key, "its content is no JSON");
            }
            wanted.push(((key.0, row.position), key));
        }
        audit.rows_are(&view, &ACCOUNT_DATA_LOG, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&ACCOUNT_DATA_LOG, PAGE / 10);
    while let Some(page) = rows.next(&view, audit).await? {
        let keys: Vec<_> = page.iter().map(|(_, key)| key.clone()).collect();
        let data = Audit::read_many(&view, &ACCOUNT_DATA, &keys).await?;
        for ((place, key), row) in page.iter().zip(data) {
            if row.is_none_or(|row| (key.0, row.position) != *place) {
                audit.row_is(&ACCOUNT_DATA_LOG, place, Some(key), None);
            }
        }
    }
    Ok(())
}

/// Every pusher has a row that says how far it is; one that is missing begins where the pusher did.
async fn pushers(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&PUSHERS, PAGE / 10);
    while let Some(page) = rows.next(&view, audit).await? {
        for (user, row) in page {
            let pushers = row.pushers.into_iter();
            let pushers: Vec<_> = pushers
                .map(|it| ((it.app_id, it.pushkey, user), it.since))
                .collect();
            let keys: Vec<_> = pushers.iter().map(|(key, _)| key.clone()).collect();
            let states = Audit::read_many(&view, &PUSHER_STATES, &keys).await?;
            for ((key, since), state) in pushers.into_iter().zip(states) {
                if state.is_none() {
                    let afresh = PusherStateRow {
                        sent: since,
                        ..PusherStateRow::default()
                    };
                    audit.row_is(&PUSHER_STATES, &key, None, Some(&afresh));
                }
            }
        }
    }
    let view = audit.view();
    let mut rows = Pages::new(&PUSHER_STATES, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let users: Vec<UserSid> = page.iter().map(|((_, _, user), _)| *user).collect();
        let found = Audit::read_many(&view, &PUSHERS, &users).await?;
        for ((key, state), row) in page.iter().zip(found) {
            let there = row.is_some_and(|row| {
                let mut pushers = row.pushers.iter();
                pushers.any(|it| it.app_id == key.0 && it.pushkey == key.1)
            });
            if !there {
                audit.row_is(&PUSHER_STATES, key, Some(state), None);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use ruma::server_name;
    use vatra_store::{Batch, MemoryEngine, Options, Position, Store};

    use super::*;
    use crate::{
        clock::ManualClock,
        ids::Ids,
        random::SystemRandom,
        schema::{AccountDataRow, EmailRow, GLOBAL, UserSid, migrations},
        users::{Login, NewAccount, Requester},
    };

    type Damage = fn(UserSid, [u8; 32], Position, &mut Batch);

    const DERIVED: &[(&str, Damage)] = &[
        ("device_tokens", |user, hash, _, b| {
            b.delete(&DEVICE_TOKENS, &(user, "D".to_owned(), hash));
        }),
        ("device_tokens", |user, _, _, b| {
            b.put(&DEVICE_TOKENS, &(user, "D".to_owned(), [7; 32]), &());
        }),
        ("email_owners", |user, _, _, b| {
            let row = EmailRow {
                validated: 1,
                added: 1,
            };
            b.put(&EMAILS, &(user, "a@example.org".to_owned()), &row);
        }),
        ("email_owners", |user, _, _, b| {
            b.put(&EMAIL_OWNERS, &"a@example.org".to_owned(), &user);
        }),
        ("user_identities", |user, _, _, b| {
            b.put(&IDENTITIES, &("idp".to_owned(), "ana".to_owned()), &user);
        }),
        ("user_identities", |user, _, _, b| {
            b.put(
                &USER_IDENTITIES,
                &(user, "idp".to_owned(), "ana".to_owned()),
                &(),
            );
        }),
        ("account_data_log", |user, _, at, b| {
            b.delete(&ACCOUNT_DATA_LOG, &(user, at));
        }),
        ("account_data_log", |user, _, _, b| {
            let key = (user, GLOBAL, "x".to_owned());
            b.put(&ACCOUNT_DATA_LOG, &(user, Position(1 << 60)), &key);
        }),
        ("pusher_states", |user, _, _, b| {
            b.delete(&PUSHER_STATES, &("app".to_owned(), "key".to_owned(), user));
        }),
        ("pusher_states", |user, _, _, b| {
            let key = ("app".to_owned(), "gone".to_owned(), user);
            b.put(&PUSHER_STATES, &key, &PusherStateRow::default());
        }),
    ];

    async fn users() -> (Users, Store, UserSid) {
        let engine = Arc::new(MemoryEngine::new());
        let store = Store::open(engine, Options::default(), migrations())
            .await
            .unwrap();
        let users = Users::new(
            store.clone(),
            Ids::new(store.clone(), 100),
            ManualClock::new(1_000),
            Arc::new(SystemRandom),
            server_name!("test").to_owned(),
        );
        let new = NewAccount {
            name: Some("alice".to_owned()),
            ..NewAccount::default()
        };
        let (user, sid) = users.register(new).await.unwrap();
        let login = Login {
            device: Some("D".into()),
            ..Login::default()
        };
        let session = users.login(user.clone(), sid, login).await.unwrap();
        let asked = serde_json::json!({
            "kind": "http", "app_id": "app", "pushkey": "key", "app_display_name": "a", "device_display_name": "d",
            "lang": "en", "data": { "url": "https://push.example/_matrix/push/v1/notify" },
        });
        let caller = Requester {
            user,
            sid,
            device: Some(session.device),
            service: None,
            admin: false,
            suspended: false,
            guest: false,
        };
        let asked = serde_json::from_value(asked).unwrap();
        users
            .set_pusher(&caller, asked, crate::users::pushers::Ways::default())
            .await
            .unwrap();
        for _ in 0..2 {
            let content = "{}".to_owned();
            users
                .set_account_data(sid, GLOBAL, "x", content)
                .await
                .unwrap();
        }
        (users, store, sid)
    }

    async fn problems(users: &Users, repair: bool) -> Vec<Problem> {
        let mut problems = Vec::new();
        users
            .check(repair, |problem| problems.push(problem))
            .await
            .unwrap();
        problems
    }

    #[tokio::test]
    async fn damage_is_found_and_mended_where_the_row_is_derived() {
        for (number, (map, damage)) in DERIVED.iter().enumerate() {
            let (users, store, user) = users().await;
            assert_eq!(problems(&users, false).await, []);
            let view = store.view();
            let forward = vatra_store::Direction::Forward;
            let all = vatra_store::Range::all;
            let (hash, _) = view.first(&TOKENS, all(), forward).await.unwrap().unwrap();
            let (_, data) = view
                .first(&ACCOUNT_DATA, all(), forward)
                .await
                .unwrap()
                .unwrap();
            let mut batch = Batch::new();
            damage(user, hash, data.position, &mut batch);
            store.write(batch).await.unwrap();
            for repair in [false, true] {
                let found = problems(&users, repair).await;
                assert!(
                    found.len() == 1 && found.iter().all(|one| one.map() == Some(*map)),
                    "{number}: {map}: {found:?}"
                );
            }
            assert_eq!(problems(&users, false).await, [], "{number}: {map}");
        }
    }

    #[tokio::test]
    async fn account_data_that_is_no_json_is_reported() {
        let (users, store, user) = users().await;
        let key = (user, GLOBAL, "x".to_owned());
        let row = store
            .view()
            .get(&ACCOUNT_DATA, &key)
            .await
            .unwrap()
            .unwrap();
        let content = "{".to_owned();
        let mut batch = Batch::new();
        batch.put(&ACCOUNT_DATA, &key, &AccountDataRow { content, ..row });
        store.write(batch).await.unwrap();
        for repair in [true, false] {
            let found = problems(&users, repair).await;
            assert!(found.len() == 1 && found.iter().all(|one| !one.is_derived()));
        }
    }
}
