//! Asking the index, and judging what it says.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedRoomId, OwnedUserId, api::client::filter::RoomEventFilter};
use vatra_search::{Hit, Order, Query, Terms};

use super::{
    Search, SearchError,
    texts::{Kind, said},
    token::{Group, SearchToken},
};
use crate::{
    event::filter,
    rooms::{Event, Reader, Room, RoomError, serve, visible::Viewer},
    schema::{EventSid, RoomSid, UserSid},
    users::Ignored,
};

/// How many results a page has when the client does not say, and at most.
const DEFAULT: usize = 10;
const MOST: usize = 100;
/// How many matches are judged for a page at most, and so how far they are counted.
const JUDGED: usize = 1_000;
/// How many are judged at once.
const AT_ONCE: usize = 200;
/// How many rooms or people a filter may name; [`SearchError::TooMany`] says it.
const MOST_LISTED: usize = 1_000;

/// What someone searches for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Words, all of which are to be there.
    pub term: String,
    /// Where they are looked for.
    pub kinds: Vec<Kind>,
    /// What passes.
    pub filter: RoomEventFilter,
    /// In which order it is given.
    pub order: Order,
    /// Where the page begins; the first one if absent.
    pub from: Option<SearchToken>,
}

/// A result.
#[derive(Clone)]
pub struct Match {
    /// The event.
    pub event: Arc<Event>,
    /// Its room.
    pub room: Arc<Room>,
    /// How well it matches: higher is better.
    pub rank: f32,
    /// Who has sent it.
    pub sender: UserSid,
}

/// A page of results.
pub struct Found {
    /// The results, in order.
    pub results: Vec<Match>,
    /// How many there are in all; of very many, how many are there at least.
    pub count: u64,
    /// Where the next page begins, if there may be one.
    pub next: Option<SearchToken>,
    /// What of the results is to be highlighted.
    pub highlights: Vec<String>,
}

impl Search {
    /// A page of what the viewer may see and the terms are in. `ignored` are people whose messages are left out.
    ///
    /// # Errors
    /// [`SearchError`]
    pub async fn find(
        &self,
        viewer: &Viewer,
        ignored: &Ignored,
        asked: &Asked,
    ) -> Result<Found, SearchError> {
        if asked.from.is_some_and(|from| from.order != asked.order) {
            return Err(SearchError::BadToken);
        }
        let terms = Terms::read(&asked.term)?;
        let reader = self.inner.rooms.reader();
        let query = query(&reader, viewer, asked, terms.clone()).await?;
        let hits = if query.rooms.is_empty() || query.kinds.is_empty() || terms.is_empty() {
            Vec::new()
        } else {
            self.reaches(reader.watermark()).await;
            self.ask(move |index| index.search(&query)).await?.hits
        };
        // Newer than what the index was made from: a view of before might not know the newest events.
        let judging = Judging {
            reader: self.inner.rooms.reader(),
            viewer,
            ignored,
            filter: &asked.filter,
        };
        let page = page(&judging, asked, &hits).await?;
        let texts = page.sources.iter().filter_map(|source| said(&source.pdu));
        let texts: Vec<String> = texts.collect();
        Ok(Found {
            highlights: terms.found_in(texts.iter().map(String::as_str)),
            results: page.results,
            count: page.count,
            next: page.next,
        })
    }
}

/// What the index is asked.
async fn query(
    reader: &Reader,
    viewer: &Viewer,
    asked: &Asked,
    terms: Terms,
) -> Result<Query, SearchError> {
    let filter = &asked.filter;
    let group = asked.from.map_or(Group::All, |from| from.group);
    let passing = |kind: &&Kind| filter::room_event_type_matches(filter, kind.event_type());
    let kinds = asked.kinds.iter().filter(passing);
    let rooms = rooms(reader, viewer, filter).await?;
    let rooms = rooms.into_iter().filter(|room| match group {
        Group::Room(only) => *room == only,
        Group::All | Group::Sender(_) => true,
    });
    let senders = senders(reader, filter, group).await?;
    Ok(Query {
        terms,
        kinds: kinds.map(|kind| kind.number()).collect(),
        rooms: rooms.map(|room| room.0).collect(),
        senders,
        order: asked.order,
        after: asked.from.map(|from| from.after),
        // One more tells that there are more.
        limit: JUDGED + 1,
    })
}

/// The rooms that the viewer is or was in, and that the filter lets pass.
async fn rooms(
    reader: &Reader,
    viewer: &Viewer,
    filter: &RoomEventFilter,
) -> Result<Vec<RoomSid>, SearchError> {
    let own = reader.rooms_of(viewer.sid).await?;
    let own = own
        .into_iter()
        .filter(|(_, row)| row.was_joined() && !row.forgotten)
        .map(|(room, _)| room);
    let excluded = numbers(reader, &filter.not_rooms, "not_rooms").await?;
    let only = match &filter.rooms {
        Some(rooms) => Some(numbers(reader, rooms, "rooms").await?),
        None => None,
    };
    let passes = |room: &RoomSid| {
        !excluded.contains(room) && only.as_ref().is_none_or(|only| only.contains(room))
    };
    Ok(own.filter(passes).collect())
}

async fn numbers(
    reader: &Reader,
    ids: &[OwnedRoomId],
    list: &'static str,
) -> Result<HashSet<RoomSid>, SearchError> {
    if ids.len() > MOST_LISTED {
        return Err(SearchError::TooMany(list));
    }
    let mut numbers = HashSet::new();
    for id in ids {
        match reader.room(id).await {
            Ok(room) => numbers.extend(room.map(|room| room.sid)),
            Err(RoomError::UnsupportedVersion) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(numbers)
}

/// Whose events are looked for; `None` is everyone's.
async fn senders(
    reader: &Reader,
    filter: &RoomEventFilter,
    group: Group,
) -> Result<Option<Vec<u64>>, SearchError> {
    for (list, names) in [
        (filter.senders.as_deref(), "senders"),
        (Some(&filter.not_senders), "not_senders"),
    ] {
        if list.is_some_and(|list: &[OwnedUserId]| list.len() > MOST_LISTED) {
            return Err(SearchError::TooMany(names));
        }
    }
    let mut senders = None;
    if let Some(listed) = &filter.senders {
        let known: &mut Vec<u64> = senders.get_or_insert_default();
        for sender in listed {
            known.extend(reader.user_sid(sender).await?.map(|sid| sid.0));
        }
    }
    if let Group::Sender(only) = group {
        let there = senders.is_none_or(|known| known.contains(&only.0));
        senders = Some(if there { vec![only.0] } else { Vec::new() });
    }
    Ok(senders)
}

/// A page being filled.
#[derive(Default)]
struct Page {
    results: Vec<Match>,
    /// The events that say what was found: the results, or their newest edits.
    sources: Vec<Arc<Event>>,
    count: u64,
    next: Option<SearchToken>,
}

async fn page(judging: &Judging<'_>, asked: &Asked, hits: &[Hit]) -> Result<Page, SearchError> {
    let limit = asked.filter.limit.and_then(|it| usize::try_from(it).ok());
    let limit = limit.unwrap_or(DEFAULT).clamp(1, MOST);
    let more = hits.len() > JUDGED;
    let hits = hits.get(..JUDGED).unwrap_or(hits);
    let mut page = Page {
        count: asked.from.map_or(0, |from| from.count),
        ..Page::default()
    };
    let mut last = hits.last().filter(|_| more);
    for some in hits.chunks(AT_ONCE) {
        for (hit, judged) in some.iter().zip(judging.judge(some).await?) {
            let Some((found, source)) = judged else {
                continue;
            };
            if asked.from.is_none() {
                page.count += 1;
            }
            if page.results.len() < limit {
                page.results.push(found);
                page.sources.push(source);
                if page.results.len() == limit {
                    // Whoever asks on from there may be told that there is no more.
                    last = Some(hit);
                }
            }
        }
        // The first page counts all of them; the others know.
        if page.results.len() == limit && asked.from.is_some() {
            break;
        }
    }
    page.next = last.map(|last| SearchToken {
        count: page.count,
        order: asked.order,
        after: last.place(asked.order),
        group: asked.from.map_or(Group::All, |from| from.group),
    });
    Ok(page)
}

/// Who judges what the index says.
struct Judging<'a> {
    reader: Reader,
    viewer: &'a Viewer,
    ignored: &'a Ignored,
    filter: &'a RoomEventFilter,
}

impl Judging<'_> {
    /// For each hit, whether it is a result, and which event says what was found.
    async fn judge(&self, hits: &[Hit]) -> Result<Vec<Option<(Match, Arc<Event>)>>, SearchError> {
        let mut sids: Vec<EventSid> = hits
            .iter()
            .flat_map(|hit| [EventSid(hit.item), EventSid(hit.source)])
            .collect();
        sids.sort_unstable();
        sids.dedup();
        let events = self.reader.events(&sids).await?;
        let mut by_room: HashMap<RoomSid, Vec<Arc<Event>>> = HashMap::new();
        for event in events.into_iter().flatten() {
            by_room.entry(event.room).or_default().push(event);
        }
        let mut heard: HashMap<EventSid, (Arc<Event>, Arc<Room>)> = HashMap::new();
        for (room, events) in by_room {
            let Some(room) = self.reader.room_by_sid(room).await? else {
                continue;
            };
            let said = serve::heard(&self.reader, self.viewer, &room, &events).await?;
            for (event, said) in events.into_iter().zip(said) {
                if said {
                    heard.insert(event.sid, (event, Arc::clone(&room)));
                }
            }
        }
        let result = |hit: &Hit| {
            // Who may not see the edit must not learn what is in it.
            let (source, _) = heard.get(&EventSid(hit.source))?;
            let (event, room) = heard.get(&EventSid(hit.item))?;
            self.passes(event, room).then(|| {
                let found = Match {
                    event: Arc::clone(event),
                    room: Arc::clone(room),
                    rank: hit.score,
                    sender: UserSid(hit.sender),
                };
                (found, Arc::clone(source))
            })
        };
        Ok(hits.iter().map(result).collect())
    }

    fn passes(&self, event: &Event, room: &Room) -> bool {
        let hushed = event.pdu.state_key.is_none() && self.ignored.contains(&event.pdu.sender);
        !hushed && filter::room_event_matches(self.filter, &room.id, &event.pdu)
    }
}
