//! What `vatra check` asks of keys: what devices and backups have left, as it was counted; and when keys last changed.

use std::collections::{BTreeMap, BTreeSet};

use vatra_store::{Position, Range, View};

use super::E2ee;
use crate::{
    audit::{Audit, AuditError, PAGE, Pages, Problem},
    schema::{
        BACKUP_KEYS, BACKUPS, BackupRow, DEVICE_LIST_LOG, DEVICE_LISTS, FALLBACK_KEYS, KEY_STATES,
        KeyStateRow, ONE_TIME_KEYS, UserSid,
    },
};

impl E2ee {
    /// Reads keys and reports what does not agree; `repair` writes derived rows anew. Gives the number of problems. Memory: a
    /// page, and the name of each device that has keys.
    ///
    /// # Errors
    /// If the store cannot be read, or does not take a repair.
    pub async fn check(
        &self,
        repair: bool,
        mut report: impl FnMut(Problem) + Send,
    ) -> Result<u64, AuditError> {
        let mut audit = Audit::new(self.store().clone(), repair, &mut report);
        key_states(&mut audit).await?;
        backups(&mut audit).await?;
        device_lists(&mut audit).await?;
        Ok(audit.problems())
    }
}

async fn key_states(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut devices = BTreeSet::new();
    let mut keys = Pages::new(&ONE_TIME_KEYS, PAGE);
    while let Some(page) = keys.next(&view, audit).await? {
        devices.extend(
            page.into_iter()
                .map(|((user, device, ..), _)| (user, device)),
        );
    }
    let mut keys = Pages::new(&FALLBACK_KEYS, PAGE);
    while let Some(page) = keys.next(&view, audit).await? {
        devices.extend(
            page.into_iter()
                .map(|((user, device, _), _)| (user, device)),
        );
    }
    let mut states = Pages::new(&KEY_STATES, PAGE);
    while let Some(page) = states.next(&view, audit).await? {
        for (device, state) in page {
            devices.remove(&device);
            let wanted = left(audit, &view, &device, state.changed).await?;
            if !same(&state, &wanted) {
                audit.row_is(&KEY_STATES, &device, Some(&state), Some(&wanted));
            }
        }
    }
    for device in devices {
        let wanted = left(audit, &view, &device, Position(0)).await?;
        // A device that has only used keys left may have no row: that says the same.
        if !same(&wanted, &KeyStateRow::default()) {
            audit
                .rows_are(&view, &KEY_STATES, vec![(device, wanted)])
                .await?;
        }
    }
    Ok(())
}

/// What a device has left.
async fn left(
    audit: &mut Audit<'_>,
    view: &View,
    device: &(UserSid, String),
    changed: Position,
) -> Result<KeyStateRow, AuditError> {
    let mut one_time: BTreeMap<String, u64> = BTreeMap::new();
    let mut keys = Pages::within(&ONE_TIME_KEYS, Range::prefix(device), PAGE);
    while let Some(page) = keys.next(view, audit).await? {
        for ((_, _, algorithm, ..), _) in page {
            *one_time.entry(algorithm).or_default() += 1;
        }
    }
    let mut unused_fallback = Vec::new();
    let mut keys = Pages::within(&FALLBACK_KEYS, Range::prefix(device), PAGE);
    while let Some(page) = keys.next(view, audit).await? {
        let unused = page.into_iter().filter(|(_, row)| !row.used);
        unused_fallback.extend(unused.map(|((_, _, algorithm), _)| algorithm));
    }
    Ok(KeyStateRow {
        changed,
        one_time: one_time.into_iter().collect(),
        unused_fallback,
    })
}

/// Whether two say the same, in whatever order.
fn same(one: &KeyStateRow, other: &KeyStateRow) -> bool {
    let sets = |row: &KeyStateRow| {
        let one_time: BTreeSet<_> = row.one_time.iter().cloned().collect();
        let unused: BTreeSet<_> = row.unused_fallback.iter().cloned().collect();
        (one_time, unused)
    };
    sets(one) == sets(other)
}

async fn backups(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&BACKUPS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        for (place, row) in page {
            let mut count = 0;
            let mut keys = Pages::within(&BACKUP_KEYS, Range::prefix(&place), PAGE);
            while let Some(page) = keys.next(&view, audit).await? {
                count += u64::try_from(page.len()).unwrap_or(u64::MAX);
            }
            let wanted = BackupRow {
                count,
                ..row.clone()
            };
            audit.row_is(&BACKUPS, &place, Some(&row), Some(&wanted));
        }
    }
    Ok(())
}

/// The log has the newest change of each user; an older one that two batches at once have left is no fault.
async fn device_lists(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&DEVICE_LISTS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let wanted = page.into_iter().map(|(user, at)| ((at, user), ()));
        audit
            .rows_are(&view, &DEVICE_LIST_LOG, wanted.collect())
            .await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&DEVICE_LIST_LOG, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        for ((at, user), ()) in page {
            let newest = Audit::read(&view, &DEVICE_LISTS, &user).await?;
            if newest.is_none_or(|newest| newest < at) {
                audit.row_is(&DEVICE_LISTS, &user, newest.as_ref(), Some(&at));
            }
        }
    }
    Ok(())
}
