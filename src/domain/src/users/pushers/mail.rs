//! Pushers that write letters: to an address of the account, to which they belong, so that they outlive every session.
//!
//! What a person wishes stands in the pusher's `data`, beside what the spec has there: `org.vatra.mode` and `org.vatra.quiet_hours`.
//! A letter holds a link that stops the letters; it works as long as the pusher is there, and names no other.

use jiff::{Timestamp, civil::Time, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;
use vatra_store::{Batch, Direction, Position, Range, StoreError, View};

use super::{MAX_PUSHERS, PusherError, add, assert_is};
use crate::{
    clock::Millis,
    random::{self, Random},
    schema::{self, PusherKind, PusherRow, UserSid},
    users::{Users, UsersError, ValidatedEmail},
};

/// The application id that the spec has for them.
pub const APP_ID: &str = "m.email";
/// What the names of this server's own fields of `data` begin with.
const OWN: &str = "org.vatra.";
/// The longest name of a program that letters are told by, in characters.
const MAX_BRAND: usize = 50;
/// The characters of what a link holds: 43 have 256 bits.
const TOKEN_CHARACTERS: usize = 43;
/// The longest language tag that is kept.
const MAX_LANGUAGE: usize = 35;
/// The least time that a night takes, in milliseconds: clocks are set back in some.
const MINUTE_MS: Millis = 60_000;

/// When someone wants to be written to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Soon; of a room that is not read after that more and more seldom.
    #[default]
    Instant,
    /// An hour after the first thing that was in no letter.
    Hourly,
    /// A day after it.
    Daily,
    /// As [`Mode::Instant`], but only of what highlights, of conversations of two, and of invites.
    Mentions,
}

/// What someone wants letters to be like.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MailWishes {
    /// When.
    pub mode: Mode,
    /// And when not.
    pub quiet: Option<QuietHours>,
    /// What the person's program is called.
    pub brand: Option<String>,
}

/// Hours of the day in which nothing is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct QuietHours {
    from: Time,
    to: Time,
    zone: TimeZone,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hours {
    from: String,
    to: String,
    time_zone: String,
}

impl MailWishes {
    /// Reads `data`.
    ///
    /// # Errors
    /// [`PusherError::BadWish`]: a field of this server's own that it does not know, or with a value that makes no sense.
    pub fn read(data: &Map<String, Value>) -> Result<Self, PusherError> {
        let mut wishes = Self::default();
        for (name, value) in data {
            match name.strip_prefix(OWN) {
                Some("mode") => {
                    let mode = Mode::deserialize(value);
                    wishes.mode = mode.map_err(|_| {
                        PusherError::BadWish("org.vatra.mode is instant, hourly, daily or mentions")
                    })?;
                }
                Some("quiet_hours") => wishes.quiet = Some(QuietHours::read(value)?),
                Some(_) => {
                    return Err(PusherError::BadWish(
                        "of org.vatra. there are mode and quiet_hours",
                    ));
                }
                None if name == "brand" => {
                    let brand = value.as_str().map(str::trim);
                    let brand = brand.filter(|brand| !brand.is_empty());
                    wishes.brand = brand.map(|it| it.chars().take(MAX_BRAND).collect());
                }
                None => {}
            }
        }
        Ok(wishes)
    }

    /// Of a pusher that was checked when it was set.
    pub fn of(row: &PusherRow) -> Self {
        let data: Map<String, Value> = serde_json::from_str(&row.data).unwrap_or_default();
        Self::read(&data).unwrap_or_default()
    }
}

impl QuietHours {
    fn read(value: &Value) -> Result<Self, PusherError> {
        const WRONG: PusherError = PusherError::BadWish(
            "org.vatra.quiet_hours is {\"from\": \"22:00\", \"to\": \"07:00\", \"time_zone\": \"Europe/Bucharest\"}",
        );
        let hours = Hours::deserialize(value).map_err(|_| WRONG)?;
        let (from, to) = time(&hours.from).zip(time(&hours.to)).ok_or(WRONG)?;
        if from == to {
            return Err(PusherError::BadWish(
                "org.vatra.quiet_hours: from and to are the same",
            ));
        }
        let zone = TimeZone::get(&hours.time_zone).map_err(|_| {
            PusherError::BadWish("org.vatra.quiet_hours: there is no such time zone")
        })?;
        Ok(Self { from, to, zone })
    }

    /// When something may be sent that is due at a time: then, or when the quiet hours around it are over.
    pub fn after(&self, due: Millis) -> Millis {
        self.end(due).unwrap_or(due)
    }

    fn end(&self, due: Millis) -> Option<Millis> {
        let at = Timestamp::from_millisecond(i64::try_from(due).ok()?).ok()?;
        let local = at.to_zoned(self.zone.clone());
        let (time, date) = (local.time(), local.date());
        let quiet = if self.from < self.to {
            self.from <= time && time < self.to
        } else {
            self.from <= time || time < self.to
        };
        if !quiet {
            return None;
        }
        let date = if time < self.to {
            date
        } else {
            date.tomorrow().ok()?
        };
        let end = date.to_datetime(self.to).to_zoned(self.zone.clone()).ok()?;
        let end = u64::try_from(end.timestamp().as_millisecond()).ok()?;
        Some(end.max(due.saturating_add(MINUTE_MS)))
    }
}

/// Hours and minutes, as in `07:00`.
fn time(text: &str) -> Option<Time> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    Time::new(hours.parse().ok()?, minutes.parse().ok()?, 0, 0).ok()
}

/// A new pusher's kind: its links are its own.
pub(super) fn kind(user: UserSid, random: &dyn Random) -> PusherKind {
    let token = random::token(random, TOKEN_CHARACTERS);
    PusherKind::Email {
        unsubscribe: format!("{}.{token}", user.0),
    }
}

impl Users {
    /// The address to which letters go that hold this link, while they do.
    ///
    /// # Errors
    /// The store's.
    pub async fn subscription(&self, link: &str) -> Result<Option<String>, UsersError> {
        let Some(user) = user_of(link) else {
            return Ok(None);
        };
        let pushers = self.pushers(user).await?;
        let found = pushers.into_iter().find(|row| has_link(row, link));
        Ok(found.map(|row| row.pushkey))
    }

    /// Stops the letters that hold a link; gives their address, if there were any.
    ///
    /// # Errors
    /// The store's.
    pub async fn unsubscribe(&self, link: &str) -> Result<Option<String>, UsersError> {
        let address = self.subscription(link).await?;
        if let Some(user) = user_of(link).filter(|_| address.is_some()) {
            self.drop_pushers(user, |row| has_link(row, link)).await?;
        }
        Ok(address)
    }

    /// Letters go to the first address of an account, if the operator wants that.
    pub(in crate::users) async fn notify_first_email(
        &self,
        view: &View,
        batch: &mut Batch,
        user: UserSid,
        email: &ValidatedEmail,
    ) -> Result<(), StoreError> {
        if !self.inner.notifies_new_emails {
            return Ok(());
        }
        let emails = Range::prefix(&(user,));
        let first = view.first(&schema::EMAILS, emails, Direction::Forward);
        let old = view.get(&schema::PUSHERS, &user).await?;
        let pushers = old.clone().unwrap_or_default().pushers;
        let full = pushers.len() >= MAX_PUSHERS;
        let address = email.address().to_owned();
        let taken = |row: &PusherRow| row.app_id == APP_ID && row.pushkey == address;
        if first.await?.is_some() || full || pushers.iter().any(taken) {
            return Ok(());
        }
        assert_is(batch, user, old.as_ref());
        let row = PusherRow {
            app_id: APP_ID.to_owned(),
            pushkey: address.clone(),
            kind: kind(user, &*self.inner.random),
            app_display_name: "Email Notifications".to_owned(),
            device_display_name: address,
            profile_tag: None,
            lang: language(email.languages()),
            data: json!({}).to_string(),
            device: None,
            set_at: self.now(),
            since: Position::ZERO,
        };
        add(batch, user, pushers, row);
        Ok(())
    }
}

fn user_of(link: &str) -> Option<UserSid> {
    link.split_once('.')?.0.parse().ok().map(UserSid)
}

fn has_link(row: &PusherRow, link: &str) -> bool {
    match &row.kind {
        PusherKind::Email { unsubscribe } => {
            bool::from(unsubscribe.as_bytes().ct_eq(link.as_bytes()))
        }
        PusherKind::Http { .. } => false,
    }
}

/// The first of the languages that someone's program asks for.
fn language(accepted: &str) -> String {
    let first = accepted.split([',', ';']).next().unwrap_or_default().trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if first.is_empty() || first.len() > MAX_LANGUAGE || !first.bytes().all(plain) {
        return "en".to_owned();
    }
    first.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hours(from: &str, to: &str, zone: &str) -> Result<QuietHours, PusherError> {
        QuietHours::read(&json!({ "from": from, "to": to, "time_zone": zone }))
    }

    fn at(text: &str) -> Millis {
        let at: Timestamp = text.parse().unwrap();
        at.as_millisecond().try_into().unwrap()
    }

    #[test]
    fn nothing_is_sent_at_night_where_the_person_lives() {
        for (from, to, zone, due, sent) in [
            // Winter in Bucharest is two hours before UTC, summer three.
            (
                "22:00",
                "07:00",
                "Europe/Bucharest",
                "2026-01-10T19:59:59Z",
                "2026-01-10T19:59:59Z",
            ),
            (
                "22:00",
                "07:00",
                "Europe/Bucharest",
                "2026-01-10T20:00:00Z",
                "2026-01-11T05:00:00Z",
            ),
            (
                "22:00",
                "07:00",
                "Europe/Bucharest",
                "2026-01-11T04:59:00Z",
                "2026-01-11T05:00:00Z",
            ),
            (
                "22:00",
                "07:00",
                "Europe/Bucharest",
                "2026-07-10T20:00:00Z",
                "2026-07-11T04:00:00Z",
            ),
            (
                "22:00",
                "07:00",
                "Europe/Bucharest",
                "2026-07-11T04:00:00Z",
                "2026-07-11T04:00:00Z",
            ),
            (
                "12:30",
                "14:00",
                "America/New_York",
                "2026-01-10T18:00:00Z",
                "2026-01-10T19:00:00Z",
            ),
            (
                "12:30",
                "14:00",
                "America/New_York",
                "2026-01-10T19:00:00Z",
                "2026-01-10T19:00:00Z",
            ),
            // At half past three at night there is no half past three: the clocks are set forward.
            (
                "22:00",
                "03:30",
                "Europe/Bucharest",
                "2026-03-29T00:30:00Z",
                "2026-03-29T01:30:00Z",
            ),
        ] {
            let quiet = hours(from, to, zone).unwrap();
            assert_eq!(quiet.after(at(due)), at(sent), "{from} {to} {due}");
        }
        // The hour that comes twice ends.
        let quiet = hours("22:00", "03:30", "Europe/Bucharest").unwrap();
        let due = at("2026-10-25T01:10:00Z");
        assert!(quiet.after(due) > due);
        assert_eq!(quiet.after(u64::MAX), u64::MAX);
    }

    #[test]
    fn wishes_that_make_no_sense_are_refused() {
        let good = json!({
            "brand": "Hearth", "org.vatra.mode": "daily", "other": [1],
            "org.vatra.quiet_hours": { "from": "22:00", "to": "07:00", "time_zone": "UTC" },
        });
        let wishes = MailWishes::read(good.as_object().unwrap()).unwrap();
        assert_eq!(wishes.mode, Mode::Daily);
        assert_eq!(wishes.brand.as_deref(), Some("Hearth"));
        assert!(wishes.quiet.is_some());
        for (name, value) in [
            ("org.vatra.mode", json!("weekly")),
            ("org.vatra.mode", json!(null)),
            ("org.vatra.mod", json!("daily")),
            ("org.vatra.quiet_hours", json!(null)),
            ("org.vatra.quiet_hours", json!("22:00")),
            (
                "org.vatra.quiet_hours",
                json!({ "from": "22:00", "to": "07:00" }),
            ),
        ] {
            let mut data = Map::new();
            data.insert(name.to_owned(), value);
            assert!(MailWishes::read(&data).is_err(), "{data:?}");
        }
        for (from, to, zone) in [
            ("22:00", "22:00", "UTC"),
            ("24:00", "07:00", "UTC"),
            ("22:60", "07:00", "UTC"),
            ("22", "07:00", "UTC"),
            ("+2:00", "07:00", "UTC"),
            ("22:00", "07:00", "Europe/Vatra"),
            ("22:00", "07:00", "../../etc/passwd"),
            ("22:00", "07:00", ""),
        ] {
            assert!(hours(from, to, zone).is_err(), "{from} {to} {zone}");
        }
    }

    #[test]
    fn the_language_of_letters_is_the_first_that_was_asked_for() {
        for (accepted, kept) in [
            ("ro-RO,ro;q=0.9,en", "ro-RO"),
            ("ro;q=0.5", "ro"),
            ("", "en"),
            ("*", "en"),
            ("a\r\nb", "en"),
        ] {
            assert_eq!(language(accepted), kept);
        }
    }
}
