//! Account data: what clients keep on the server for themselves, global or per room.
//!
//! Each write has a row in the user's log, so that /sync finds what changed after a position without reading the rest.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use ruma::{OwnedUserId, push::Ruleset};
use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use vatra_store::{Batch, CommitError, Direction, Position, Range, View};

use super::{Users, UsersError};
use crate::{
    push,
    schema::{self, AccountDataKey, AccountDataRow, GLOBAL, RoomSid, UserSid, topic},
};

/// Whom a user ignores. <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
pub type Ignored = HashSet<OwnedUserId>;

/// The type under which the list of ignored users is kept.
const IGNORED: &str = "m.ignored_user_list";

/// The type under which push rules are kept.
pub const PUSH_RULES: &str = "m.push_rules";

/// Types of account data that end with the id of the device they are for.
const OF_DEVICE: [&str; 2] = [
    "m.local_notification_settings.",
    "org.matrix.msc3890.local_notification_settings.",
];

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

#[derive(Deserialize)]
struct IgnoredList {
    ignored_users: BTreeMap<String, Value>,
}

/// Whether a piece of account data was taken away: what is set to an empty object is (MSC3391). Only who knew it before is shown the
/// empty object.
fn is_gone(content: &str) -> bool {
    let inner = content.trim().strip_prefix('{');
    let inner = inner.and_then(|rest| rest.strip_suffix('}'));
    inner.is_some_and(|inner| inner.trim().is_empty())
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
        let row = row.filter(|row| !is_gone(&row.content));
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

    /// A device goes, and what its user set for it alone goes with it (MSC3890).
    pub(super) async fn forget_settings_of(
        &self,
        view: &View,
        batch: &mut Batch,
        user: UserSid,
        device: &str,
    ) -> Result<(), UsersError> {
        for kind in OF_DEVICE {
            let key = (user, GLOBAL, format!("{kind}{device}"));
            if let Some(row) = view.get(&schema::ACCOUNT_DATA, &key).await? {
                batch.delete(&schema::ACCOUNT_DATA, &key);
                batch.delete(&schema::ACCOUNT_DATA_LOG, &(user, row.position));
            }
        }
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

    /// Account data of a room that changed after `since`; all of it for a first sync. Reads nothing if nothing of the user's has
    /// changed since.
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
                .filter(|(_, row)| !is_gone(&row.content))
                .filter_map(|((_, _, kind), row)| read(kind, row))
                .collect());
        };
        if !self.inner.store.changed_since(topic::user(user), since) {
            return Ok(Vec::new());
        }
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
        Ok(push::defaults(&user.ok_or(UsersError::NotFound)?))
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

    /// Whom a user ignores, never themselves; shared: one copy in memory for as long as the list does not change.
    pub async fn ignored(&self, user: UserSid) -> Result<Arc<Ignored>, UsersError> {
        let store = &self.inner.store;
        let known = self.inner.ignored.get(&user);
        if let Some((checked, ignored)) = &known
            && !store.changed_since(topic::user(user), *checked)
        {
            return Ok(Arc::clone(ignored));
        }
        let checked = store.watermark();
        let list = self.account_data(user, GLOBAL, IGNORED).await?;
        let list = list.and_then(|json| serde_json::from_str::<IgnoredList>(json.get()).ok());
        let names = list.map(|list| list.ignored_users).unwrap_or_default();
        let mut read: Ignored = names
            .into_keys()
            .filter_map(|name| OwnedUserId::try_from(name).ok())
            .collect();
        if let Some(own) = self.inner.ids.user_id(user).await? {
            read.remove(&own);
        }
        let same = known.filter(|(_, ignored)| **ignored == read);
        let ignored = same.map_or_else(|| Arc::new(read), |(_, ignored)| ignored);
        self.inner
            .ignored
            .insert(user, (checked, Arc::clone(&ignored)));
        Ok(ignored)
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
