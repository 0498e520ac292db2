//! Versions of a user's key backup. <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>
//!
//! Versions are numbered from 1 and no number is given twice, so that a client never takes one backup for another. Keys are
//! written to the newest version only; older ones can be read until they are deleted.

use ruma::CanonicalJsonObject;
use serde::Deserialize;
use serde_json::value::RawValue;
use vatra_store::{Batch, CommitError, Direction, Range, View};

use super::{E2ee, E2eeError};
use crate::schema::{self, BackupRow, UserSid};

/// The largest `auth_data`, in bytes.
const MAX_AUTH_DATA: usize = 64 << 10;
/// The most versions that a user has at once.
const MAX_VERSIONS: usize = 100;
/// The algorithm that the spec knows.
const CURVE25519: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

/// A version to make, or what an old one is to become.
#[derive(Debug, Deserialize)]
pub struct NewBackup {
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What that algorithm needs to know.
    pub auth_data: Box<RawValue>,
    /// Which version is meant; only when one is changed.
    pub version: Option<String>,
}

impl NewBackup {
    fn check(&self) -> Result<(), E2eeError> {
        let bad = |message: &str| Err(E2eeError::BadJson(message.to_owned()));
        if self.algorithm.is_empty() || self.algorithm.len() > super::MAX_ID {
            return bad("algorithm is a name");
        }
        if self.auth_data.get().len() > MAX_AUTH_DATA {
            let message = format!("auth_data is larger than {MAX_AUTH_DATA} bytes");
            return Err(E2eeError::TooLarge(message));
        }
        let Ok(data) = serde_json::from_str::<CanonicalJsonObject>(self.auth_data.get()) else {
            return bad("auth_data is an object");
        };
        let has_key = data
            .get("public_key")
            .is_some_and(|key| key.as_str().is_some());
        if self.algorithm == CURVE25519 && !has_key {
            return bad("auth_data has a public_key");
        }
        Ok(())
    }
}

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupInfo {
    /// Its number.
    pub version: u64,
    /// What is known of it.
    pub row: BackupRow,
}

impl E2ee {
    /// Makes a new version, which is then the current one. Gives its number.
    ///
    /// # Errors
    /// [`E2eeError::BadJson`], [`E2eeError::TooLarge`]; [`E2eeError::TooMany`] when there are a hundred.
    pub async fn create_backup(&self, user: UserSid, new: &NewBackup) -> Result<u64, E2eeError> {
        new.check()?;
        loop {
            let view = self.store().view();
            let range = Range::prefix(&(user,));
            let rows = view
                .range(&schema::BACKUPS, range, Direction::Backward, usize::MAX)
                .await?;
            if rows.iter().filter(|(_, row)| !row.deleted).count() >= MAX_VERSIONS {
                return Err(E2eeError::TooMany("there are too many backups: delete one"));
            }
            let version = rows
                .first()
                .map_or(1, |((_, last), _)| last.saturating_add(1));
            let row = BackupRow {
                algorithm: new.algorithm.clone(),
                auth_data: new.auth_data.get().to_owned(),
                etag: 0,
                count: 0,
                deleted: false,
            };
            let mut batch = Batch::new();
            batch.assert_absent(&schema::BACKUPS, &(user, version));
            batch.put(&schema::BACKUPS, &(user, version), &row);
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(version),
            }
        }
    }

    /// A version by its number as clients write it, or the current one; `None` if there is none.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn backup(
        &self,
        user: UserSid,
        version: Option<&str>,
    ) -> Result<Option<BackupInfo>, E2eeError> {
        let view = self.store().view();
        match version {
            None => current(&view, user).await,
            Some(version) => Ok(of(&view, user, version).await?.filter(|it| !it.row.deleted)),
        }
    }

    /// Changes what a version's algorithm needs to know; nothing else can change.
    ///
    /// # Errors
    /// [`E2eeError::NotFound`]; [`E2eeError::InvalidParam`] for another algorithm or version.
    pub async fn update_backup(
        &self,
        user: UserSid,
        version: &str,
        new: &NewBackup,
    ) -> Result<(), E2eeError> {
        new.check()?;
        let other = |what: &str| E2eeError::InvalidParam(format!("the {what} does not match"));
        if new.version.as_deref().is_some_and(|it| it != version) {
            return Err(other("version"));
        }
        self.change(user, version, |row| {
            if row.algorithm != new.algorithm {
                return Err(other("algorithm"));
            }
            new.auth_data.get().clone_into(&mut row.auth_data);
            Ok(())
        })
        .await
    }

    /// Deletes a version and its keys. One that was deleted before is no error.
    ///
    /// # Errors
    /// [`E2eeError::NotFound`] for one that never was.
    pub async fn delete_backup(&self, user: UserSid, version: &str) -> Result<(), E2eeError> {
        loop {
            let view = self.store().view();
            let found = of(&view, user, version).await?;
            let found = found.ok_or(UNKNOWN)?;
            if found.row.deleted {
                return Ok(());
            }
            let key = (user, found.version);
            let mut batch = Batch::new();
            batch.assert_equals(&schema::BACKUPS, &key, &found.row);
            let row = BackupRow {
                auth_data: "{}".to_owned(),
                count: 0,
                deleted: true,
                ..found.row
            };
            batch.put(&schema::BACKUPS, &key, &row);
            batch.delete_range(&schema::BACKUP_KEYS, Range::prefix(&key));
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }

    async fn change(
        &self,
        user: UserSid,
        version: &str,
        change: impl Fn(&mut BackupRow) -> Result<(), E2eeError>,
    ) -> Result<(), E2eeError> {
        loop {
            let view = self.store().view();
            let BackupInfo { version, row: old } = existing(&view, user, version).await?;
            let mut new = old.clone();
            change(&mut new)?;
            let mut batch = Batch::new();
            batch.assert_equals(&schema::BACKUPS, &(user, version), &old);
            batch.put(&schema::BACKUPS, &(user, version), &new);
            match self.store().write(batch).await {
                Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
        }
    }
}

/// What is said of a version that is not there.
pub(super) const UNKNOWN: E2eeError = E2eeError::NotFound("no such backup");

/// A version that must be there.
pub(super) async fn existing(
    view: &View,
    user: UserSid,
    version: &str,
) -> Result<BackupInfo, E2eeError> {
    let found = of(view, user, version).await?;
    found.filter(|it| !it.row.deleted).ok_or(UNKNOWN)
}

/// The version that keys may be written to.
pub(super) async fn writable(
    view: &View,
    user: UserSid,
    version: &str,
) -> Result<BackupInfo, E2eeError> {
    let newest = current(view, user).await?.ok_or(UNKNOWN)?;
    if existing(view, user, version).await?.version == newest.version {
        Ok(newest)
    } else {
        Err(E2eeError::WrongVersion {
            current: newest.version.to_string(),
        })
    }
}

async fn current(view: &View, user: UserSid) -> Result<Option<BackupInfo>, E2eeError> {
    let range = Range::prefix(&(user,));
    let rows = view
        .range(&schema::BACKUPS, range, Direction::Backward, usize::MAX)
        .await?;
    let newest = rows.into_iter().find(|(_, row)| !row.deleted);
    Ok(newest.map(|((_, version), row)| BackupInfo { version, row }))
}

/// A version, deleted or not.
async fn of(view: &View, user: UserSid, version: &str) -> Result<Option<BackupInfo>, E2eeError> {
    // Written back, so that `01` and `+1` are no names of version 1.
    let number = version.parse().ok();
    let Some(version) = number.filter(|number: &u64| number.to_string() == version) else {
        return Ok(None);
    };
    let row = view.get(&schema::BACKUPS, &(user, version)).await?;
    Ok(row.map(|row| BackupInfo { version, row }))
}
