//! Media that was shown and is not any more.
//!
//! The follower `media_shown` notes what events show, and what none of them shows any more since it was redacted or its time was over.

use std::collections::HashSet;

use vatra_store::{Batch, Direction, Range};

use super::{Media, MediaError};
use crate::schema::{MEDIA, MEDIA_SHOWN, RETRACTED_MEDIA};

/// How many rows are looked at at a time.
const PAGE: usize = 1_000;

impl Media {
    /// Media that nobody has shown for as long as the settings say, and that somebody had shown. Notes of what is not here any more are
    /// taken away. Memory: 100 bytes for each.
    pub async fn retracted(&self) -> Result<HashSet<(String, String)>, MediaError> {
        let mut retracted = HashSet::new();
        let Some(age) = self.inner.settings.retracted_max_age_ms else {
            return Ok(retracted);
        };
        let before = self.now().saturating_sub(age);
        let mut range = Range::all();
        loop {
            let view = self.inner.store.view();
            let rows = view
                .range(&RETRACTED_MEDIA, range, Direction::Forward, PAGE)
                .await?;
            let Some((last, _)) = rows.last() else {
                return Ok(retracted);
            };
            range = Range::all().after(last);
            let mut batch = Batch::new();
            for (key, since) in rows {
                if !view.contains(&MEDIA, &key).await? {
                    batch
                        .assert_absent(&MEDIA, &key)
                        .delete(&RETRACTED_MEDIA, &key);
                    continue;
                }
                let shows = view.first(&MEDIA_SHOWN, Range::prefix(&key), Direction::Forward);
                if since <= before && shows.await?.is_none() {
                    retracted.insert(key);
                }
            }
            if !batch.is_empty() {
                match self.inner.store.write(batch).await {
                    // What was fetched again meanwhile is looked at in the next round.
                    Ok(_) | Err(vatra_store::CommitError::AssertFailed) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// Whether media is this server's own.
    pub fn is_local(&self, (server, _): &(String, String)) -> bool {
        *server == self.inner.settings.server_name.as_str()
    }
}
