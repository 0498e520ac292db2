//! The list of what the log does not tell: which events were filled in before a gap, or emptied because their time was over.
//!
//! Its rows are by position, so that what an event calls for is found by reading the list first: as many of the events that it names as memory is
//! meant for, and the next of them when the check has come so far.

use std::collections::BTreeSet;

use bytes::Bytes;
use vatra_store::{Direction, Map, Position, Range, StoreError, View};

use crate::{
    audit::{Audit, AuditError, PAGE, Pages},
    schema::{EVENTS, EventRow, EventSid, PAST, Status},
};

/// How many events are remembered at once: 20 MB.
const WINDOW: usize = 500_000;

/// Whether the list should name an event.
fn is_past(row: &EventRow) -> bool {
    let head = &row.head;
    head.status == Status::Visible && (head.position == Position::ZERO || head.tail.expired)
}

/// The events that the list names, of those with numbers up to `upto`, from some number on.
pub(super) struct Past {
    named: BTreeSet<EventSid>,
    /// `None`: nothing was read yet.
    upto: Option<EventSid>,
    window: usize,
}

impl Default for Past {
    fn default() -> Self {
        Self::with_window(WINDOW)
    }
}

impl Past {
    fn with_window(window: usize) -> Self {
        Self {
            named: BTreeSet::new(),
            upto: None,
            window,
        }
    }

    /// Whether the list names the events of a page that it should name. Pages come in the order of events' numbers.
    pub(super) async fn check(
        &mut self,
        audit: &mut Audit<'_>,
        view: &View,
        page: &[(EventSid, EventRow)],
    ) -> Result<(), AuditError> {
        for (sid, row) in page {
            if is_past(row) && !self.names(view, *sid).await? {
                let sid = *sid;
                audit.list_lacks(&PAST, &sid, move |position| ((position, sid), ()));
            }
        }
        audit.settle().await
    }

    async fn names(&mut self, view: &View, sid: EventSid) -> Result<bool, StoreError> {
        if self.upto.is_none_or(|upto| sid > upto) {
            self.read_from(view, sid).await?;
        }
        Ok(self.named.contains(&sid))
    }

    /// Reads the whole list, and keeps the first events from a number on.
    async fn read_from(&mut self, view: &View, from: EventSid) -> Result<(), StoreError> {
        // As bytes: what cannot be decoded is reported when the list itself is checked.
        let raw = Map::<(Position, EventSid), Bytes>::new(PAST.keyspace(), PAST.id(), PAST.name());
        self.named.clear();
        self.upto = Some(EventSid(u64::MAX));
        let mut range = Range::all();
        loop {
            let rows = view.range(&raw, range, Direction::Forward, PAGE).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range = Range::all().after(last);
            let upto = self.upto;
            let wanted = |sid: &EventSid| *sid >= from && Some(*sid) <= upto;
            let sids = rows.iter().map(|((_, sid), _)| *sid);
            self.named.extend(sids.filter(wanted));
            while self.named.len() > self.window {
                self.named.pop_last();
                self.upto = self.named.last().copied();
            }
        }
    }
}

/// Every row of the list names an event that calls for it.
pub(super) async fn backwards(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut pages = Pages::new(&PAST, super::events::EVENTS_PAGE);
    while let Some(page) = pages.next(&view, audit).await? {
        let sids: Vec<EventSid> = page.iter().map(|((_, sid), ())| *sid).collect();
        let rows = Audit::read_many(&view, &EVENTS, &sids).await?;
        for ((key, ()), row) in page.iter().zip(rows) {
            match row {
                Some(row) if is_past(&row) => {}
                Some(_) => audit.row_is(&PAST, key, Some(&()), None),
                None => {
                    let what = format!("no event, though past {key:?} names it");
                    audit.damaged(&EVENTS, &key.1, what);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use vatra_store::{Batch, MemoryEngine, Options, Store};

    use super::*;
    use crate::schema::migrations;

    #[tokio::test]
    async fn a_list_that_is_too_long_to_remember_is_read_in_parts() {
        let engine = Arc::new(MemoryEngine::new());
        let store = Store::open(engine, Options::default(), migrations())
            .await
            .unwrap();
        let mut batch = Batch::new();
        // Every third event, in another order than theirs, and some twice.
        for number in (0..3_000_u64).filter(|number| number % 3 == 0) {
            let at = Position((number * 7_919) % 1_000);
            batch.put(&PAST, &(at, EventSid(number)), &());
            if number % 2 == 0 {
                batch.put(&PAST, &(Position(5_000), EventSid(number)), &());
            }
        }
        store.write(batch).await.unwrap();
        let view = store.view();
        for window in [1, 10, 333, 1_000, 5_000] {
            let mut past = Past::with_window(window);
            for number in 0..if window == 1 { 100 } else { 3_000 } {
                let named = past.names(&view, EventSid(number)).await.unwrap();
                assert_eq!(named, number % 3 == 0, "{number} by {window}");
                assert!(past.named.len() <= window);
            }
        }
    }
}
