//! Users of another server come and go: templates for their member events, and the events themselves.
//!
//! Everything is checked that the spec has checked: that the event is of the room and has the id that the request names, that it is
//! a membership of that kind and of its own sender, and that the sender is the asking server's.
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedServerName, RoomId, RoomVersionId,
    ServerName, UserId, canonical_json,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::{json, value::RawValue as RawJsonValue};

use super::{Federation, FederationError, access::raw};
use crate::{
    event::{
        build::{Countersigned, Draft},
        check,
        pdu::Pdu,
    },
    rooms::{Event, Reader, Room, receive::Manner, restricted::Vouching},
    schema::{Membership, Status},
};

/// What a server asks for its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To join.
    Join,
    /// To leave, or to refuse an invite.
    Leave,
    /// To be let in.
    Knock,
}

impl Kind {
    /// The membership.
    pub fn membership(self) -> MembershipState {
        match self {
            Self::Join => MembershipState::Join,
            Self::Leave => MembershipState::Leave,
            Self::Knock => MembershipState::Knock,
        }
    }
}

/// A join that was accepted.
pub struct Joined {
    /// The event, with this server's signature if it vouches for the user.
    pub event: Box<RawJsonValue>,
    /// The state before it.
    pub state: Vec<Box<RawJsonValue>>,
    /// What allows it, and the event.
    pub auth_chain: Vec<Box<RawJsonValue>>,
    /// Members were left out of the state.
    pub members_omitted: bool,
    /// The servers in the room, if members were left out.
    pub servers: Option<Vec<OwnedServerName>>,
}

impl Federation {
    /// The template of a member event, with the room's version.
    ///
    /// # Errors
    /// What the auth rules say; [`FederationError::IncompatibleVersion`] if the server does not know the room's version
    /// (`versions`, which is not asked for leaving).
    pub async fn make(
        &self,
        origin: &ServerName,
        kind: Kind,
        room: &RoomId,
        user: &UserId,
        versions: Option<&[RoomVersionId]>,
    ) -> Result<(Box<RawJsonValue>, RoomVersionId), FederationError> {
        if user.server_name() != origin {
            return Err(FederationError::Forbidden(
                "the user is of another server".to_owned(),
            ));
        }
        let room = self.admitted(origin, room).await?;
        if versions.is_some_and(|known| !known.contains(&room.version)) {
            return Err(FederationError::IncompatibleVersion(room.version.clone()));
        }
        if kind == Kind::Knock && !room.rules.authorization.knocking {
            return Err(FederationError::Forbidden(
                "one cannot knock on rooms of this version".to_owned(),
            ));
        }
        let mut content = CanonicalJsonObject::new();
        let membership = kind.membership().to_string();
        content.insert("membership".to_owned(), text(&membership));
        if kind == Kind::Join
            && let Some(voucher) = self.voucher(&room, user).await?
        {
            content.insert(VOUCHER.to_owned(), text(voucher.as_str()));
        }
        let draft = Draft {
            sender: user.to_owned(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(user.to_string()),
            content,
            redacts: None,
        };
        let template = self.receiver.rooms().template(&room.id, draft).await?;
        Ok((template, room.version.clone()))
    }

    /// Who of this server vouches for someone who wants to join.
    async fn voucher(
        &self,
        room: &Room,
        user: &UserId,
    ) -> Result<Option<ruma::OwnedUserId>, FederationError> {
        let reader = self.receiver.rooms().reader();
        match reader.vouching(room, user).await? {
            Vouching::NotNeeded => Ok(None),
            Vouching::By(by) => Ok(Some(by)),
            Vouching::CannotTell => Err(FederationError::UnableToAuthorise),
            Vouching::NobodyCan => Err(FederationError::UnableToGrant),
            Vouching::Refused => Err(FederationError::Forbidden(
                "the user is in none of the rooms whose members may join".to_owned(),
            )),
        }
    }

    /// Takes a member event of the asking server's user and tells the room of it. Gives the event as it is stored.
    async fn let_in(
        &self,
        origin: &ServerName,
        kind: Kind,
        room: &Arc<Room>,
        id: &EventId,
        event: &RawJsonValue,
    ) -> Result<Pdu, FederationError> {
        let (_, pdu) =
            check::read(event.get().as_bytes(), &room.rules).map_err(FederationError::invalid)?;
        self.check_member(origin, kind, room, id, &pdu)?;
        let vouched = kind == Kind::Join && self.vouches(room, &pdu).await?;
        let checked = if vouched {
            // The server's own signature first: this server signs nothing that it has not read and found signed.
            self.check_signature(origin, room, &pdu).await?;
            let signed = self
                .receiver
                .rooms()
                .countersign(room, &pdu, Countersigned::Join)?;
            let signed = raw_pdu(&signed)?;
            self.receiver.check(room, &signed).await?
        } else {
            self.receiver.check(room, event).await?
        };
        let manner = Manner {
            relayed: true,
            all_or_nothing: true,
            ..Manner::default()
        };
        self.receiver
            .take(origin, room, checked.clone(), manner)
            .await?;
        // It may have come before, another way, and have been refused.
        let reader = self.receiver.rooms().reader();
        let stored = reader.event(room.sid, &checked.event_id).await?;
        if stored.is_none_or(|event| event.status != Status::Visible) {
            return Err(FederationError::Forbidden(
                "the event was refused before".to_owned(),
            ));
        }
        Ok(checked)
    }

    fn check_member(
        &self,
        origin: &ServerName,
        kind: Kind,
        room: &Room,
        id: &EventId,
        pdu: &Pdu,
    ) -> Result<(), FederationError> {
        let invalid = |reason: &str| Err(FederationError::invalid(reason));
        if pdu.room_id != room.id {
            return invalid("the event is of another room");
        }
        if pdu.event_id != id {
            return invalid("the event has another id");
        }
        if pdu.kind != TimelineEventType::RoomMember {
            return invalid("the event is no member event");
        }
        if pdu.state_key.as_deref() != Some(pdu.sender.as_str()) {
            return invalid("the event is not about its sender");
        }
        let membership = pdu.member().and_then(|member| member.membership.clone());
        if membership != Some(kind.membership()) {
            return invalid("the event is of another membership");
        }
        if pdu.sender.server_name() != origin {
            return invalid("the event's sender is of another server");
        }
        Ok(())
    }

    /// Whether the join names a user of this server as the one who vouches; then it must be true.
    async fn vouches(&self, room: &Room, pdu: &Pdu) -> Result<bool, FederationError> {
        let content: CanonicalJsonObject = pdu.content_as().map_err(FederationError::invalid)?;
        let Some(voucher) = content.get(VOUCHER).and_then(CanonicalJsonValue::as_str) else {
            return Ok(false);
        };
        let voucher = UserId::parse(voucher).map_err(FederationError::invalid)?;
        let own = self.receiver.rooms().server_name();
        if voucher.server_name() != own || !room.rules.authorization.restricted_join_rule {
            return Ok(false);
        }
        // A rule that was changed meanwhile may need nobody: then the auth rules say what they say.
        self.voucher(room, &pdu.sender).await?;
        Ok(true)
    }

    async fn check_signature(
        &self,
        server: &ServerName,
        room: &Room,
        pdu: &Pdu,
    ) -> Result<(), FederationError> {
        let object = pdu.to_canonical().map_err(FederationError::invalid)?;
        let signed = canonical_json::redact(object, &room.rules.redaction, None)
            .map_err(FederationError::invalid)?;
        let keys = self.receiver.keys();
        keys.verify_json(server, &signed, pdu.origin_server_ts)
            .await
            .map_err(FederationError::invalid)
    }

    /// A user of another server joins.
    ///
    /// # Errors
    /// [`FederationError::InvalidParam`] for what is no such join, [`FederationError::Forbidden`] for one that is not allowed.
    pub async fn send_join(
        &self,
        origin: &ServerName,
        room: &RoomId,
        id: &EventId,
        event: &RawJsonValue,
        omit_members: bool,
    ) -> Result<Joined, FederationError> {
        let room = self.admitted(origin, room).await?;
        let pdu = self.let_in(origin, Kind::Join, &room, id, event).await?;
        let reader = self.receiver.rooms().reader();
        let event = reader.event(room.sid, &pdu.event_id).await?;
        let event = event.ok_or(FederationError::Unknown("event"))?;
        let mut state = reader.state_events_at(event.root_before).await?;
        let mut servers = None;
        if omit_members {
            let kept = heroes(&reader, &room).await?;
            state.retain(|event| {
                event.pdu.kind != TimelineEventType::RoomMember
                    || event
                        .pdu
                        .state_key
                        .as_ref()
                        .is_some_and(|user| kept.contains(user))
            });
            let mut all = reader.other_servers(room.sid, usize::MAX).await?;
            all.retain(|server| server != origin);
            all.push(reader.server_name().to_owned());
            servers = Some(all);
        }
        let mut roots = state.clone();
        roots.push(Arc::clone(&event));
        let mut chain = reader.auth_chain(room.sid, &roots).await?;
        if omit_members {
            chain.retain(|event| !state.iter().any(|known| known.sid == event.sid));
        }
        Ok(Joined {
            event: raw(&event),
            state: state.iter().map(|event| raw(event)).collect(),
            auth_chain: chain.iter().map(|event| raw(event)).collect(),
            members_omitted: omit_members,
            servers,
        })
    }

    /// A user of another server leaves.
    ///
    /// # Errors
    /// As [`Federation::send_join`].
    pub async fn send_leave(
        &self,
        origin: &ServerName,
        room: &RoomId,
        id: &EventId,
        event: &RawJsonValue,
    ) -> Result<(), FederationError> {
        let room = self.admitted(origin, room).await?;
        self.let_in(origin, Kind::Leave, &room, id, event).await?;
        Ok(())
    }

    /// A user of another server knocks. Gives what they may know of the room.
    ///
    /// # Errors
    /// As [`Federation::send_join`].
    pub async fn send_knock(
        &self,
        origin: &ServerName,
        room: &RoomId,
        id: &EventId,
        event: &RawJsonValue,
    ) -> Result<Vec<Box<RawJsonValue>>, FederationError> {
        let room = self.admitted(origin, room).await?;
        self.let_in(origin, Kind::Knock, &room, id, event).await?;
        let reader = self.receiver.rooms().reader();
        let state = reader.stripped_state(room.sid).await?;
        Ok(state.iter().map(|event| raw(event)).collect())
    }
}

/// The field that names who vouches.
const VOUCHER: &str = "join_authorised_via_users_server";

fn text(value: &str) -> CanonicalJsonValue {
    CanonicalJsonValue::String(value.to_owned())
}

/// An event as it travels.
pub(super) fn raw_pdu(pdu: &Pdu) -> Result<Box<RawJsonValue>, FederationError> {
    serde_json::from_slice(pdu.bytes())
        .map_err(|error| FederationError::invalid(json!(error.to_string())))
}

/// Members without whom a room without a name cannot be named.
async fn heroes(reader: &Reader, room: &Room) -> Result<Vec<String>, FederationError> {
    let mut kept = Vec::new();
    for kind in [StateEventType::RoomName, StateEventType::RoomCanonicalAlias] {
        let event: Option<Arc<Event>> = reader.state_event(room.sid, &kind, "").await?;
        if event.is_some() {
            return Ok(kept);
        }
    }
    for membership in [Membership::Join, Membership::Invite] {
        for (user, _) in reader.members(room.sid, membership, 6).await? {
            kept.extend(reader.user_id(user).await?.map(|user| user.to_string()));
        }
    }
    Ok(kept)
}
