//! What relates to an event, a page at a time; the threads of a room; the event nearest to a moment.
//! <https://spec.matrix.org/v1.19/client-server-api/#relationships-api>

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{OwnedEventId, api::client::room::get_event_by_timestamp::v1 as get_event_by_timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use vatra_domain::{
    flows::at_time::{Moment, nearest},
    rooms::{Event, threads},
    schema::{EventSid, RelationRow, RoomOrder},
    sync::token::OrderToken,
    users::Requester,
};
use vatra_store::Direction;

use super::{
    super::{endpoint::Input, error::Error},
    messages::place,
    rooms::Seen,
};
use crate::wiring::App;

/// How many events a page has when the client does not say, and at most.
const DEFAULT: usize = 20;
const MOST: usize = 500;
/// How many steps from the event are followed when the client asks for indirect relations too.
const DEPTH: usize = 3;
/// How many related events are looked at in all.
const LOOKED_AT: usize = 10_000;

/// `GET /rooms/{room}/relations/{event}[/{rel_type}[/{event_type}]]`.
pub(super) async fn relations(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let id: &ruma::EventId = input.id(1)?;
    let seen = Seen::new(&app, &caller, input.id(0)?).await?;
    let parent = seen.event(id).await?;
    let asked = Asked::read(&seen, &input).await?;
    let related = related(&seen, &parent, asked.recurse).await?;
    let (events, next) = asked.page(&seen, related, &input).await?;
    let answer = Relations {
        chunk: seen.show(&app, &events).await?,
        next_batch: next.map(|next| next.to_string()),
        prev_batch: asked.from.map(|from| from.to_string()),
        recursion_depth: asked.recurse.then_some(DEPTH),
    };
    Ok(Json(answer).into_response())
}

/// `GET /rooms/{room}/threads`.
pub(super) async fn threads(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let seen = Seen::new(&app, &caller, input.id(0)?).await?;
    let participated = match input.param("include").as_deref() {
        None | Some("all") => false,
        Some("participated") => true,
        Some(_) => return Err(Error::invalid_param("include is all or participated")),
    };
    let newest = seen.end().await?;
    let before = match input.param("from") {
        Some(token) => place(&seen, &token).await?.0,
        None => newest,
    };
    let asked = threads::Asked {
        before,
        participated,
        limit: read_limit(&input)?,
    };
    let (roots, next) =
        threads::threads(&seen.reader, &seen.viewer, &seen.room, newest, asked).await?;
    let answer = Threads {
        chunk: seen.show(&app, &roots).await?,
        next_batch: next.map(|next| OrderToken::before(next).to_string()),
    };
    Ok(Json(answer).into_response())
}

/// `GET /rooms/{room}/timestamp_to_event`.
pub(super) async fn at_time(
    app: App,
    caller: Requester,
    request: get_event_by_timestamp::Request,
) -> Result<get_event_by_timestamp::Response, Error> {
    let seen = Seen::new(&app, &caller, &request.room_id).await?;
    let direction = match request.dir {
        ruma::api::Direction::Forward => Direction::Forward,
        ruma::api::Direction::Backward => Direction::Backward,
    };
    let (newest, ts) = (seen.end().await?, request.ts.0.into());
    let moment = Moment { ts, direction };
    let found = nearest(&app.receiver, &seen.viewer, &seen.room, newest, moment);
    let event = found
        .await?
        .ok_or_else(|| Error::not_found("there is no event on that side of the moment"))?;
    let (id, ts) = (event.pdu.event_id.clone(), event.pdu.origin_server_ts);
    Ok(get_event_by_timestamp::Response::new(id, ts))
}

fn read_limit(input: &Input) -> Result<usize, Error> {
    match input.param("limit").map(|text| text.parse::<usize>()) {
        None => Ok(DEFAULT),
        Some(Ok(limit)) if limit > 0 => Ok(limit.min(MOST)),
        Some(_) => Err(Error::invalid_param("limit is a positive number")),
    }
}

/// The answer of `/threads`.
#[derive(Serialize)]
struct Threads {
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

/// The answer of `/relations`; its events are written as they are.
#[derive(Serialize)]
struct Relations {
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recursion_depth: Option<usize>,
}

/// What the query says.
struct Asked {
    backward: bool,
    from: Option<OrderToken>,
    to: Option<OrderToken>,
    limit: usize,
    recurse: bool,
}

impl Asked {
    async fn read(seen: &Seen, input: &Input) -> Result<Self, Error> {
        let backward = match input.param("dir").as_deref() {
            None | Some("b") => true,
            Some("f") => false,
            Some(_) => return Err(Error::invalid_param("dir is b or f")),
        };
        let recurse = match input.param("recurse").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Error::invalid_param("recurse is true or false")),
        };
        let limit = read_limit(input)?;
        let from = match input.param("from") {
            Some(token) => Some(place(seen, &token).await?),
            None => None,
        };
        let to = match input.param("to") {
            Some(token) => Some(place(seen, &token).await?),
            None => None,
        };
        Ok(Self {
            backward,
            from,
            to,
            limit,
            recurse,
        })
    }

    fn has(&self, order: RoomOrder) -> bool {
        let (from, to) = (self.from.map(|it| it.0), self.to.map(|it| it.0));
        if self.backward {
            from.is_none_or(|from| order < from) && to.is_none_or(|to| order >= to)
        } else {
            from.is_none_or(|from| order >= from) && to.is_none_or(|to| order < to)
        }
    }

    /// The events of the page and where the next one begins.
    async fn page(
        &self,
        seen: &Seen,
        related: BTreeMap<RoomOrder, RelationRow>,
        input: &Input,
    ) -> Result<(Vec<Arc<Event>>, Option<OrderToken>), Error> {
        let (rel_type, kind) = (input.args.get(2), input.args.get(3));
        let wanted = related.into_iter().filter(|(order, row)| {
            self.has(*order)
                && rel_type.is_none_or(|wanted| *wanted == row.rel_type)
                && kind.is_none_or(|wanted| *wanted == row.kind)
        });
        let mut sids: Vec<EventSid> = wanted.map(|(_, row)| row.event).collect();
        if self.backward {
            sids.reverse();
        }
        let events: Vec<Arc<Event>> = seen
            .reader
            .events(&sids)
            .await?
            .into_iter()
            .flatten()
            .collect();
        let visible = seen
            .viewer
            .visible(&seen.reader, &seen.room, &events)
            .await?;
        let mut events: Vec<Arc<Event>> = events
            .into_iter()
            .zip(visible)
            .filter(|(_, visible)| *visible)
            .map(|(event, _)| event)
            .collect();
        let more = events.len() > self.limit;
        events.truncate(self.limit);
        let next = events.last().filter(|_| more).map(|last| {
            if self.backward {
                OrderToken::before(last.order)
            } else {
                OrderToken::after(last.order)
            }
        });
        Ok((events, next))
    }
}

/// What relates to the event, and if `recurse` also what relates to that, by room order.
async fn related(
    seen: &Seen,
    parent: &Arc<Event>,
    recurse: bool,
) -> Result<BTreeMap<RoomOrder, RelationRow>, Error> {
    let mut found = BTreeMap::new();
    let mut step: Vec<OwnedEventId> = vec![parent.pdu.event_id.clone()];
    for _ in 0..if recurse { DEPTH } else { 1 } {
        let mut fresh: Vec<EventSid> = Vec::new();
        for id in &step {
            let left = LOOKED_AT.saturating_sub(found.len());
            let rows = seen
                .reader
                .relations(seen.room.sid, id, Direction::Backward, left)
                .await?;
            for (order, row) in rows {
                fresh.push(row.event);
                found.insert(order, row);
            }
        }
        if !recurse || fresh.is_empty() {
            break;
        }
        let events = seen.reader.events(&fresh).await?.into_iter().flatten();
        step = events.map(|event| event.pdu.event_id.clone()).collect();
    }
    Ok(found)
}
