//! Full-text search. <https://spec.matrix.org/v1.19/client-server-api/#server-side-search>

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId,
    api::client::filter::{LazyLoadOptions, RoomEventFilter},
    events::{StateEventType, TimelineEventType},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use vatra_domain::{
    event::filter::Relations,
    rooms::Event,
    schema::RoomSid,
    search::{
        Asked, Found, Match, Order, SearchError,
        texts::Kind,
        token::{Group, SearchToken},
    },
    users::{Ignored, Requester},
};

use super::{
    super::{endpoint::Input, error::Error},
    messages::around,
    rooms::{Seen, viewer},
};
use crate::wiring::App;

/// How many events before and after a result are shown when the client does not say, and at most.
const CONTEXT: usize = 5;
const MOST_CONTEXT: usize = 50;

/// `POST /search`.
pub(super) async fn search(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    app.rates.search(&caller)?;
    let search = app.search.as_ref();
    let search = search.ok_or_else(|| Error::unrecognized(StatusCode::NOT_FOUND))?;
    let body: Body = input.read()?;
    let Some(criteria) = body.search_categories.room_events else {
        return Ok(Json(Answer::default()).into_response());
    };
    let from = input.param("next_batch").map(|token| token.parse());
    let from = from.transpose().map_err(|_| SearchError::BadToken)?;
    let asked = criteria.asked(from);
    let ignored = app.users.ignored(caller.sid).await?;
    let found = search.find(&viewer(&caller), &ignored, &asked).await?;
    let showing = Showing {
        app: &app,
        caller: &caller,
        ignored: &ignored,
        criteria: &criteria,
    };
    Ok(Json(showing.answer(found).await?).into_response())
}

#[derive(Deserialize)]
struct Body {
    search_categories: Categories,
}

#[derive(Deserialize)]
struct Categories {
    room_events: Option<Criteria>,
}

#[derive(Deserialize)]
struct Criteria {
    search_term: String,
    keys: Option<Vec<Key>>,
    #[serde(default)]
    filter: RoomEventFilter,
    #[serde(default)]
    order_by: OrderBy,
    event_context: Option<ContextAsked>,
    #[serde(default)]
    include_state: bool,
    #[serde(default)]
    groupings: Groupings,
}

#[derive(Clone, Copy, Deserialize)]
enum Key {
    #[serde(rename = "content.body")]
    Body,
    #[serde(rename = "content.name")]
    Name,
    #[serde(rename = "content.topic")]
    Topic,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OrderBy {
    #[default]
    Rank,
    Recent,
}

#[derive(Deserialize)]
struct ContextAsked {
    before_limit: Option<u64>,
    after_limit: Option<u64>,
    #[serde(default)]
    include_profile: bool,
}

#[derive(Default, Deserialize)]
struct Groupings {
    #[serde(default)]
    group_by: Vec<Grouping>,
}

#[derive(Deserialize)]
struct Grouping {
    key: GroupKey,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum GroupKey {
    RoomId,
    Sender,
}

impl Criteria {
    fn asked(&self, from: Option<SearchToken>) -> Asked {
        let kind = |key: &Key| match key {
            Key::Body => Kind::Body,
            Key::Name => Kind::Name,
            Key::Topic => Kind::Topic,
        };
        let keys = self.keys.as_ref();
        Asked {
            term: self.search_term.clone(),
            kinds: keys.map_or(Kind::ALL.to_vec(), |keys| keys.iter().map(kind).collect()),
            filter: self.filter.clone(),
            order: match self.order_by {
                OrderBy::Rank => Order::Rank,
                OrderBy::Recent => Order::Recent,
            },
            from,
        }
    }
}

/// The answer; its events are written as they are.
#[derive(Default, Serialize)]
struct Answer {
    search_categories: CategoriesFound,
}

#[derive(Default, Serialize)]
struct CategoriesFound {
    #[serde(skip_serializing_if = "Option::is_none")]
    room_events: Option<RoomEvents>,
}

#[derive(Serialize)]
struct RoomEvents {
    count: u64,
    highlights: Vec<String>,
    results: Vec<ResultShown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<GroupKey, BTreeMap<String, GroupShown>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

#[derive(Serialize)]
struct ResultShown {
    rank: f32,
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ContextShown>,
}

#[derive(Serialize)]
struct ContextShown {
    start: String,
    end: String,
    events_before: Vec<Box<RawValue>>,
    events_after: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_info: Option<BTreeMap<OwnedUserId, Profile>>,
}

/// What someone was called when they said something.
#[derive(Default, Deserialize, Serialize)]
struct Profile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    displayname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    avatar_url: Option<String>,
}

#[derive(Serialize)]
struct GroupShown {
    order: usize,
    results: Vec<OwnedEventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

/// Who is shown what was found.
struct Showing<'a> {
    app: &'a App,
    caller: &'a Requester,
    ignored: &'a Ignored,
    criteria: &'a Criteria,
}

impl Showing<'_> {
    async fn answer(&self, found: Found) -> Result<Answer, Error> {
        let mut rooms: HashMap<RoomSid, Seen> = HashMap::new();
        let mut results = Vec::with_capacity(found.results.len());
        for one in &found.results {
            let seen = match rooms.remove(&one.room.sid) {
                Some(seen) => seen,
                None => Seen::new(self.app, self.caller, &one.room.id).await?,
            };
            results.push(self.result(&seen, one).await?);
            rooms.insert(one.room.sid, seen);
        }
        let state = if self.criteria.include_state {
            Some(self.states(&rooms, &found.results).await?)
        } else {
            None
        };
        let room_events = RoomEvents {
            count: found.count,
            groups: self.groups(&found),
            next_batch: found.next.map(|next| next.to_string()),
            highlights: found.highlights,
            results,
            state,
        };
        let room_events = Some(room_events);
        Ok(Answer {
            search_categories: CategoriesFound { room_events },
        })
    }

    async fn result(&self, seen: &Seen, one: &Match) -> Result<ResultShown, Error> {
        let shown = seen
            .show(self.app, std::slice::from_ref(&one.event))
            .await?;
        let context = match &self.criteria.event_context {
            Some(asked) => Some(self.context(seen, &one.event, asked).await?),
            None => None,
        };
        Ok(ResultShown {
            rank: one.rank,
            result: shown.into_iter().next(),
            context,
        })
    }

    async fn context(
        &self,
        seen: &Seen,
        event: &Arc<Event>,
        asked: &ContextAsked,
    ) -> Result<ContextShown, Error> {
        let limit = |asked: Option<u64>| {
            let asked = asked.map(|it| usize::try_from(it).unwrap_or(MOST_CONTEXT));
            asked.unwrap_or(CONTEXT).min(MOST_CONTEXT)
        };
        let limits = (limit(asked.before_limit), limit(asked.after_limit));
        let (filter, relations) = (RoomEventFilter::default(), Relations::default());
        let around = around(seen, (self.ignored, &filter, &relations), event, limits).await?;
        let everyone = around.before.iter().chain([event]).chain(&around.later);
        let profile_info = if asked.include_profile {
            Some(profiles(seen, everyone).await?)
        } else {
            None
        };
        Ok(ContextShown {
            start: around.start.to_string(),
            end: around.end.to_string(),
            events_before: seen.show(self.app, &around.before).await?,
            events_after: seen.show(self.app, &around.later).await?,
            profile_info,
        })
    }

    /// The state of each room of the results.
    async fn states(
        &self,
        rooms: &HashMap<RoomSid, Seen>,
        results: &[Match],
    ) -> Result<BTreeMap<OwnedRoomId, Vec<Box<RawValue>>>, Error> {
        let lazy = matches!(
            self.criteria.filter.lazy_load_options,
            LazyLoadOptions::Enabled { .. }
        );
        let mut states = BTreeMap::new();
        for (sid, seen) in rooms {
            let mut state = seen.reader.state_events_at(seen.root().await?).await?;
            let spoke = |event: &Event| {
                let of = event.pdu.state_key.as_deref();
                let mut here = results.iter().filter(|one| one.room.sid == *sid);
                here.any(|one| of == Some(one.event.pdu.sender.as_str()))
            };
            state.retain(|event| {
                !lazy || event.pdu.kind != TimelineEventType::RoomMember || spoke(event)
            });
            states.insert(seen.room.id.clone(), seen.show(self.app, &state).await?);
        }
        Ok(states)
    }

    /// The results by what the client wants them grouped by. The order of groups is that of their best results.
    fn groups(&self, found: &Found) -> BTreeMap<GroupKey, BTreeMap<String, GroupShown>> {
        let mut groups: BTreeMap<GroupKey, BTreeMap<String, GroupShown>> = BTreeMap::new();
        for grouping in &self.criteria.groupings.group_by {
            let mut shown: BTreeMap<String, GroupShown> = BTreeMap::new();
            for one in &found.results {
                let (name, group) = match grouping.key {
                    GroupKey::RoomId => (one.room.id.to_string(), Group::Room(one.room.sid)),
                    GroupKey::Sender => {
                        (one.event.pdu.sender.to_string(), Group::Sender(one.sender))
                    }
                };
                let order = shown.len() + 1;
                let next = found.next.map(|next| SearchToken { group, ..next });
                let entry = shown.entry(name).or_insert_with(|| GroupShown {
                    order,
                    results: Vec::new(),
                    next_batch: next.map(|next| next.to_string()),
                });
                entry.results.push(one.event.pdu.event_id.clone());
            }
            groups.insert(grouping.key, shown);
        }
        groups
    }
}

/// What the senders of events were called at these events.
async fn profiles(
    seen: &Seen,
    events: impl Iterator<Item = &Arc<Event>>,
) -> Result<BTreeMap<OwnedUserId, Profile>, Error> {
    let mut profiles = BTreeMap::new();
    for event in events {
        let sender = &event.pdu.sender;
        if profiles.contains_key(sender) {
            continue;
        }
        let kind = StateEventType::RoomMember;
        let member = seen
            .reader
            .state_at_key(event.root_before, &kind, sender.as_str())
            .await?;
        let profile = member.and_then(|member| member.pdu.content_as::<Profile>().ok());
        profiles.insert(sender.clone(), profile.unwrap_or_default());
    }
    Ok(profiles)
}
