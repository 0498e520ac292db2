//! Whether an event is for a service: it is about one of its users, or in a room that holds one of them, or that is in one of its
//! namespaces by its id or an alias.
//! <https://spec.matrix.org/v1.19/application-service-api/#registration>

use std::collections::HashMap;

use ruma::{RoomAliasId, UserId, events::TimelineEventType};
use vatra_store::{Batch, Direction, Range};

use super::{super::FollowError, Item, members::Book};
use crate::{
    appservice::Service,
    rooms::{Event, Reader},
    schema::{self, RoomSid},
};

/// The most aliases of a room that are looked at.
const ALIASES: usize = 1_000;

/// One service's interest, for a page of the log.
pub(super) struct Interest<'a> {
    service: &'a Service,
    reader: &'a Reader,
    book: Book<'a>,
    /// Rooms that are in a namespace, or are not.
    named: HashMap<RoomSid, bool>,
}

impl<'a> Interest<'a> {
    pub(super) fn new(service: &'a Service, reader: &'a Reader, book: Book<'a>) -> Self {
        Self {
            service,
            reader,
            book,
            named: HashMap::new(),
        }
    }

    /// Whether the service is to be told. Items come in order.
    pub(super) async fn takes(&mut self, item: Item) -> Result<bool, FollowError> {
        if !item.outside {
            self.book.turn(item.room, item.at).await?;
        }
        let Some(event) = self.reader.event_by_sid(item.event).await? else {
            return Ok(false);
        };
        if self.is_about(&event) {
            return Ok(true);
        }
        // Nobody of this server is in the room: what happens to others there is not known.
        Ok(!item.outside && self.concerns(item.room).await?)
    }

    /// Whether the service is told what happens in a room.
    pub(super) async fn concerns(&mut self, room: RoomSid) -> Result<bool, FollowError> {
        Ok(self.book.is_in(room).await? || self.is_named(room).await?)
    }

    /// Writes down who came and went.
    pub(super) fn close(self, batch: &mut Batch) {
        self.book.close(batch);
    }

    fn is_about(&self, event: &Event) -> bool {
        let of = event.pdu.state_key.as_deref();
        let of = of.filter(|_| event.pdu.kind == TimelineEventType::RoomMember);
        of.and_then(|of| <&UserId>::try_from(of).ok())
            .is_some_and(|user| self.service.has_user(user))
    }

    async fn is_named(&mut self, room: RoomSid) -> Result<bool, FollowError> {
        if let Some(named) = self.named.get(&room) {
            return Ok(*named);
        }
        let named = self.has_id(room).await? || self.has_alias(room).await?;
        self.named.insert(room, named);
        Ok(named)
    }

    async fn has_id(&self, room: RoomSid) -> Result<bool, FollowError> {
        let room = self.reader.room_by_sid(room).await?;
        Ok(room.is_some_and(|room| self.service.has_room(&room.id)))
    }

    async fn has_alias(&self, room: RoomSid) -> Result<bool, FollowError> {
        if !self.service.cares_for_aliases() {
            return Ok(false);
        }
        let range = Range::prefix(&(room,));
        let aliases = self
            .reader
            .view()
            .range(&schema::ROOM_ALIASES, range, Direction::Forward, ALIASES)
            .await?;
        let mut aliases = aliases.into_iter().map(|((_, alias), ())| alias);
        Ok(aliases.any(|alias| {
            RoomAliasId::parse(alias).is_ok_and(|alias| self.service.has_alias(&alias))
        }))
    }
}
