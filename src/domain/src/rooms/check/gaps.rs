//! Gaps of the room order, and the missing events by their ids.

use vatra_store::View;

use crate::{
    audit::{Audit, AuditError, PAGE, Pages},
    schema::{
        EVENT_SIDS, EVENTS, EventRow, EventSid, GAPS, GapRow, MISSING, RoomOrder, RoomSid, Status,
    },
};

pub(super) async fn check(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut rows = Pages::new(&GAPS, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        for (place, gap) in page {
            check_gap(audit, &view, place, &gap).await?;
        }
    }
    let view = audit.view();
    let mut rows = Pages::new(&MISSING, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let places: Vec<_> = page.iter().map(|((room, _), at)| (*room, *at)).collect();
        let gaps = Audit::read_many(&view, &GAPS, &places).await?;
        for ((key, at), gap) in page.iter().zip(gaps) {
            if gap.is_none_or(|gap| !gap.missing.contains(&key.1)) {
                audit.row_is(&MISSING, key, Some(at), None);
            }
        }
    }
    Ok(())
}

async fn check_gap(
    audit: &mut Audit<'_>,
    view: &View,
    place: (RoomSid, RoomOrder),
    gap: &GapRow,
) -> Result<(), AuditError> {
    let (room, at) = place;
    let event = Audit::read(view, &EVENTS, &gap.event).await?;
    if event.is_none_or(|event| (event.head.room, event.head.order) != place) {
        audit.damaged(
            &GAPS,
            &place,
            "the event after the gap does not stand there",
        );
    }
    let keys: Vec<_> = gap.missing.iter().map(|id| (room, id.clone())).collect();
    let found = Audit::read_many(view, &MISSING, &keys).await?;
    let here = Audit::read_many(view, &EVENT_SIDS, &gap.missing).await?;
    for ((key, found), sid) in keys.into_iter().zip(found).zip(here) {
        // Of several gaps that wait for an event, its row names one; whether that one does is asked from the other side.
        if found.is_none() && !is_placed(view, sid, room).await? {
            audit.row_is(&MISSING, &key, None, Some(&at));
        }
    }
    Ok(())
}

/// Whether an event has its place in the room: the gap is told of it when it is next looked at.
async fn is_placed(view: &View, sid: Option<EventSid>, room: RoomSid) -> Result<bool, AuditError> {
    let Some(sid) = sid else {
        return Ok(false);
    };
    let row: Option<EventRow> = Audit::read(view, &EVENTS, &sid).await?;
    Ok(row.is_some_and(|row| {
        row.head.room == room
            && match row.head.status {
                Status::Outlier => false,
                Status::Rejected => row.head.tail.root_after.is_some(),
                Status::SoftFailed | Status::Held | Status::Visible => true,
            }
    }))
}
