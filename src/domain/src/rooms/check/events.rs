//! Events, and the rows that are made from them: ids, both orders, the log, times, relations, threads.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
};

use ruma::RoomVersionId;
use vatra_store::{Key, Map, Position, Value, View};

use super::{
    past::{self, Past},
    trees::Trees,
};
use crate::{
    audit::{Audit, AuditError, Pages},
    event::{
        pdu::Pdu,
        relation::{Relation, THREAD},
        signer::Signer,
        sound,
    },
    schema::{
        EVENT_SIDS, EVENT_TIMES, EVENTS, EventRow, EventSid, LOG, LogRow, RELATED, RELATIONS,
        ROOM_LOG, ROOMS, RelationRow, RoomOrder, RoomRow, RoomSid, Status, THREAD_REPLIES,
        TIMELINE, USER_SIDS, UserSid,
    },
};

/// How many events are read at once: each has up to 66 kB.
pub(super) const EVENTS_PAGE: usize = 250;
/// How many rooms are remembered.
const ROOMS_KEPT: usize = 10_000;

/// Gives how many events there are.
pub(super) async fn check(
    audit: &mut Audit<'_>,
    signer: &Signer,
    trees: &mut Trees,
) -> Result<u64, AuditError> {
    let view = audit.view();
    let mut count = 0;
    let mut rooms = HashMap::new();
    let mut past = Past::default();
    let mut pages = Pages::new(&EVENTS, EVENTS_PAGE);
    while let Some(page) = pages.next(&view, audit).await? {
        let mut wanted = Wanted::default();
        for (sid, row) in &page {
            count += 1;
            let room = room(&view, &mut rooms, row.head.room).await?;
            let pdu = examine(audit, *sid, row, room.as_ref(), signer);
            wanted.add(*sid, row, pdu.as_ref());
        }
        wanted.check(audit, &view).await?;
        past.check(audit, &view, &page).await?;
        let roots = page.iter().filter_map(|(_, row)| row.head.root_before);
        trees.walk(audit, &view, roots.collect()).await?;
    }
    backwards(audit).await?;
    past::backwards(audit).await?;
    Ok(count)
}

async fn room(
    view: &View,
    known: &mut HashMap<RoomSid, Option<RoomRow>>,
    sid: RoomSid,
) -> Result<Option<RoomRow>, AuditError> {
    if let Some(row) = known.get(&sid) {
        return Ok(row.clone());
    }
    let row = Audit::read(view, &ROOMS, &sid).await?;
    if known.len() >= ROOMS_KEPT {
        known.clear();
    }
    known.insert(sid, row.clone());
    Ok(row)
}

/// The event by itself. Gives it if it can be read.
fn examine(
    audit: &mut Audit<'_>,
    sid: EventSid,
    row: &EventRow,
    room: Option<&RoomRow>,
    signer: &Signer,
) -> Option<Pdu> {
    let id = &row.head.event_id;
    let mut bad = |what: &str| audit.damaged(&EVENTS, &sid, format!("{id}: {what}"));
    let version = RoomVersionId::try_from(row.head.version.as_str()).ok();
    let Some(rules) = version.and_then(|version| version.rules()) else {
        bad(&format!("room version {} is unknown", row.head.version));
        return None;
    };
    let pdu = match Pdu::parse(row.pdu.clone(), &rules, None) {
        Ok(pdu) => pdu,
        Err(error) => {
            bad(&error.to_string());
            return None;
        }
    };
    if pdu.event_id.as_str() != id {
        bad(&format!("its content has the id {}", pdu.event_id));
    }
    match room {
        None => bad("its room has no row"),
        Some(room) if room.room_id != pdu.room_id.as_str() => {
            bad(&format!(
                "it is of {} and stored in {}",
                pdu.room_id, room.room_id
            ));
        }
        Some(_) => {}
    }
    let emptied = row.head.redacted_by.is_some() || row.head.tail.expired;
    for fault in sound::faults(&pdu, &rules, emptied, signer) {
        bad(&fault);
    }
    Some(pdu)
}

/// The relation that an event should be listed under; its sender's number is not known yet.
fn relation(row: &EventRow, pdu: &Pdu) -> Option<(RelationKey, Unnumbered)> {
    if row.head.status != Status::Visible {
        return None;
    }
    let Relation {
        rel_type,
        event_id,
        key,
        ..
    } = Relation::of(pdu)?;
    let place = (row.head.room, event_id.to_string(), row.head.order);
    let relation = Unnumbered {
        rel_type,
        kind: pdu.kind.to_string(),
        sender: pdu.sender.to_string(),
        key,
    };
    Some((place, relation))
}

/// When an event says it was sent, and where it stands.
fn time(row: &EventRow, pdu: &Pdu) -> (RoomSid, u64, RoomOrder) {
    (row.head.room, pdu.origin_server_ts.0.into(), row.head.order)
}

/// An event that can be read.
pub(super) fn parse(row: &EventRow) -> Option<Pdu> {
    let version = RoomVersionId::try_from(row.head.version.as_str()).ok()?;
    Pdu::parse(row.pdu.clone(), &version.rules()?, None).ok()
}

type RelationKey = (RoomSid, String, RoomOrder);

struct Unnumbered {
    rel_type: String,
    kind: String,
    sender: String,
    key: Option<String>,
}

impl Unnumbered {
    fn row(self, event: EventSid, sender: UserSid) -> RelationRow {
        RelationRow {
            event,
            rel_type: self.rel_type,
            kind: self.kind,
            sender,
            key: self.key,
        }
    }
}

/// The rows that a page of events calls for.
#[derive(Default)]
struct Wanted {
    ids: Vec<(String, EventSid)>,
    timeline: Vec<((RoomSid, RoomOrder), EventSid)>,
    room_log: Vec<((RoomSid, Position), LogRow)>,
    log: Vec<(Position, LogRow)>,
    times: Vec<((RoomSid, u64, RoomOrder), EventSid)>,
    threads: Vec<((RoomSid, RoomOrder), String)>,
    relations: Vec<(RelationKey, Unnumbered, EventSid)>,
}

impl Wanted {
    fn add(&mut self, sid: EventSid, row: &EventRow, pdu: Option<&Pdu>) {
        let head = &row.head;
        self.ids.push((head.event_id.clone(), sid));
        if head.status != Status::Visible {
            return;
        }
        let log = LogRow {
            room: head.room,
            event: sid,
            order: head.order,
        };
        self.timeline.push(((head.room, head.order), sid));
        if let Some(pdu) = pdu {
            self.times.push((time(row, pdu), sid));
            if let Some((key, relation)) = relation(row, pdu) {
                if relation.rel_type == THREAD {
                    self.threads.push(((key.0, key.2), key.1.clone()));
                }
                self.relations.push((key, relation, sid));
            }
        }
        // What was filled into a gap was never news.
        if head.position == Position(0) {
            return;
        }
        self.room_log.push(((head.room, head.position), log));
        self.log.push((head.position, log));
    }

    async fn check(self, audit: &mut Audit<'_>, view: &View) -> Result<(), AuditError> {
        audit.rows_are(view, &EVENT_SIDS, self.ids).await?;
        audit.rows_are(view, &TIMELINE, self.timeline).await?;
        audit.rows_are(view, &ROOM_LOG, self.room_log).await?;
        audit.rows_are(view, &LOG, self.log).await?;
        audit.rows_are(view, &EVENT_TIMES, self.times).await?;
        audit.rows_are(view, &THREAD_REPLIES, self.threads).await?;
        // That a row is there although the relations are gone is no fault: it only says that it is worth looking.
        let related: BTreeSet<_> = self
            .relations
            .iter()
            .map(|((room, target, _), ..)| (*room, target.clone()))
            .collect();
        let related = related.into_iter().map(|key| (key, ())).collect();
        audit.rows_are(view, &RELATED, related).await?;
        let senders: Vec<String> = self
            .relations
            .iter()
            .map(|(_, relation, _)| relation.sender.clone())
            .collect();
        let senders = Audit::read_many(view, &USER_SIDS, &senders).await?;
        let mut relations = Vec::new();
        for ((key, relation, event), sender) in self.relations.into_iter().zip(senders) {
            match sender {
                Some(sender) => relations.push((key, relation.row(event, sender))),
                None => audit.damaged(&USER_SIDS, &relation.sender, "sent an event, has no number"),
            }
        }
        audit.rows_are(view, &RELATIONS, relations).await
    }
}

/// Rows that no event calls for.
async fn backwards(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let placed = |row: &EventRow| row.head.status == Status::Visible;
    let named = |row: &EventRow, id: &String| row.head.event_id == *id;
    // Ids that other events mention have numbers before their events are here.
    from_index(
        audit,
        &EVENT_SIDS,
        |sid| *sid,
        false,
        |row, id, _| named(row, id),
    )
    .await?;
    let stands = |row: &EventRow, key: &(RoomSid, _), _: &EventSid| {
        placed(row) && (row.head.room, row.head.order) == *key
    };
    from_index(audit, &TIMELINE, |sid| *sid, true, stands).await?;
    let logged = |row: &EventRow, key: &(RoomSid, _), _: &LogRow| {
        placed(row) && (row.head.room, row.head.position) == *key
    };
    from_index(audit, &ROOM_LOG, |log| log.event, true, logged).await?;
    let logged =
        |row: &EventRow, position: &_, _: &LogRow| placed(row) && row.head.position == *position;
    from_index(audit, &LOG, |log| log.event, true, logged).await?;
    let relates = |row: &EventRow, key: &RelationKey, _: &RelationRow| {
        // What cannot be read was reported; nobody knows what it related to.
        parse(row).is_none_or(|pdu| relation(row, &pdu).is_some_and(|(place, _)| place == *key))
    };
    from_index(audit, &RELATIONS, |relation| relation.event, true, relates).await?;
    let sent = |row: &EventRow, key: &(RoomSid, u64, RoomOrder), _: &EventSid| {
        placed(row) && parse(row).is_none_or(|pdu| time(row, &pdu) == *key)
    };
    from_index(audit, &EVENT_TIMES, |sid| *sid, true, sent).await?;
    threads(audit).await
}

/// Every reply in a thread is one: its row names the root, and only its place says which event it is.
async fn threads(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    let view = audit.view();
    let mut pages = Pages::new(&THREAD_REPLIES, EVENTS_PAGE);
    while let Some(page) = pages.next(&view, audit).await? {
        let places: Vec<_> = page.iter().map(|(place, _)| *place).collect();
        let sids = Audit::read_many(&view, &TIMELINE, &places).await?;
        let known: Vec<EventSid> = sids.iter().flatten().copied().collect();
        let rows = Audit::read_many(&view, &EVENTS, &known).await?;
        let rows: HashMap<EventSid, Option<EventRow>> = known.into_iter().zip(rows).collect();
        for ((place, root), sid) in page.iter().zip(sids) {
            let replies = match sid.and_then(|sid| rows.get(&sid)) {
                // Nothing stands there.
                None => false,
                // What is not there or cannot be read was reported.
                Some(None) => true,
                Some(Some(row)) => parse(row).is_none_or(|pdu| {
                    relation(row, &pdu).is_some_and(|((_, target, _), it)| {
                        it.rel_type == THREAD && target == *root
                    })
                }),
            };
            if !replies {
                audit.row_is(&THREAD_REPLIES, place, Some(root), None);
            }
        }
    }
    Ok(())
}

/// Every row of an index names an event that calls for it. `present`: the event must be there.
async fn from_index<K, V>(
    audit: &mut Audit<'_>,
    map: &Map<K, V>,
    event: fn(&V) -> EventSid,
    present: bool,
    calls: impl Fn(&EventRow, &K, &V) -> bool,
) -> Result<(), AuditError>
where
    K: Key + Debug,
    V: Value + PartialEq,
{
    let view = audit.view();
    let mut pages = Pages::new(map, EVENTS_PAGE);
    while let Some(page) = pages.next(&view, audit).await? {
        let sids: Vec<EventSid> = page.iter().map(|(_, row)| event(row)).collect();
        let rows = Audit::read_many(&view, &EVENTS, &sids).await?;
        for (((key, row), sid), found) in page.iter().zip(&sids).zip(rows) {
            match found {
                Some(found) if calls(&found, key, row) => {}
                Some(_) => audit.row_is(map, key, Some(row), None),
                None if present => {
                    audit.damaged(
                        &EVENTS,
                        sid,
                        format!("no event, though {} {key:?} names it", map.name()),
                    );
                }
                None => {}
            }
        }
    }
    Ok(())
}
