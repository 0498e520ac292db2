//! Media that an admin keeps from everyone: local users, other servers, and who has no token.
//!
//! It is said of an id, whether its file is here or not, so that fetching it again brings nothing back, and a purge changes nothing.

use ruma::{ServerName, UserId};
use vatra_store::Batch;

use super::{Media, MediaError, purge::Key};
use crate::schema::{QUARANTINED, QuarantineRow};

impl Media {
    /// From now on this media is not found. `NotFound` if it is no media id.
    pub async fn quarantine(
        &self,
        server: &ServerName,
        id: &str,
        by: &UserId,
    ) -> Result<(), MediaError> {
        let key = Self::key(server, id).ok_or(MediaError::NotFound)?;
        let row = QuarantineRow {
            by: by.as_str().to_owned(),
            at: self.now(),
        };
        let mut batch = Batch::new();
        batch.put(&QUARANTINED, &key, &row);
        self.inner.store.write(batch).await?;
        Ok(())
    }

    /// It is found again, if it is there.
    pub async fn unquarantine(&self, server: &ServerName, id: &str) -> Result<(), MediaError> {
        let key = Self::key(server, id).ok_or(MediaError::NotFound)?;
        let mut batch = Batch::new();
        batch.delete(&QUARANTINED, &key);
        self.inner.store.write(batch).await?;
        Ok(())
    }

    pub(super) async fn must_be_free(&self, key: &Key) -> Result<(), MediaError> {
        match self.inner.store.view().contains(&QUARANTINED, key).await? {
            true => Err(MediaError::NotFound),
            false => Ok(()),
        }
    }
}
