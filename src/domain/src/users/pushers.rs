//! Pushers: what notifies a user, and how. <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>
//!
//! A user's pushers are one row; each has a second row, [`schema::PUSHER_STATES`], with how far it is, which is also the way from a
//! pushkey to its users. Both are written in one batch. A pusher goes with the device that set it; one without a device belongs to
//! the account. Whoever sends only reads them here, and drops those that a gateway rejects.
//!
//! To add a kind: a variant of [`PusherKind`], and its arm in [`Users::set_pusher`]'s `kind_of`, which says whom it belongs to. `mail` has
//! what only those that write letters need.

mod mail;

use http::Uri;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use vatra_store::{Batch, CommitError, Direction, Position, Range, StoreError, View};

pub use self::mail::{APP_ID as MAIL_APP_ID, MailWishes, Mode, QuietHours};
use super::{Requester, Users, UsersError};
use crate::{
    mail::address::canonical,
    schema::{
        self, PusherKey, PusherKind, PusherRow, PusherStateRow, PushersRow, RoomSid, UserSid, topic,
    },
};

/// The most pushers that a user has.
const MAX_PUSHERS: usize = 30;
/// The longest application id in characters, and the longest pushkey in bytes, as the spec has them.
const MAX_APP_ID: usize = 64;
const MAX_PUSHKEY: usize = 512;
/// The longest of the other texts, in bytes.
const MAX_TEXT: usize = 255;
/// The longest URL and the most data for the gateway, in bytes. All pushers of a user are one row.
const MAX_URL: usize = 1_000;
const MAX_DATA: usize = 1_000;
/// The path of every push gateway.
const PATH: &str = "/_matrix/push/v1/notify";
/// Of how many other users a pushkey is taken away at once.
const OTHERS: usize = 100;

/// Why a pusher cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum PusherError {
    /// Something that must be there is not.
    #[error("missing: {0}")]
    Missing(&'static str),
    /// A field is empty or too long.
    #[error("{0} is empty or too long")]
    BadLength(&'static str),
    /// No kind of pusher that there is.
    #[error("kind is http or email, or null to delete a pusher")]
    UnknownKind,
    /// The URL is none that a push gateway has.
    #[error("url is an https URL with the path {PATH}")]
    BadUrl,
    /// This server sends no e-mail.
    #[error("this server sends no notifications by e-mail")]
    NoEmail,
    /// Letters have an application id of their own.
    #[error("the app_id of a pusher of kind email is {}", mail::APP_ID)]
    NotMailApp,
    /// The pushkey is no address that the user has shown to be theirs.
    #[error("that e-mail address is not one of this account")]
    NotYourEmail,
    /// What the person wishes makes no sense.
    #[error("{0}")]
    BadWish(&'static str),
    /// The user has as many as one may have.
    #[error("there are too many pushers: delete some")]
    TooMany,
    /// The device has been logged out.
    #[error("the device is gone")]
    DeviceGone,
    /// Something about the account.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take the rows.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What a client asks for: the body of `/pushers/set`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct SetPusher {
    /// Which kind; `Some(None)` deletes.
    #[serde(default, deserialize_with = "there")]
    pub kind: Option<Option<String>>,
    /// Of which application.
    pub app_id: Option<String>,
    /// What the gateway knows it by.
    pub pushkey: Option<String>,
    /// What the application is called.
    pub app_display_name: Option<String>,
    /// What the device is called.
    pub device_display_name: Option<String>,
    /// Which set of rules it is for.
    pub profile_tag: Option<String>,
    /// The language.
    pub lang: Option<String>,
    /// The URL, and what the gateway is to be told.
    pub data: Option<Map<String, Value>>,
    /// Whether other users of the same pushkey keep it.
    #[serde(default)]
    pub append: bool,
}

/// Which pushers this server serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ways {
    /// Gateways without TLS are allowed, for tests and networks of the operator's own.
    pub plain_http: bool,
    /// There is a mail server.
    pub email: bool,
}

/// Tells a field that is `null` from one that is not there.
fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A pusher to be set, checked.
struct Wanted {
    row: PusherRow,
    append: bool,
}

impl Users {
    /// A user's pushers, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn pushers(&self, user: UserSid) -> Result<Vec<PusherRow>, StoreError> {
        let row = self.inner.store.view().get(&schema::PUSHERS, &user).await?;
        Ok(row.unwrap_or_default().pushers)
    }

    /// Sets, changes or deletes a pusher, as the client asks.
    ///
    /// # Errors
    /// What is wrong with it. Nothing is written then.
    pub async fn set_pusher(
        &self,
        caller: &Requester,
        asked: SetPusher,
        ways: Ways,
    ) -> Result<(), PusherError> {
        let kind = asked.kind.clone().ok_or(PusherError::Missing("kind"))?;
        let app_id = asked.app_id.clone().ok_or(PusherError::Missing("app_id"))?;
        let pushkey = asked.pushkey.clone();
        let pushkey = pushkey.ok_or(PusherError::Missing("pushkey"))?;
        let Some(kind) = kind else {
            let address = canonical(&pushkey);
            let its = |row: &PusherRow| match row.kind {
                PusherKind::Http { .. } => row.pushkey == pushkey,
                PusherKind::Email { .. } => address.as_ref() == Some(&row.pushkey),
            };
            let this = |row: &PusherRow| row.app_id == app_id && its(row);
            return Ok(self.drop_pushers(caller.sid, this).await?);
        };
        let wanted = self.checked(caller, &kind, (app_id, pushkey), asked, ways)?;
        while !self.put_pusher(caller, &wanted).await? {}
        Ok(())
    }

    fn checked(
        &self,
        caller: &Requester,
        kind: &str,
        (app_id, mut pushkey): (String, String),
        asked: SetPusher,
        ways: Ways,
    ) -> Result<Wanted, PusherError> {
        if app_id.is_empty() || app_id.chars().count() > MAX_APP_ID {
            return Err(PusherError::BadLength("app_id"));
        }
        if pushkey.is_empty() || pushkey.len() > MAX_PUSHKEY {
            return Err(PusherError::BadLength("pushkey"));
        }
        let text = |name, text: Option<String>| {
            let text = text.ok_or(PusherError::Missing(name))?;
            short(name, text)
        };
        let app_display_name = text("app_display_name", asked.app_display_name)?;
        let device_display_name = text("device_display_name", asked.device_display_name)?;
        let lang = text("lang", asked.lang)?;
        let profile_tag = asked.profile_tag.map(|tag| short("profile_tag", tag));
        let mut data = asked.data.ok_or(PusherError::Missing("data"))?;
        let (kind, device) =
            self.kind_of(kind, caller, (&app_id, &mut pushkey), &mut data, ways)?;
        let data = Value::Object(data).to_string();
        if data.len() > MAX_DATA {
            return Err(PusherError::BadLength("data"));
        }
        let row = PusherRow {
            app_id,
            pushkey,
            kind,
            app_display_name,
            device_display_name,
            profile_tag: profile_tag.transpose()?,
            lang,
            data,
            device,
            set_at: self.now(),
            // Known once it is written.
            since: Position::ZERO,
        };
        Ok(Wanted {
            row,
            append: asked.append,
        })
    }

    /// The kind, and the device that a pusher of that kind belongs to.
    fn kind_of(
        &self,
        kind: &str,
        caller: &Requester,
        (app_id, pushkey): (&str, &mut String),
        data: &mut Map<String, Value>,
        ways: Ways,
    ) -> Result<(PusherKind, Option<String>), PusherError> {
        match kind {
            "http" => {
                let url = data.remove("url").ok_or(PusherError::Missing("data.url"))?;
                let url = url.as_str().ok_or(PusherError::BadUrl)?.to_owned();
                check_url(&url, ways.plain_http)?;
                Ok((
                    PusherKind::Http { url },
                    caller.device.as_ref().map(ToString::to_string),
                ))
            }
            "email" if !ways.email => Err(PusherError::NoEmail),
            "email" if app_id != mail::APP_ID => Err(PusherError::NotMailApp),
            "email" => {
                *pushkey = canonical(pushkey).ok_or(PusherError::NotYourEmail)?;
                MailWishes::read(data)?;
                Ok((mail::kind(caller.sid, &*self.inner.random), None))
            }
            _ => Err(PusherError::UnknownKind),
        }
    }

    /// Writes a pusher in place of what stands there; says whether that still did.
    async fn put_pusher(&self, caller: &Requester, wanted: &Wanted) -> Result<bool, PusherError> {
        let view = self.inner.store.view();
        let user = caller.sid;
        let mut batch = Batch::new();
        if let Some(device) = &wanted.row.device {
            let key = (user, device.clone());
            let row = view.get(&schema::DEVICES, &key).await?;
            let row = row.ok_or(PusherError::DeviceGone)?;
            batch.assert_equals(&schema::DEVICES, &key, &row);
        }
        if let PusherKind::Email { .. } = &wanted.row.kind {
            let address = &wanted.row.pushkey;
            let owner = view.get(&schema::EMAIL_OWNERS, address).await?;
            let account = view.get(&schema::ACCOUNTS, &user).await?;
            let account = account.filter(|account| !account.deactivated);
            let Some(account) = account.filter(|_| owner == Some(user)) else {
                return Err(PusherError::NotYourEmail);
            };
            // It goes with the address and with the account.
            batch.assert_equals(&schema::EMAIL_OWNERS, address, &user);
            batch.assert_equals(&schema::ACCOUNTS, &user, &account);
        }
        let old = view.get(&schema::PUSHERS, &user).await?;
        assert_is(&mut batch, user, old.as_ref());
        let mut pushers = old.unwrap_or_default().pushers;
        let mut row = wanted.row.clone();
        let key: PusherKey = (row.app_id.clone(), row.pushkey.clone(), user);
        let full = pushers.len() >= MAX_PUSHERS;
        let same = pushers
            .iter()
            .position(|it| it.app_id == row.app_id && it.pushkey == row.pushkey);
        let state = view.get(&schema::PUSHER_STATES, &key).await?;
        match same.and_then(|at| pushers.get_mut(at)).zip(state) {
            Some((same, state)) => {
                row.since = same.since;
                if let (PusherKind::Email { .. }, PusherKind::Email { .. }) =
                    (&row.kind, &same.kind)
                {
                    // The links of the letters that are out there still work.
                    row.kind = same.kind.clone();
                }
                *same = row;
                let afresh = PusherStateRow {
                    failures: 0,
                    retry_at: 0,
                    error: None,
                    ..state.clone()
                };
                batch.assert_equals(&schema::PUSHER_STATES, &key, &state);
                batch.put(&schema::PUSHER_STATES, &key, &afresh);
                batch.put(&schema::PUSHERS, &user, &PushersRow { pushers });
            }
            None if full => return Err(PusherError::TooMany),
            None => add(&mut batch, user, pushers, row),
        }
        if !wanted.append {
            take_from_others(&view, &mut batch, user, &wanted.row).await?;
        }
        batch.wake(topic::notices(user));
        match self.inner.store.write(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::AssertFailed) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes those of a user's pushers that `which` names.
    ///
    /// # Errors
    /// The store's.
    pub async fn drop_pushers(
        &self,
        user: UserSid,
        which: impl Fn(&PusherRow) -> bool + Send + Sync,
    ) -> Result<(), UsersError> {
        loop {
            let view = self.inner.store.view();
            let mut batch = Batch::new();
            forget(&view, &mut batch, user, &which).await?;
            if batch.is_empty() {
                return Ok(());
            }
            match self.inner.store.write(batch).await {
                Err(CommitError::AssertFailed) => {}
                other => return other.map(|_| ()).map_err(Into::into),
            }
        }
    }

    /// An address goes, and the pusher that writes to it.
    pub(super) async fn forget_pusher_to(
        &self,
        view: &View,
        batch: &mut Batch,
        user: UserSid,
        address: &str,
    ) -> Result<(), UsersError> {
        let its = |row: &PusherRow| {
            matches!(row.kind, PusherKind::Email { .. }) && row.pushkey == address
        };
        Ok(forget(view, batch, user, its).await?)
    }

    /// A device goes, and the pushers that it has set: the batch fails if another write of the user's pushers comes first.
    pub(super) async fn forget_pushers_of(
        &self,
        view: &View,
        batch: &mut Batch,
        user: UserSid,
        device: &str,
    ) -> Result<(), UsersError> {
        let its = |row: &PusherRow| row.device.as_deref() == Some(device);
        Ok(forget(view, batch, user, its).await?)
    }
}

/// Puts a new pusher beside a user's others. The batch asserts what stands there.
fn add(batch: &mut Batch, user: UserSid, mut pushers: Vec<PusherRow>, mut row: PusherRow) {
    let key: PusherKey = (row.app_id.clone(), row.pushkey.clone(), user);
    batch.put_at_position(&schema::PUSHERS, move |position| {
        row.since = position;
        pushers.push(row);
        (user, PushersRow { pushers })
    });
    batch.put_at_position(&schema::PUSHER_STATES, move |position| {
        let sent = position;
        (
            key,
            PusherStateRow {
                sent,
                ..PusherStateRow::default()
            },
        )
    });
    // The rooms of the user are entered by the follower, which alone keeps that book.
    batch.put(&schema::SUBSCRIBED, &(RoomSid(0), user), &());
    batch.wake(topic::newly_subscribed());
}

fn check_url(url: &str, plain_http: bool) -> Result<(), PusherError> {
    if url.len() > MAX_URL || !url.is_ascii() || url.contains('#') {
        return Err(PusherError::BadUrl);
    }
    let url: Uri = url.parse().map_err(|_| PusherError::BadUrl)?;
    let scheme = url.scheme_str().unwrap_or_default();
    let authority = url.authority().ok_or(PusherError::BadUrl)?;
    let good = (scheme == "https" || (plain_http && scheme == "http"))
        && !authority.host().is_empty()
        && !authority.as_str().contains('@')
        && url.path() == PATH;
    if good {
        Ok(())
    } else {
        Err(PusherError::BadUrl)
    }
}

fn short(name: &'static str, text: String) -> Result<String, PusherError> {
    if text.len() > MAX_TEXT {
        return Err(PusherError::BadLength(name));
    }
    Ok(text)
}

/// The batch fails unless the row is as it was read.
fn assert_is(batch: &mut Batch, user: UserSid, row: Option<&PushersRow>) {
    match row {
        Some(row) => batch.assert_equals(&schema::PUSHERS, &user, row),
        None => batch.assert_absent(&schema::PUSHERS, &user),
    };
}

/// Who has the same pushkey of the same application loses it: the device has another user now.
async fn take_from_others(
    view: &View,
    batch: &mut Batch,
    user: UserSid,
    row: &PusherRow,
) -> Result<(), StoreError> {
    let range = Range::prefix(&(row.app_id.clone(), row.pushkey.clone()));
    let users = view
        .range(&schema::PUSHER_STATES, range, Direction::Forward, OTHERS)
        .await?;
    for ((_, _, other), _) in users {
        if other != user {
            let same = |it: &PusherRow| it.app_id == row.app_id && it.pushkey == row.pushkey;
            forget(view, batch, other, same).await?;
        }
    }
    Ok(())
}

/// Deletes pushers in a batch, which fails if another write comes first.
async fn forget(
    view: &View,
    batch: &mut Batch,
    user: UserSid,
    which: impl Fn(&PusherRow) -> bool,
) -> Result<(), StoreError> {
    let Some(old) = view.get(&schema::PUSHERS, &user).await? else {
        batch.assert_absent(&schema::PUSHERS, &user);
        return Ok(());
    };
    assert_is(batch, user, Some(&old));
    let (gone, kept): (Vec<_>, Vec<_>) = old.pushers.into_iter().partition(which);
    if gone.is_empty() {
        return Ok(());
    }
    for row in gone {
        if let PusherKind::Email { .. } = row.kind {
            batch.delete(&schema::TOLD_BY_MAIL, &(user, row.pushkey.clone()));
        }
        batch.delete(&schema::PUSHER_STATES, &(row.app_id, row.pushkey, user));
    }
    if kept.is_empty() {
        batch.delete(&schema::PUSHERS, &user);
        // Nobody asks for them any more.
        batch.delete_range(&schema::NOTICES, Range::prefix(&(user,)));
        batch.delete(&schema::SUBSCRIBED, &(RoomSid(0), user));
    } else {
        batch.put(&schema::PUSHERS, &user, &PushersRow { pushers: kept });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_url;

    #[test]
    fn a_gateway_is_named_by_an_https_url_with_its_path() {
        for url in [
            "https://push.example/_matrix/push/v1/notify",
            "https://push.example:8443/_matrix/push/v1/notify?app=x",
            "https://[2001:db8::1]/_matrix/push/v1/notify",
        ] {
            assert!(check_url(url, false).is_ok(), "{url}");
        }
        for url in [
            "",
            "push.example",
            "http://push.example/_matrix/push/v1/notify",
            "ftp://push.example/_matrix/push/v1/notify",
            "https:///_matrix/push/v1/notify",
            "https://a:b@push.example/_matrix/push/v1/notify",
            "https://push.example/",
            "https://push.example/_matrix/push/v1/notify/",
            "https://push.example/_matrix/push/v1/notify#x",
            "/_matrix/push/v1/notify",
        ] {
            assert!(check_url(url, false).is_err(), "{url}");
        }
        let plain = "http://127.0.0.1:5000/_matrix/push/v1/notify";
        assert!(check_url(plain, true).is_ok());
        assert!(check_url(&format!("https://a/{}", "x".repeat(2_000)), true).is_err());
    }
}
