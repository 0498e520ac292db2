//! The keys in a backup: room keys that their user encrypted.

use std::collections::BTreeMap;

use ruma::{OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use vatra_store::{Batch, CommitError, Direction, Range, StoreError, View};

use super::{
    E2ee, E2eeError,
    backup::{existing, writable},
    parse::short,
};
use crate::schema::{self, BackupKeyRow, UserSid};

/// The largest encrypted session, in bytes.
const MAX_SESSION: usize = 64 << 10;
/// The most keys of one backup.
const MAX_KEYS: u64 = 1_000_000;
/// How many rows are read at once.
const PAGE: usize = 1_000;

/// A session's key as clients write and read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionData {
    /// The index of the first message that it decrypts.
    pub first_message_index: u64,
    /// How often it was forwarded.
    pub forwarded_count: u64,
    /// The device it came from was verified.
    pub is_verified: bool,
    /// The ciphertext.
    pub session_data: Box<RawValue>,
}

impl SessionData {
    fn row(&self) -> Result<BackupKeyRow, E2eeError> {
        if !self.session_data.get().starts_with('{') {
            return Err(E2eeError::BadJson("session_data is an object".to_owned()));
        }
        if self.session_data.get().len() > MAX_SESSION {
            let message = format!("session_data is larger than {MAX_SESSION} bytes");
            return Err(E2eeError::TooLarge(message));
        }
        Ok(BackupKeyRow {
            first_message_index: self.first_message_index,
            forwarded_count: self.forwarded_count,
            is_verified: self.is_verified,
            session_data: self.session_data.get().to_owned(),
        })
    }

    fn of(row: BackupKeyRow) -> Result<Self, E2eeError> {
        let session_data = RawValue::from_string(row.session_data)
            .map_err(|_| StoreError::corrupt("a key in a backup is no JSON"))?;
        Ok(Self {
            first_message_index: row.first_message_index,
            forwarded_count: row.forwarded_count,
            is_verified: row.is_verified,
            session_data,
        })
    }
}

/// Sessions by id.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RoomSessions {
    /// The sessions.
    pub sessions: BTreeMap<String, SessionData>,
}

/// A backup after keys were written or deleted.
#[derive(Debug, Serialize)]
pub struct BackupChange {
    /// Another one than before if any key changed.
    pub etag: String,
    /// How many keys it has.
    pub count: u64,
}

/// Whether the new key is worth more than the old one, by the rules of the spec.
fn is_better(new: &BackupKeyRow, old: &BackupKeyRow) -> bool {
    let worth = |row: &BackupKeyRow| {
        let unverified = !row.is_verified;
        (unverified, row.first_message_index, row.forwarded_count)
    };
    worth(new) < worth(old)
}

impl E2ee {
    /// Writes keys into the current backup. A key that is there stays unless the new one is better.
    ///
    /// # Errors
    /// [`E2eeError::WrongVersion`], [`E2eeError::NotFound`] for another backup; [`E2eeError::BadJson`], [`E2eeError::TooLarge`],
    /// [`E2eeError::TooMany`].
    pub async fn put_backup_keys(
        &self,
        user: UserSid,
        version: &str,
        rooms: &BTreeMap<OwnedRoomId, RoomSessions>,
    ) -> Result<BackupChange, E2eeError> {
        let mut new = Vec::new();
        for (room, sessions) in rooms {
            short("a room id", room.as_str())?;
            for (session, data) in &sessions.sessions {
                short("a session id", session)?;
                new.push(((room.to_string(), session.clone()), data.row()?));
            }
        }
        loop {
            let view = self.store().view();
            let backup = writable(&view, user, version).await?;
            let place = (user, backup.version);
            let keys: Vec<_> = new
                .iter()
                .map(|((room, session), _)| (place.0, place.1, room.clone(), session.clone()))
                .collect();
            let known = view.get_many(&schema::BACKUP_KEYS, &keys).await?;
            let (mut batch, mut row) = (Batch::new(), backup.row.clone());
            for ((key, (_, new)), old) in keys.iter().zip(&new).zip(known) {
                if old.as_ref().is_some_and(|old| !is_better(new, old)) {
                    continue;
                }
                batch.put(&schema::BACKUP_KEYS, key, new);
                row.count += u64::from(old.is_none());
            }
            if row.count > MAX_KEYS {
                return Err(E2eeError::TooMany("a backup has a million keys at most"));
            }
            if batch.is_empty() {
                return Ok(change(&row));
            }
            row.etag += 1;
            batch.assert_equals(&schema::BACKUPS, &place, &backup.row);
            batch.put(&schema::BACKUPS, &place, &row);
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(change(&row)),
            }
        }
    }

    /// The keys of a backup, of all rooms or of one.
    ///
    /// # Errors
    /// [`E2eeError::NotFound`] for a backup that is not there.
    pub async fn backup_keys(
        &self,
        user: UserSid,
        version: &str,
        room: Option<&RoomId>,
    ) -> Result<BTreeMap<OwnedRoomId, RoomSessions>, E2eeError> {
        let view = self.store().view();
        let backup = existing(&view, user, version).await?;
        let mut rooms: BTreeMap<OwnedRoomId, RoomSessions> = BTreeMap::new();
        let mut range = within(user, backup.version, room, None);
        loop {
            let rows = page(&view, &range).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(rooms);
            };
            range = range.after(last);
            for ((_, _, room, session), row) in rows {
                let room = OwnedRoomId::try_from(room)
                    .map_err(|_| StoreError::corrupt("a room id in a backup"))?;
                let sessions = &mut rooms.entry(room).or_default().sessions;
                sessions.insert(session, SessionData::of(row)?);
            }
        }
    }

    /// One key of a backup.
    ///
    /// # Errors
    /// [`E2eeError::NotFound`].
    pub async fn backup_key(
        &self,
        user: UserSid,
        version: &str,
        room: &RoomId,
        session: &str,
    ) -> Result<SessionData, E2eeError> {
        let view = self.store().view();
        let backup = existing(&view, user, version).await?;
        let key = (user, backup.version, room.to_string(), session.to_owned());
        let row = view.get(&schema::BACKUP_KEYS, &key).await?;
        SessionData::of(row.ok_or(E2eeError::NotFound("no such key in the backup"))?)
    }

    /// Deletes keys of a backup: all, of a room, or one session's.
    ///
    /// # Errors
    /// [`E2eeError::NotFound`] for a backup that is not there.
    pub async fn delete_backup_keys(
        &self,
        user: UserSid,
        version: &str,
        room: Option<&RoomId>,
        session: Option<&str>,
    ) -> Result<BackupChange, E2eeError> {
        loop {
            let view = self.store().view();
            let backup = existing(&view, user, version).await?;
            let range = within(user, backup.version, room, session);
            let deleted = match room {
                None => backup.row.count,
                Some(_) => count(&view, range.clone()).await?,
            };
            if deleted == 0 {
                return Ok(change(&backup.row));
            }
            let mut row = backup.row.clone();
            row.count = row.count.saturating_sub(deleted);
            row.etag += 1;
            let place = (user, backup.version);
            let mut batch = Batch::new();
            batch.assert_equals(&schema::BACKUPS, &place, &backup.row);
            batch.put(&schema::BACKUPS, &place, &row);
            batch.delete_range(&schema::BACKUP_KEYS, range);
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(change(&row)),
            }
        }
    }
}

fn within(user: UserSid, version: u64, room: Option<&RoomId>, session: Option<&str>) -> Range {
    match (room, session) {
        (Some(room), Some(session)) => {
            Range::prefix(&(user, version, room.to_string(), session.to_owned()))
        }
        (Some(room), None) => Range::prefix(&(user, version, room.to_string())),
        (None, _) => Range::prefix(&(user, version)),
    }
}

type Rows = Vec<((UserSid, u64, String, String), BackupKeyRow)>;

async fn page(view: &View, range: &Range) -> Result<Rows, StoreError> {
    view.range(
        &schema::BACKUP_KEYS,
        range.clone(),
        Direction::Forward,
        PAGE,
    )
    .await
}

async fn count(view: &View, mut range: Range) -> Result<u64, StoreError> {
    let mut count = 0;
    loop {
        let rows = page(view, &range).await?;
        let Some((last, _)) = rows.last() else {
            return Ok(count);
        };
        count += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        range = range.after(last);
    }
}

fn change(row: &schema::BackupRow) -> BackupChange {
    BackupChange {
        etag: row.etag.to_string(),
        count: row.count,
    }
}
