//! Aliases and receipts, each of which has a second row to be found by.

use crate::{
    audit::{Audit, AuditError, PAGE, Pages},
    schema::{ALIASES, RECEIPT_LOG, RECEIPTS, ROOM_ALIASES, ROOM_SIDS},
};

pub(super) async fn check(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    aliases(audit).await?;
    receipts(audit).await
}

async fn aliases(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&ALIASES, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let rooms: Vec<String> = page.iter().map(|(_, row)| row.room.clone()).collect();
        let rooms = Audit::read_many(&view, &ROOM_SIDS, &rooms).await?;
        let mut wanted = Vec::new();
        for ((alias, row), room) in page.into_iter().zip(rooms) {
            match room {
                Some(room) => wanted.push(((room, alias), ())),
                None => audit.damaged(&ALIASES, &alias, format!("there is no room {}", row.room)),
            }
        }
        audit.rows_are(&view, &ROOM_ALIASES, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&ROOM_ALIASES, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        for (key, ()) in page {
            let room = match Audit::read(&view, &ALIASES, &key.1).await? {
                Some(row) => Audit::read(&view, &ROOM_SIDS, &row.room).await?,
                None => None,
            };
            if room != Some(key.0) {
                audit.row_is(&ROOM_ALIASES, &key, Some(&()), None);
            }
        }
    }
    Ok(())
}

async fn receipts(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&RECEIPTS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let wanted = page
            .into_iter()
            .map(|(key, row)| ((key.0, row.position, key.1), key))
            .collect();
        audit.rows_are(&view, &RECEIPT_LOG, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&RECEIPT_LOG, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let keys: Vec<_> = page.iter().map(|(_, key)| key.clone()).collect();
        let receipts = Audit::read_many(&view, &RECEIPTS, &keys).await?;
        for ((place, key), receipt) in page.iter().zip(receipts) {
            let here = receipt.is_some_and(|receipt| (key.0, receipt.position, key.1) == *place);
            if !here {
                audit.row_is(&RECEIPT_LOG, place, Some(key), None);
            }
        }
    }
    Ok(())
}
