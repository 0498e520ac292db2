//! Which servers are in which room, position by position: a book kept by the sender, which alone writes it.
//!
//! It follows the changes of the rooms' state, not their events: a member event that did not become the state changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;
use vatra_store::{Batch, Direction, Position, Range};

use super::super::FollowError;
use crate::{
    rooms::{Reader, Rooms},
    schema::{self, EventSid, LogRow, RoomServerRow, RoomSid},
};

/// The book, and a memory of its pages.
pub(super) struct RoomServers {
    rooms: Rooms,
    now: Cache<RoomSid, Arc<[OwnedServerName]>>,
}

impl RoomServers {
    pub(super) fn new(rooms: Rooms) -> Self {
        Self {
            rooms,
            now: Cache::new(10_000),
        }
    }

    /// The servers with joined users, without this one.
    pub(super) async fn now(&self, room: RoomSid) -> Result<Arc<[OwnedServerName]>, FollowError> {
        if let Some(known) = self.now.get(&room) {
            return Ok(known);
        }
        let rows = rows_of(&self.rooms.reader(), room).await?;
        let joined = rows.into_iter().filter(|(_, row)| row.until.is_none());
        let servers: Arc<[_]> = joined.map(|(server, _)| server).collect();
        self.now.insert(room, servers.clone());
        Ok(servers)
    }

    /// Those that are to be told of something in a page of the log: who is there, and who went within the page.
    pub(super) async fn told(
        &self,
        room: RoomSid,
        page: &[(Position, LogRow)],
    ) -> Result<Vec<OwnedServerName>, FollowError> {
        let first = page.first().map_or(Position::ZERO, |(first, _)| *first);
        let rows = rows_of(&self.rooms.reader(), room).await?;
        let told = rows
            .into_iter()
            .filter(|(_, row)| row.until.is_none_or(|until| until >= first));
        Ok(told.map(|(server, _)| server).collect())
    }

    /// The pages of these rooms may have changed.
    pub(super) fn forget<'a>(&self, rooms: impl Iterator<Item = &'a RoomSid>) {
        for room in rooms {
            self.now.remove(room);
        }
    }

    pub(super) fn open_book<'a>(&self, reader: &'a Reader) -> Book<'a> {
        Book {
            reader,
            own: self.rooms.server_name(),
            rooms: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }
}

async fn rows_of(
    reader: &Reader,
    room: RoomSid,
) -> Result<Vec<(OwnedServerName, RoomServerRow)>, FollowError> {
    let range = Range::prefix(&(room,));
    let view = reader.view();
    let rows = view
        .range(&schema::ROOM_SERVERS, range, Direction::Forward, usize::MAX)
        .await?;
    let named = rows.into_iter();
    Ok(named
        .filter_map(|((_, server), row)| Some((ServerName::parse(server).ok()?, row)))
        .collect())
}

/// The book while a page of the log is entered.
pub(super) struct Book<'a> {
    reader: &'a Reader,
    own: OwnedServerName,
    rooms: BTreeMap<RoomSid, BTreeMap<OwnedServerName, RoomServerRow>>,
    changed: BTreeSet<(RoomSid, OwnedServerName)>,
}

#[derive(Deserialize)]
struct Member {
    membership: String,
}

impl Book<'_> {
    /// Whether what happened in a room at a position is for any other server.
    pub(super) async fn concerns_anyone(
        &mut self,
        room: RoomSid,
        at: Position,
    ) -> Result<bool, FollowError> {
        let servers = self.room(room).await?;
        Ok(servers.values().any(|row| row.was_there(at)))
    }

    /// Enters what a position changed in a room.
    pub(super) async fn turn(&mut self, room: RoomSid, at: Position) -> Result<(), FollowError> {
        for turn in self.reader.member_turns(room, at).await? {
            let server = turn.user.server_name();
            if server == self.own {
                continue;
            }
            let old = self.membership(turn.old).await?;
            let new = self.membership(turn.new).await?;
            self.enter(room, server, at, old.as_deref(), new.as_deref())
                .await?;
        }
        Ok(())
    }

    async fn enter(
        &mut self,
        room: RoomSid,
        server: &ServerName,
        at: Position,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<(), FollowError> {
        let (was, is) = (old == Some("join"), new == Some("join"));
        // Whoever was invited or knocked is told that this came to nothing.
        let withdrawn =
            matches!(old, Some("invite" | "knock")) && matches!(new, Some("leave" | "ban"));
        if was == is && !withdrawn {
            return Ok(());
        }
        let servers = self.room(room).await?;
        let absent = RoomServerRow {
            members: 0,
            since: at,
            until: Some(at),
        };
        let row = servers
            .entry(server.to_owned())
            .or_insert_with(|| absent.clone());
        if withdrawn {
            if row.until.is_some() {
                *row = absent;
            }
        } else if is {
            if row.until.is_some() {
                *row = RoomServerRow {
                    until: None,
                    ..absent
                };
            }
            row.members = row.members.saturating_add(1);
        } else {
            row.members = row.members.saturating_sub(1);
            row.until = (row.members == 0).then_some(at);
        }
        self.changed.insert((room, server.to_owned()));
        Ok(())
    }

    /// Writes down what has changed.
    pub(super) fn close(self, batch: &mut Batch) {
        for (room, server) in self.changed {
            let row = self
                .rooms
                .get(&room)
                .and_then(|servers| servers.get(&server));
            if let Some(row) = row {
                batch.put(&schema::ROOM_SERVERS, &(room, server.to_string()), row);
                batch.put(&schema::SERVER_ROOMS, &(server.to_string(), room), &());
            }
        }
    }

    async fn room(
        &mut self,
        room: RoomSid,
    ) -> Result<&mut BTreeMap<OwnedServerName, RoomServerRow>, FollowError> {
        use std::collections::btree_map::Entry;
        match self.rooms.entry(room) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let rows = rows_of(self.reader, room).await?;
                Ok(unknown.insert(rows.into_iter().collect()))
            }
        }
    }

    async fn membership(&self, event: Option<EventSid>) -> Result<Option<String>, FollowError> {
        let Some(event) = event else { return Ok(None) };
        let event = self.reader.event_by_sid(event).await?;
        let member = event.and_then(|event| event.pdu.content_as::<Member>().ok());
        Ok(member.map(|member| member.membership))
    }
}
