//! The fact that a user's devices or cross-signing keys changed, with its position. Nobody is told here: `sync` finds out
//! who shares a room with the user, and the sender which servers do.

use vatra_store::{Batch, Direction, Position, Range, StoreError, View};

use super::E2ee;
use crate::schema::{self, UserSid, topic};

/// Records that a user's keys change with this batch, and wakes who waits for it. One row a user, whatever the number of
/// those who see it.
///
/// # Errors
/// The store could not be read.
pub async fn device_list_changed(
    view: &View,
    batch: &mut Batch,
    user: UserSid,
) -> Result<(), StoreError> {
    if let Some(old) = view.get(&schema::DEVICE_LISTS, &user).await? {
        // Two batches at once may both see this one; the row that then stays names a change that did happen.
        batch.delete(&schema::DEVICE_LIST_LOG, &(old, user));
    }
    batch.put_at_position(&schema::DEVICE_LISTS, move |position| (user, position));
    batch.put_at_position(&schema::DEVICE_LIST_LOG, move |position| {
        ((position, user), ())
    });
    batch.wake(topic::device_list(user));
    batch.wake(topic::any_device_list());
    batch.wake(topic::devices(user));
    Ok(())
}

impl E2ee {
    /// Whose devices or cross-signing keys changed in `(since, upto]`, of all users this server knows. No read when none did.
    pub async fn changed_between(
        &self,
        view: &View,
        since: Position,
        upto: Position,
    ) -> Result<Vec<UserSid>, StoreError> {
        if !self.store().changed_since(topic::any_device_list(), since) {
            return Ok(Vec::new());
        }
        let range = Range::all().after(&(since,)).until(&(upto,));
        let rows = view
            .range(
                &schema::DEVICE_LIST_LOG,
                range,
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        Ok(rows.into_iter().map(|((_, user), ())| user).collect())
    }

    /// Whose master keys `signer` signed in `(since, upto]`: the signer's other devices want to see it.
    pub async fn signed_between(
        &self,
        view: &View,
        signer: UserSid,
        since: Position,
        upto: Position,
    ) -> Result<Vec<UserSid>, StoreError> {
        if !self.store().changed_since(topic::devices(signer), since) {
            return Ok(Vec::new());
        }
        let range = Range::prefix(&(signer,))
            .after(&(signer, since))
            .until(&(signer, upto));
        let rows = view
            .range(
                &schema::USER_SIGNATURE_LOG,
                range,
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        Ok(rows.into_iter().map(|((_, _, user), ())| user).collect())
    }
}
