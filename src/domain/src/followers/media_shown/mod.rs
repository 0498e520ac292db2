//! Keeps an index from media to the events that show it, so that media goes when all of them were redacted, or emptied because their
//! time was over.
//!
//! What an event shows is worked out from the store as it is now, so dealing with an event twice does no harm. It is read from the log, and
//! beside it from the list of what the log does not tell ([`schema::PAST`]). What nobody sees here, such as the files of encrypted rooms,
//! is in no row, and so never goes by this rule.
//!
//! That media was shown and is not any more counts for this server's own only if who uploaded it has shown it: else anyone who knows an id could
//! show it, take that back, and so delete what is somebody else's. `flows/purge_media` takes away what [`schema::RETRACTED_MEDIA`] has.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use async_trait::async_trait;
use ruma::{ServerName, events::TimelineEventType};
use serde_json::Value as Json;
use vatra_store::{Batch, Direction, Position, Range, View};

use super::{FollowError, Follower};
use crate::{
    audit::{Audit, AuditError, PAGE as ROWS, Pages, Problem},
    clock::SharedClock,
    rooms::{Event, Reader, RoomError, Rooms},
    schema::{
        self, EventSid, FollowerRow, LogRow, MEDIA, MEDIA_SHOWN, RETRACTED_MEDIA, SHOWN_MEDIA,
    },
};

/// Its name among the followers, and that under which it keeps how far it has read the list beside the log.
const NAME: &str = "media_shown";
const PAST: &str = "media_shown:past";
/// How much of that list is read with a page of the log.
const PAGE: usize = 200;
/// Of how many media it is noted that an event shows them.
const MOST: usize = 50;

/// A server and a media id.
type Media = (String, String);

/// The follower.
pub struct MediaShown {
    rooms: Rooms,
    clock: SharedClock,
}

impl MediaShown {
    /// One that has not begun: start it with [`super::run`].
    pub fn new(rooms: Rooms, clock: SharedClock) -> Self {
        Self { rooms, clock }
    }

    /// Some more of the list beside the log.
    async fn past(&self, view: &View, batch: &mut Batch) -> Result<Vec<EventSid>, FollowError> {
        let name = PAST.to_owned();
        let row = view.get(&schema::FOLLOWERS, &name).await?;
        let row = row.unwrap_or_default();
        let from = (row.cursor, EventSid(u64::MAX));
        let range = Range::all().after(&from);
        let mut rows = view
            .range(&schema::PAST, range, Direction::Forward, PAGE)
            .await?;
        let Some((last, ())) = rows.last().copied() else {
            return Ok(Vec::new());
        };
        // All of a position: the cursor stands behind it.
        let end = (last.0, EventSid(u64::MAX));
        let range = Range::between(Bound::Excluded(&last), Bound::Included(&end));
        let rest = view.range(&schema::PAST, range, Direction::Forward, usize::MAX);
        rows.extend(rest.await?);
        let moved = FollowerRow {
            cursor: last.0,
            ..row
        };
        batch.put(&schema::FOLLOWERS, &name, &moved);
        Ok(rows.into_iter().map(|((_, sid), ())| sid).collect())
    }

    /// Makes the rows of an event what they should be.
    async fn note(
        &self,
        reader: &Reader,
        event: &Event,
        batch: &mut Batch,
    ) -> Result<(), FollowError> {
        let shown = shown(event);
        let view = reader.view();
        let range = Range::prefix(&(event.sid,));
        let rows = view
            .range(&SHOWN_MEDIA, range, Direction::Forward, usize::MAX)
            .await?;
        let noted: BTreeSet<Media> = rows
            .into_iter()
            .map(|((_, server, id), ())| (server, id))
            .collect();
        for media in shown.difference(&noted) {
            let (by_event, by_media) = rows_of(event.sid, media);
            batch.put(&SHOWN_MEDIA, &by_event, &());
            batch.put(&MEDIA_SHOWN, &by_media, &());
        }
        for media in noted.difference(&shown) {
            let (by_event, by_media) = rows_of(event.sid, media);
            batch.delete(&SHOWN_MEDIA, &by_event);
            batch.delete(&MEDIA_SHOWN, &by_media);
            let Some(row) = view.get(&MEDIA, media).await? else {
                continue;
            };
            let local = media.0 == reader.server_name().as_str();
            if !local || row.uploader == event.pdu.sender.as_str() {
                batch.put(&RETRACTED_MEDIA, media, &self.clock.now());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Follower for MediaShown {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn follow(
        &self,
        page: &[(Position, LogRow)],
        batch: &mut Batch,
    ) -> Result<(), FollowError> {
        let reader = self.rooms.reader();
        let mut sids: Vec<EventSid> = page.iter().map(|(_, row)| row.event).collect();
        sids.extend(self.past(reader.view(), batch).await?);
        for event in reader.events(&sids).await?.into_iter().flatten() {
            if let Some(redacted) = redacted(&reader, &event).await? {
                self.note(&reader, &redacted, batch).await?;
            }
            self.note(&reader, &event, batch).await?;
        }
        Ok(())
    }

    async fn stored(&self, _: &[(Position, LogRow)]) {}
}

/// The event that a redaction has emptied.
async fn redacted(reader: &Reader, event: &Event) -> Result<Option<Arc<Event>>, RoomError> {
    if event.pdu.kind != TimelineEventType::RoomRedaction {
        return Ok(None);
    }
    match &event.pdu.redacts {
        Some(target) => reader.event(event.room, target).await,
        None => Ok(None),
    }
}

fn rows_of(
    event: EventSid,
    (server, id): &Media,
) -> ((EventSid, String, String), (String, String, EventSid)) {
    (
        (event, server.clone(), id.clone()),
        (server.clone(), id.clone(), event),
    )
}

/// The media that an event shows: what its content names anywhere, also within a text.
fn shown(event: &Event) -> BTreeSet<Media> {
    let mut found = BTreeSet::new();
    let content = event.pdu.content();
    // Most events name none.
    if !event.is_empty()
        && content.get().contains("mxc:")
        && let Ok(content) = serde_json::from_str::<Json>(content.get())
    {
        find(&content, &mut found);
    }
    found
}

fn find(value: &Json, found: &mut BTreeSet<Media>) {
    match value {
        Json::String(text) => {
            for rest in text.split("mxc://").skip(1) {
                let Some((server, rest)) = rest.split_once('/') else {
                    continue;
                };
                let fits = |it: char| it.is_ascii_alphanumeric() || "_-".contains(it);
                let id = rest.split(|it| !fits(it)).next().unwrap_or_default();
                if found.len() < MOST && !id.is_empty() && ServerName::parse(server).is_ok() {
                    found.insert((server.to_owned(), id.to_owned()));
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| find(item, found)),
        Json::Object(fields) => fields.values().for_each(|field| find(field, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// Compares the index with itself, both ways, and with the events that it is made from. Rows of events that were emptied a moment ago may
/// be there until the follower has dealt with it.
///
/// # Errors
/// If the store cannot be read, or does not take a repair.
pub async fn check(
    rooms: &Rooms,
    repair: bool,
    mut report: impl FnMut(Problem) + Send,
) -> Result<u64, CheckError> {
    let mut audit = Audit::new(rooms.store().clone(), repair, &mut report);
    let reader = rooms.reader();
    let view = audit.view();
    let mut rows = Pages::new(&SHOWN_MEDIA, ROWS);
    while let Some(page) = rows.next(&view, &mut audit).await? {
        let mut wanted = Vec::new();
        for ((sid, server, id), ()) in page {
            let (by_event, by_media) = rows_of(sid, &(server.clone(), id.clone()));
            let event = reader.event_by_sid(sid).await?;
            let right =
                |event: Arc<Event>| event.is_empty() || shown(&event).contains(&(server, id));
            if event.is_some_and(right) {
                wanted.push((by_media, ()));
            } else {
                audit.row_is(&SHOWN_MEDIA, &by_event, Some(&()), None);
            }
        }
        audit.rows_are(&view, &MEDIA_SHOWN, wanted).await?;
    }
    let view = audit.view();
    let mut rows = Pages::new(&MEDIA_SHOWN, ROWS);
    while let Some(page) = rows.next(&view, &mut audit).await? {
        let keys: Vec<_> = page
            .into_iter()
            .map(|((server, id, sid), ())| rows_of(sid, &(server, id)))
            .collect();
        let by_event: Vec<_> = keys.iter().map(|(by_event, _)| by_event.clone()).collect();
        let found = Audit::read_many(&view, &SHOWN_MEDIA, &by_event).await?;
        for ((_, by_media), found) in keys.iter().zip(found) {
            if found.is_none() {
                audit.row_is(&MEDIA_SHOWN, by_media, Some(&()), None);
            }
        }
    }
    // Nothing else says what these say: they can only be readable.
    let mut rows = Pages::new(&RETRACTED_MEDIA, ROWS);
    while rows.next(&view, &mut audit).await?.is_some() {}
    audit.settle().await?;
    Ok(audit.problems())
}

/// Why a check ended early.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Rows.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The store.
    #[error(transparent)]
    Store(#[from] vatra_store::StoreError),
    /// An event.
    #[error(transparent)]
    Room(#[from] RoomError),
}
