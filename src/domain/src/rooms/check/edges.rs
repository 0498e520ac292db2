//! Aliases, receipts and the servers of rooms, each of which has a second row to be found by.

use crate::{
    audit::{Audit, AuditError, PAGE, Pages},
    schema::{ALIASES, RECEIPT_LOG, RECEIPTS, ROOM_ALIASES, ROOM_SERVERS, ROOM_SIDS, SERVER_ROOMS},
};

pub(super) async fn check(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    aliases(audit).await?;
    receipts(audit).await?;
    servers(audit).await
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

/// What the federation sender knows of a room's servers, by server.
async fn servers(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&ROOM_SERVERS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let wanted = page
            .into_iter()
            .map(|((room, server), _)| ((server, room), ()))
            .collect();
        audit.rows_are(&view, &SERVER_ROOMS, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&SERVER_ROOMS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let keys: Vec<_> = page
            .iter()
            .map(|((server, room), ())| (*room, server.clone()))
            .collect();
        let known = Audit::read_many(&view, &ROOM_SERVERS, &keys).await?;
        for ((key, ()), row) in page.iter().zip(known) {
            if row.is_none() {
                audit.row_is(&SERVER_ROOMS, key, Some(&()), None);
            }
        }
    }
    Ok(())
}
