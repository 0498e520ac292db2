//! What goes when a device or an account goes, and what a restored backup must not hand out again.

use vatra_store::{Batch, CommitError, Direction, Range, Store, StoreError, View};

use super::{E2eeError, changes::device_list_changed};
use crate::schema::{self, FallbackKeyRow, UserSid, topic};

/// Adds to the batch that removes a device: its keys and its unread messages go with it, and those who share a room with
/// the user are told if it had keys. The user's backup stays.
///
/// # Errors
/// The store could not be read.
pub async fn forget_device(
    view: &View,
    batch: &mut Batch,
    user: UserSid,
    device: &str,
) -> Result<(), StoreError> {
    let key = (user, device.to_owned());
    if view.contains(&schema::DEVICE_KEYS, &key).await? {
        batch.delete(&schema::DEVICE_KEYS, &key);
        device_list_changed(view, batch, user).await?;
    }
    forget_one_time_keys(batch, user, device);
    batch.delete_range(&schema::INBOX, Range::prefix(&key));
    batch.wake(topic::devices(user));
    let dehydrated = view.get(&schema::DEHYDRATED, &user).await?;
    if dehydrated.is_some_and(|row| row.device == device) {
        batch.delete(&schema::DEHYDRATED, &user);
    }
    Ok(())
}

/// One-time and fallback keys of a device, and the memory of those that were handed out.
pub(super) fn forget_one_time_keys(batch: &mut Batch, user: UserSid, device: &str) {
    let key = (user, device.to_owned());
    batch.delete_range(&schema::ONE_TIME_KEYS, Range::prefix(&key));
    batch.delete_range(&schema::CLAIMED_KEYS, Range::prefix(&key));
    batch.delete_range(&schema::FALLBACK_KEYS, Range::prefix(&key));
    batch.delete(&schema::KEY_STATES, &key);
}

/// Adds to the batch that ends an account, whose devices are gone already: its cross-signing keys, its signatures and its
/// backups, which nobody can reach any more.
///
/// # Errors
/// The store could not be read.
pub async fn forget_account(
    view: &View,
    batch: &mut Batch,
    user: UserSid,
) -> Result<(), StoreError> {
    let range = Range::prefix(&(user,));
    let keys = view
        .first(
            &schema::CROSS_SIGNING_KEYS,
            range.clone(),
            Direction::Forward,
        )
        .await?;
    if keys.is_some() {
        device_list_changed(view, batch, user).await?;
    }
    batch.delete_range(&schema::CROSS_SIGNING_KEYS, range.clone());
    batch.delete_range(&schema::USER_SIGNATURES, range.clone());
    batch.delete_range(&schema::USER_SIGNATURE_LOG, range.clone());
    batch.delete_range(&schema::BACKUPS, range.clone());
    batch.delete_range(&schema::BACKUP_KEYS, range);
    Ok(())
}

/// After a backup of the whole server was restored: a one-time key in it may have been handed out since the backup was
/// made, so none of them is handed out any more; fallback keys count as used, so that devices replace them. Devices see
/// in their next /sync that they have no keys left and upload new ones.
///
/// # Errors
/// The store could not be read or written.
pub async fn after_restore(store: &Store) -> Result<(), E2eeError> {
    let mut batch = Batch::new();
    batch.delete_range(&schema::ONE_TIME_KEYS, Range::all());
    batch.delete_range(&schema::KEY_STATES, Range::all());
    store.write(batch).await?;
    let mut last = None;
    loop {
        let range = match &last {
            Some(key) => Range::all().after(key),
            None => Range::all(),
        };
        let page = store
            .view()
            .range(&schema::FALLBACK_KEYS, range, Direction::Forward, 500)
            .await?;
        let Some((key, _)) = page.last() else {
            return Ok(());
        };
        last = Some(key.clone());
        let mut batch = Batch::new();
        for (key, row) in page {
            batch.put(
                &schema::FALLBACK_KEYS,
                &key,
                &FallbackKeyRow { used: true, ..row },
            );
        }
        let written: Result<_, CommitError> = store.write(batch).await;
        written?;
    }
}
