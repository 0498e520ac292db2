//! Rows beside those of files: when media was read, and how much users have.

use std::collections::HashMap;

use vatra_store::{Batch, CommitError, View};

use super::{Pages, Problem};
use crate::{
    media::{Media, MediaError},
    schema::{MEDIA, MEDIA_READS, MediaState, USER_MEDIA_BYTES},
};

impl Media {
    /// Looks for rows that say when media was read that is not there.
    pub(super) async fn check_reads(
        &self,
        view: &View,
        repair: bool,
        report: &mut impl FnMut(Problem),
    ) -> Result<(), MediaError> {
        let mut reads = Pages::new(&MEDIA_READS);
        while let Some(page) = reads.next(view).await? {
            let keys: Vec<_> = page.into_iter().map(|(key, _)| key).collect();
            let rows = view.get_many(&MEDIA, &keys).await?;
            for (key, row) in keys.into_iter().zip(rows) {
                if row.is_some() {
                    continue;
                }
                if repair {
                    let mut batch = Batch::new();
                    batch.assert_absent(&MEDIA, &key).delete(&MEDIA_READS, &key);
                    match self.inner.store.write(batch).await {
                        Ok(_) | Err(CommitError::AssertFailed) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                report(Problem::StrayRead(key.0, key.1));
            }
        }
        Ok(())
    }

    /// Counts the bytes of each user's media. Memory: 100 bytes a user.
    pub(super) async fn check_bytes(
        &self,
        view: &View,
        repair: bool,
        report: &mut impl FnMut(Problem),
    ) -> Result<(), MediaError> {
        let mut users: HashMap<String, (i64, Option<i64>)> = HashMap::new();
        let mut media = Pages::new(&MEDIA);
        while let Some(page) = media.next(view).await? {
            for ((server, _), row) in page {
                if let MediaState::Stored(content) = row.state
                    && server == self.inner.settings.server_name.as_str()
                {
                    let (counted, _) = users.entry(row.uploader).or_default();
                    *counted = counted.saturating_add_unsigned(content.size);
                }
            }
        }
        let mut rows = Pages::new(&USER_MEDIA_BYTES);
        while let Some(page) = rows.next(view).await? {
            for (user, bytes) in page {
                users.entry(user).or_default().1 = Some(bytes);
            }
        }
        for (user, (counted, row)) in users {
            let stored = row.unwrap_or(0);
            if counted == stored {
                continue;
            }
            if repair {
                self.mend(&USER_MEDIA_BYTES, &user, row, counted).await?;
            }
            report(Problem::WrongBytes {
                user,
                stored,
                counted,
            });
        }
        Ok(())
    }
}
