//! Reading a room's history: a page of it, or what stands around one event.
//! <https://spec.matrix.org/v1.19/client-server-api/#syncing>

use std::{ops::Bound, sync::Arc};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{
    OwnedUserId, UInt,
    api::client::filter::{LazyLoadOptions, RoomEventFilter},
    events::{StateEventType, TimelineEventType},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use vatra_domain::{
    event::filter::{self, Relations},
    flows::backfill,
    rooms::{Event, RoomError},
    schema::RoomOrder,
    sync::token::{OrderToken, SyncToken},
    users::{Ignored, Requester},
};
use vatra_store::Direction;

use super::{
    super::{endpoint::Input, error::Error},
    rooms::Seen,
};
use crate::wiring::App;

/// How many events a page has when the client does not say, and at most.
const DEFAULT: usize = 10;
const MOST: usize = 1_000;
/// How many rows a page looks at to find events that pass the filter.
const SCANNED: usize = 5_000;

/// `GET /rooms/{room}/messages`.
pub(super) async fn messages(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let seen = Seen::new(&app, &caller, input.id(0)?).await?;
    let direction = match input.param("dir").as_deref() {
        Some("b") => Direction::Backward,
        Some("f") => Direction::Forward,
        _ => return Err(Error::invalid_param("dir is b or f")),
    };
    let (filter, relations): (RoomEventFilter, Relations) =
        (read_filter(&input)?, read_filter(&input)?);
    let limit = read_limit(&input, filter.limit)?;
    let newest = seen
        .reader
        .order_at(seen.room.sid, seen.until())
        .await?
        .map(OrderToken::after);
    let newest = newest.unwrap_or(OrderToken(RoomOrder(0)));
    let from = match input.param("from") {
        Some(token) => place(&seen, &token).await?,
        None if direction == Direction::Backward => newest,
        None => OrderToken(RoomOrder(0)),
    };
    let to = match input.param("to") {
        Some(token) => Some(place(&seen, &token).await?),
        None => None,
    };
    let seen = if direction == Direction::Backward {
        let start = from.0.min(newest.0);
        backfill::before(&app.receiver, &seen.room, start, limit).await?;
        // What was filled in is seen from now on.
        Seen::new(&app, &caller, input.id(0)?).await?
    } else {
        seen
    };
    let ignored = app.users.ignored(caller.sid).await?;
    let page = Page {
        seen: &seen,
        filter: &filter,
        relations: &relations,
        ignored: &ignored,
        limit,
    };
    let (events, end) = match direction {
        Direction::Backward => page.back(OrderToken(from.0.min(newest.0)), to).await?,
        Direction::Forward => {
            page.forward(from, OrderToken(to.unwrap_or(newest).0.min(newest.0)))
                .await?
        }
    };
    let members = members_of(&seen, &filter, &events).await?;
    let answer = Messages {
        start: from.to_string(),
        chunk: seen.show(&app, &events).await?,
        end: end.map(|end| end.to_string()),
        state: seen.show(&app, &members).await?,
    };
    Ok(Json(answer).into_response())
}

/// The answer of `/messages`; its events are written as they are.
#[derive(Serialize)]
struct Messages {
    start: String,
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    state: Vec<Box<RawValue>>,
}

/// The newest events that someone may see, newest first, and where to read on backwards.
pub(super) async fn newest(
    app: &App,
    caller: &Requester,
    seen: &Seen,
    limit: usize,
) -> Result<(Vec<Arc<Event>>, Option<OrderToken>), Error> {
    let ignored = app.users.ignored(caller.sid).await?;
    let page = Page {
        seen,
        filter: &RoomEventFilter::default(),
        relations: &Relations::default(),
        ignored: &ignored,
        limit,
    };
    page.back(OrderToken(seen.end().await?), None).await
}

/// A page being filled.
struct Page<'a> {
    seen: &'a Seen,
    filter: &'a RoomEventFilter,
    relations: &'a Relations,
    /// Whose messages are left out.
    ignored: &'a Ignored,
    limit: usize,
}

impl Page<'_> {
    /// Events before `from`, newest first, and where to go on.
    async fn back(
        &self,
        from: OrderToken,
        to: Option<OrderToken>,
    ) -> Result<(Vec<Arc<Event>>, Option<OrderToken>), Error> {
        let lower = to.map_or(Bound::Unbounded, |OrderToken(order)| Bound::Included(order));
        let mut at = from;
        let mut page = Vec::new();
        let mut scanned = 0;
        loop {
            let rows = self
                .read(lower, Bound::Excluded(at.0), Direction::Backward)
                .await?;
            let done = rows.len() < self.limit;
            scanned += rows.len();
            for (event, passes) in self.judged(rows).await? {
                at = OrderToken::before(event.order);
                if passes {
                    page.push(event);
                }
                if page.len() == self.limit {
                    return Ok((page, Some(at)));
                }
            }
            if done {
                // Whoever asks on from there is told that there is no more; many clients expect a token with every page
                // that has read something.
                return Ok((page, (scanned > 0).then_some(at)));
            }
            if scanned >= SCANNED {
                return Ok((page, Some(at)));
            }
        }
    }

    /// Events from `from` on, oldest first, up to `to`.
    async fn forward(
        &self,
        from: OrderToken,
        to: OrderToken,
    ) -> Result<(Vec<Arc<Event>>, Option<OrderToken>), Error> {
        let mut at = from;
        let mut page = Vec::new();
        let mut scanned = 0;
        loop {
            if at.0 >= to.0 {
                return Ok((page, None));
            }
            let rows = self
                .read(
                    Bound::Included(at.0),
                    Bound::Excluded(to.0),
                    Direction::Forward,
                )
                .await?;
            let done = rows.len() < self.limit;
            scanned += rows.len();
            for (event, passes) in self.judged(rows).await? {
                at = OrderToken::after(event.order);
                if passes {
                    page.push(event);
                }
                if page.len() == self.limit {
                    return Ok((page, Some(at)));
                }
            }
            if done {
                // Whoever asks on from there is told that there is no more; many clients expect a token with every page
                // that has read something.
                return Ok((page, (scanned > 0).then_some(at)));
            }
            if scanned >= SCANNED {
                return Ok((page, Some(at)));
            }
        }
    }

    async fn read(
        &self,
        from: Bound<RoomOrder>,
        to: Bound<RoomOrder>,
        direction: Direction,
    ) -> Result<Vec<Arc<Event>>, RoomError> {
        self.seen
            .reader
            .timeline(self.seen.room.sid, from, to, direction, self.limit)
            .await
    }

    async fn judged(&self, rows: Vec<Arc<Event>>) -> Result<Vec<(Arc<Event>, bool)>, RoomError> {
        let seen = self.seen;
        let visible = seen.viewer.visible(&seen.reader, &seen.room, &rows).await?;
        let passes = |event: &Arc<Event>| {
            let hushed = event.pdu.state_key.is_none() && self.ignored.contains(&event.pdu.sender);
            !hushed
                && filter::room_event_matches(self.filter, &seen.room.id, &event.pdu)
                && self.relations.pass(&event.pdu)
        };
        Ok(rows
            .into_iter()
            .zip(visible)
            .map(|(event, visible)| {
                let passes = visible && passes(&event);
                (event, passes)
            })
            .collect())
    }
}

/// `GET /rooms/{room}/context/{event}`.
pub(super) async fn context(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let seen = Seen::new(&app, &caller, input.id(0)?).await?;
    let id: &ruma::EventId = input.id(1)?;
    let event = seen.event(id).await?;
    let (filter, relations): (RoomEventFilter, Relations) =
        (read_filter(&input)?, read_filter(&input)?);
    let limit = match input.param("limit").as_deref() {
        // Only the event itself.
        Some("0") => 0,
        Some(_) => read_limit(&input, filter.limit)?,
        None => DEFAULT,
    };
    let ignored = app.users.ignored(caller.sid).await?;
    let limits = (limit.div_ceil(2), limit / 2);
    let Around {
        before,
        later,
        start,
        end,
    } = around(&seen, (&ignored, &filter, &relations), &event, limits).await?;
    let last = later.last().unwrap_or(&event);
    let root = seen.reader.root_after(last).await?;
    let mut state = seen.reader.state_events_at(root).await?;
    let everyone: Vec<Arc<Event>> = before
        .iter()
        .chain([&event])
        .chain(&later)
        .cloned()
        .collect();
    if let LazyLoadOptions::Enabled { .. } = filter.lazy_load_options {
        let senders: Vec<&OwnedUserId> = everyone.iter().map(|event| &event.pdu.sender).collect();
        state.retain(|event| {
            event.pdu.kind != TimelineEventType::RoomMember
                || senders
                    .iter()
                    .any(|sender| event.pdu.state_key.as_deref() == Some(sender.as_str()))
        });
    }
    let answer = Context {
        start: start.to_string(),
        end: end.to_string(),
        event: seen
            .show(&app, std::slice::from_ref(&event))
            .await?
            .into_iter()
            .next(),
        events_before: seen.show(&app, &before).await?,
        events_after: seen.show(&app, &later).await?,
        state: seen.show(&app, &state).await?,
    };
    Ok(Json(answer).into_response())
}

/// What stands around an event.
pub(super) struct Around {
    /// The events before it, newest first.
    pub(super) before: Vec<Arc<Event>>,
    /// The events after it, oldest first.
    pub(super) later: Vec<Arc<Event>>,
    /// Where to read on backwards, and forwards.
    pub(super) start: OrderToken,
    pub(super) end: OrderToken,
}

/// Events before and after one, so many at most, that someone may see and that pass.
pub(super) async fn around(
    seen: &Seen,
    (ignored, filter, relations): (&Ignored, &RoomEventFilter, &Relations),
    event: &Arc<Event>,
    (before_limit, after_limit): (usize, usize),
) -> Result<Around, Error> {
    let newest = seen
        .reader
        .order_at(seen.room.sid, seen.until())
        .await?
        .map_or(OrderToken(event.order), OrderToken::after);
    let (here, after) = (
        OrderToken::before(event.order),
        OrderToken::after(event.order),
    );
    let page = |limit| Page {
        seen,
        filter,
        relations,
        ignored,
        limit,
    };
    // Where to read on from is at the event itself, on a side of which nothing is shown.
    let (before, start) = match before_limit {
        0 => (Vec::new(), None),
        limit => page(limit).back(here, None).await?,
    };
    let (later, end) = match after_limit {
        0 => (Vec::new(), None),
        limit => page(limit).forward(after, newest).await?,
    };
    let start = start.or(before.last().map(|event| OrderToken::before(event.order)));
    let end = end.or(later.last().map(|event| OrderToken::after(event.order)));
    Ok(Around {
        before,
        later,
        start: start.unwrap_or(here),
        end: end.unwrap_or(after),
    })
}

/// The answer of `/context`; its events are written as they are.
#[derive(Serialize)]
struct Context {
    start: String,
    end: String,
    event: Option<Box<RawValue>>,
    events_before: Vec<Box<RawValue>>,
    events_after: Vec<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
}

/// A place in the room, from a token of either kind.
pub(super) async fn place(seen: &Seen, token: &str) -> Result<OrderToken, Error> {
    if let Ok(place) = token.parse::<OrderToken>() {
        return Ok(place);
    }
    let token: SyncToken = token
        .parse()
        .map_err(|_| Error::invalid_param("that is no token of this server"))?;
    let order = seen.reader.order_at(seen.room.sid, token.position).await?;
    Ok(order.map_or(OrderToken(RoomOrder(0)), OrderToken::after))
}

fn read_filter<T: Default + DeserializeOwned>(input: &Input) -> Result<T, Error> {
    match input.param("filter") {
        Some(json) => serde_json::from_str(&json)
            .map_err(|error| Error::invalid_param(&format!("filter: {error}"))),
        None => Ok(T::default()),
    }
}

pub(super) fn read_limit(input: &Input, in_filter: Option<UInt>) -> Result<usize, Error> {
    let asked = match input.param("limit") {
        Some(text) => Some(
            text.parse::<usize>()
                .map_err(|_| Error::invalid_param("limit is a number"))?,
        ),
        None => in_filter.and_then(|limit| usize::try_from(limit).ok()),
    };
    Ok(asked.unwrap_or(DEFAULT).clamp(1, MOST))
}

/// The senders' member events, for clients that load members lazily.
async fn members_of(
    seen: &Seen,
    filter: &RoomEventFilter,
    events: &[Arc<Event>],
) -> Result<Vec<Arc<Event>>, Error> {
    let LazyLoadOptions::Enabled { .. } = filter.lazy_load_options else {
        return Ok(Vec::new());
    };
    let mut members: Vec<Arc<Event>> = Vec::new();
    for event in events {
        let sender = event.pdu.sender.as_str();
        if members
            .iter()
            .any(|member| member.pdu.state_key.as_deref() == Some(sender))
        {
            continue;
        }
        let member = seen
            .reader
            .state_at_key(event.root_before, &StateEventType::RoomMember, sender)
            .await?;
        members.extend(member);
    }
    Ok(members)
}
