//! Account data: what clients keep on the server for themselves, global or per room.
//!
//! Each write has a row in the user's log, so that /sync finds what changed after a position without reading the rest.

use std::{collections::BTreeSet, sync::Arc};

use ruma::push::Ruleset;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use vatra_store::{Batch, CommitError, Direction, Position, Range, View};

use super::{Users, UsersError};
use crate::schema::{self, AccountDataKey, AccountDataRow, GLOBAL, RoomSid, UserSid, topic};

/// The type under which push rules are kept.
pub const PUSH_RULES: &str = "m.push_rules";

/// Account data as /sync shows it: its type, and the event.
pub type DataEvent = (String, Box<RawValue>);

#[derive(Serialize)]
struct Event<'a> {
    content: &'a RawValue,
    #[serde(rename = "type")]
    kind: &'a str,
}

#[derive(Serialize, Deserialize)]
struct PushRules {
    global: Ruleset,
}

impl Users {
    /// One piece of account data, as JSON. `room` is [`GLOBAL`] for data of no room.
    pub async fn account_data(
        &self,
        user: UserSid,
        room: RoomSid,
        kind: &str,
    ) -> Result<Option<Box<RawValue>>, UsersError> {
        let row = self
            .inner
            .store
            .view()
            .get(&schema::ACCOUNT_DATA, &(user, room, kind.to_owned()))
            .await?;
        Ok(row.and_then(|row| RawValue::from_string(row.content).ok()))
    }

    /// Sets a piece of account data. The newest write wins.
    pub async fn set_account_data(
        &self,
        user: UserSid,
        room: RoomSid,
        kind: &str,
        content: String,
    ) -> Result<(), UsersError> {
        let set = |_: Option<&str>| Ok::<_, UsersError>(content.clone());
        self.change_account_data(user, room, kind, set).await?
    }

    /// Sets a piece of account data to what `change` makes of the present one; whoever comes between makes it try again, so
    /// that of two changes at once none is lost. The inner error is `change`'s: then nothing is written.
    pub async fn change_account_data<E>(
        &self,
        user: UserSid,
        room: RoomSid,
        kind: &str,
        change: impl Fn(Option<&str>) -> Result<String, E>,
    ) -> Result<Result<(), E>, UsersError> {
        let key: AccountDataKey = (user, room, kind.to_owned());
        loop {
            let view = self.inner.store.view();
            let old = view.get(&schema::ACCOUNT_DATA, &key).await?;
            let content = match change(old.as_ref().map(|row| row.content.as_str())) {
                Ok(content) => content,
                Err(error) => return Ok(Err(error)),
            };
            let mut batch = Batch::new();
            put(&mut batch, key.clone(), old.as_ref(), content);
            match self.inner.store.write(batch).await {
                Err(CommitError::AssertFailed) => {}
                other => return Ok(Ok(other.map(|_| ())?)),
            }
        }
    }

    /// A piece of account data as part of a larger batch, which fails if another write comes first.
    pub async fn put_account_data(
        &self,
        batch: &mut Batch,
        key: AccountDataKey,
        content: String,
    ) -> Result<(), UsersError> {
        let view = self.inner.store.view();
        let old = view.get(&schema::ACCOUNT_DATA, &key).await?;
        put(batch, key, old.as_ref(), content);
        Ok(())
    }

    /// Global account data that changed after `since`; all of it for a first sync.
    pub async fn account_data_since(
        &self,
        view: &View,
        user: UserSid,
        since: Option<Position>,
    ) -> Result<Vec<DataEvent>, UsersError> {
        let mut events = self
            .room_account_data_since(view, user, GLOBAL, since)
            .await?;
        // Every account has push rules, though most have never changed them.
        if since.is_none() && !events.iter().any(|(kind, _)| kind == PUSH_RULES) {
            let rules = PushRules {
                global: self.push_rules(user).await?,
            };
            if let Ok(content) = to_raw_value(&rules) {
                events.extend(event(PUSH_RULES.to_owned(), &content));
            }
        }
        Ok(events)
    }

    /// Account data of a room that changed after `since`; all of it for a first sync.
    pub async fn room_account_data_since(
        &self,
        view: &View,
        user: UserSid,
        room: RoomSid,
        since: Option<Position>,
    ) -> Result<Vec<DataEvent>, UsersError> {
        let Some(since) = since else {
            let range = Range::prefix(&(user, room));
            let rows = view
                .range(&schema::ACCOUNT_DATA, range, Direction::Forward, usize::MAX)
                .await?;
            return Ok(rows
                .into_iter()
                .filter_map(|((_, _, kind), row)| read(kind, row))
                .collect());
        };
        let range = Range::prefix(&(user,)).after(&(user, since));
        let log = view
            .range(
                &schema::ACCOUNT_DATA_LOG,
                range,
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        let keys: BTreeSet<AccountDataKey> = log
            .into_iter()
            .map(|(_, key)| key)
            .filter(|key| key.1 == room)
            .collect();
        let keys: Vec<AccountDataKey> = keys.into_iter().collect();
        let rows = view.get_many(&schema::ACCOUNT_DATA, &keys).await?;
        Ok(keys
            .into_iter()
            .zip(rows)
            .filter_map(|((_, _, kind), row)| read(kind, row?))
            .collect())
    }

    /// The user's push rules: their own changes on top of the server's defaults.
    pub async fn push_rules(&self, user: UserSid) -> Result<Ruleset, UsersError> {
        let stored = self.account_data(user, GLOBAL, PUSH_RULES).await?;
        match stored.and_then(|json| stored_rules(json.get())) {
            Some(rules) => Ok(rules),
            None => self.default_rules(user).await,
        }
    }

    async fn default_rules(&self, user: UserSid) -> Result<Ruleset, UsersError> {
        let user = self.inner.ids.user_id(user).await?;
        Ok(Ruleset::server_default(&user.ok_or(UsersError::NotFound)?))
    }

    /// The same, shared: one copy in memory for as long as the user does not change it.
    pub async fn shared_push_rules(&self, user: UserSid) -> Result<Arc<Ruleset>, UsersError> {
        let store = &self.inner.store;
        let known = self.inner.push_rules.get(&user);
        if let Some((checked, rules)) = &known
            && !store.changed_since(topic::user(user), *checked)
        {
            return Ok(Arc::clone(rules));
        }
        let checked = store.watermark();
        let read = self.push_rules(user).await?;
        let same = known.filter(|(_, rules)| {
            serde_json::to_value(&**rules).ok() == serde_json::to_value(&read).ok()
        });
        let rules = same.map_or_else(|| Arc::new(read), |(_, rules)| rules);
        self.inner
            .push_rules
            .insert(user, (checked, Arc::clone(&rules)));
        Ok(rules)
    }

    /// Changes the user's push rules as they stand. Of two changes at once none is lost. The inner error is `change`'s.
    pub async fn change_push_rules<E>(
        &self,
        user: UserSid,
        change: impl Fn(&mut Ruleset) -> Result<(), E>,
    ) -> Result<Result<(), E>, UsersError> {
        let defaults = self.default_rules(user).await?;
        let changed = self.change_account_data(user, GLOBAL, PUSH_RULES, |stored| {
            let mut rules = stored
                .and_then(stored_rules)
                .unwrap_or_else(|| defaults.clone());
            change(&mut rules).map_err(Ok::<E, UsersError>)?;
            serde_json::to_string(&PushRules { global: rules })
                .map_err(|_| Err::<E, _>(UsersError::BadValue("the push rules cannot be written")))
        });
        match changed.await? {
            Ok(()) => Ok(Ok(())),
            Err(Ok(error)) => Ok(Err(error)),
            Err(Err(error)) => Err(error),
        }
    }
}

fn stored_rules(json: &str) -> Option<Ruleset> {
    let rules: PushRules = serde_json::from_str(json).ok()?;
    Some(rules.global)
}

/// The rows of a piece of account data, if it still is `old`.
fn put(batch: &mut Batch, key: AccountDataKey, old: Option<&AccountDataRow>, content: String) {
    let (user, room, _) = key;
    match old {
        Some(old) => {
            batch.assert_equals(&schema::ACCOUNT_DATA, &key, old);
            batch.delete(&schema::ACCOUNT_DATA_LOG, &(user, old.position));
        }
        None => {
            batch.assert_absent(&schema::ACCOUNT_DATA, &key);
        }
    }
    let logged = key.clone();
    batch.put_at_position(&schema::ACCOUNT_DATA, move |position| {
        (key, AccountDataRow { position, content })
    });
    batch.put_at_position(&schema::ACCOUNT_DATA_LOG, move |position| {
        ((user, position), logged)
    });
    batch.wake(topic::user(user));
    if room != GLOBAL {
        batch.wake(topic::room(room));
    }
}

fn read(kind: String, row: AccountDataRow) -> Option<DataEvent> {
    event(kind, &RawValue::from_string(row.content).ok()?)
}

fn event(kind: String, content: &RawValue) -> Option<DataEvent> {
    let event = to_raw_value(&Event {
        content,
        kind: &kind,
    })
    .ok()?;
    Some((kind, event))
}
