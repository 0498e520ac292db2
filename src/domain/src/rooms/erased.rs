//! What people had said who wanted it erased when they ended their account.
//!
//! Nothing of it is rewritten: who sees such an event is shown it emptied, unless they could see it before it was erased. That is, who
//! was in the room at the event, or when it was erased, or left between the two. The same holds for other servers, by whether any of
//! their users was in the room. State is left as it is, since the room is made of it, but for the person's own member events.
//!
//! The list of these people is in memory and read anew only when someone joins it; a page without events of theirs costs a look-up an event.
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use ruma::{
    OwnedUserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use vatra_store::{Direction, Position, Range};

use super::{Event, Reader, Room, RoomError, visible::Viewer};
use crate::{
    event::redact,
    schema::{self, StateRoot, topic},
};

/// Who wanted to be erased, and when.
type List = HashMap<OwnedUserId, Position>;

/// The list as of a position.
#[derive(Default)]
pub(super) struct Erased {
    known: RwLock<Option<(Position, Arc<List>)>>,
}

impl Erased {
    fn last(&self) -> Option<(Position, Arc<List>)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }
}

impl Reader {
    async fn erased(&self) -> Result<Arc<List>, RoomError> {
        let erased = &self.inner.erased;
        if let Some((at, list)) = erased.last()
            && !self.inner.store.changed_since(topic::erased(), at)
        {
            return Ok(list);
        }
        let rows = self
            .view
            .range(
                &schema::ERASED,
                Range::all(),
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        let mut list = List::with_capacity(rows.len());
        for (user, at) in rows {
            if let Some(user) = self.user_id(user).await? {
                list.insert(user, at);
            }
        }
        let list = Arc::new(list);
        let read = Some((self.watermark(), Arc::clone(&list)));
        *erased.known.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(list)
    }

    /// When what an event says was erased; `None` if it was not.
    pub async fn erased_at(&self, event: &Event) -> Result<Option<Position>, RoomError> {
        Ok(when(&*self.erased().await?, event))
    }
}

fn when(list: &List, event: &Event) -> Option<Position> {
    let pdu = &event.pdu;
    let own = pdu.kind == TimelineEventType::RoomMember
        && pdu.state_key.as_deref() == Some(pdu.sender.as_str());
    let says_something = own || pdu.state_key.is_none();
    if !says_something || pdu.kind == TimelineEventType::RoomRedaction {
        return None;
    }
    list.get(&pdu.sender).copied()
}

/// Events of one room as a viewer may see them: some of them may be emptied.
pub(super) async fn as_seen<'a>(
    reader: &Reader,
    viewer: &Viewer,
    room: &Room,
    events: &'a [Arc<Event>],
) -> Result<Cow<'a, [Arc<Event>]>, RoomError> {
    let list = reader.erased().await?;
    if list.is_empty() || events.iter().all(|event| when(&list, event).is_none()) {
        return Ok(Cow::Borrowed(events));
    }
    let row = reader.membership(viewer.sid, room.sid).await?;
    // Who was in the room when someone was erased, asked once for each of them.
    let mut present: HashMap<Position, bool> = HashMap::new();
    let mut seen = Vec::with_capacity(events.len());
    for event in events {
        let Some(at) = when(&list, event) else {
            seen.push(Arc::clone(event));
            continue;
        };
        let then = match present.get(&at) {
            Some(then) => *then,
            None => {
                let root = reader.root_at(room.sid, at).await?;
                let then = is_in(reader, viewer, root).await?;
                present.insert(at, then);
                then
            }
        };
        let left_between =
            row.is_some_and(|row| row.joined_until > event.position && row.joined_until <= at);
        if then || left_between || is_in(reader, viewer, event.root_before).await? {
            seen.push(Arc::clone(event));
        } else {
            seen.push(emptied(event, room)?);
        }
    }
    Ok(Cow::Owned(seen))
}

/// One event as a viewer may see it, and whether it is emptied.
pub(super) async fn one_as_seen(
    reader: &Reader,
    viewer: &Viewer,
    room: &Room,
    event: Arc<Event>,
) -> Result<(Arc<Event>, bool), RoomError> {
    let seen = as_seen(reader, viewer, room, std::slice::from_ref(&event)).await?;
    let seen = seen.first().map_or_else(|| Arc::clone(&event), Arc::clone);
    let emptied = !Arc::ptr_eq(&seen, &event);
    Ok((seen, emptied))
}

fn emptied(event: &Event, room: &Room) -> Result<Arc<Event>, RoomError> {
    let pdu = redact::redact(&event.pdu, &room.rules)?;
    Ok(Arc::new(Event {
        pdu: Arc::new(pdu),
        ..event.clone()
    }))
}

async fn is_in(reader: &Reader, viewer: &Viewer, root: StateRoot) -> Result<bool, RoomError> {
    let member = reader
        .state_at_key(root, &StateEventType::RoomMember, viewer.user.as_str())
        .await?;
    let membership = member.as_ref().and_then(|event| event.pdu.member());
    let membership = membership.and_then(|member| member.membership.as_ref());
    Ok(membership == Some(&MembershipState::Join))
}
