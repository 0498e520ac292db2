//! Counts the bytes of each user's media.

use std::collections::HashMap;

use vatra_store::{Batch, Direction, MigrationFuture, Range, Store};

use super::super::{MEDIA, MediaState, USER_MEDIA_BYTES};

/// How many rows a step reads or writes at once.
const PAGE: usize = 1_000;

/// Memory: 100 bytes a user. Writes only when all is counted, so it may begin anew at any point.
pub(super) fn count_bytes(store: Store) -> MigrationFuture {
    Box::pin(async move {
        let mut users: HashMap<String, i64> = HashMap::new();
        let mut range = Range::all();
        loop {
            let rows = store
                .view()
                .range(&MEDIA, range, Direction::Forward, PAGE)
                .await
                .map_err(|error| error.to_string())?;
            let Some((last, _)) = rows.last() else { break };
            range = Range::all().after(last);
            for (_, row) in rows {
                let MediaState::Stored(content) = row.state else {
                    continue;
                };
                // That of other servers has their name instead of a user's.
                if row.uploader.starts_with('@') {
                    let bytes = users.entry(row.uploader).or_default();
                    *bytes = bytes.saturating_add_unsigned(content.size);
                }
            }
        }
        let users: Vec<_> = users.into_iter().collect();
        for some in users.chunks(PAGE) {
            let mut batch = Batch::new();
            for (user, bytes) in some {
                batch.put(&USER_MEDIA_BYTES, user, bytes);
            }
            store
                .write(batch)
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use vatra_store::{MemoryEngine, Options};

    use super::*;
    use crate::schema::{BlobId, MediaContent, MediaRow};

    #[tokio::test]
    async fn an_older_store_counts_what_its_users_have() {
        let engine = Arc::new(MemoryEngine::new());
        let old = Store::open(engine.clone(), Options::default(), &[])
            .await
            .unwrap();
        let mut batch = Batch::new();
        for number in 0..2_500_u64 {
            let (server, uploader) = match number % 2 {
                0 => ("test", format!("@user{}:test", number % 4)),
                _ => ("other", "other".to_owned()),
            };
            let state = MediaState::Stored(MediaContent {
                blob: BlobId([1; 32]),
                size: 10,
                content_type: String::new(),
                filename: None,
            });
            let row = MediaRow {
                uploader,
                created: 1,
                state,
            };
            batch.put(&MEDIA, &(server.to_owned(), number.to_string()), &row);
        }
        old.write(batch).await.unwrap();
        old.close().await;

        let store = Store::open(engine, Options::default(), super::super::ALL)
            .await
            .unwrap();
        let counted = store
            .view()
            .range(&USER_MEDIA_BYTES, Range::all(), Direction::Forward, 9)
            .await
            .unwrap();
        let users = ["@user0:test", "@user2:test"].map(|user| (user.to_owned(), 6_250));
        assert_eq!(counted, users);
    }
}
