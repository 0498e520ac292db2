//! Joining a room, wherever it is: here, or through a server that is in it.
//!
//! A room that this server is in is joined like any event is sent, unless it is restricted and nobody here can vouch for the user: then a
//! server is asked whose user can. A room that it is not in is asked for with `make_join` and `send_join`; the answer is checked
//! and imported before anyone sees the room. A row tells that a join was asked for: what a crash leaves of it is undone at the next
//! start.
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId,
    RoomOrAliasId, RoomVersionId, ServerName,
    api::federation::membership::{
        create_join_event::v2 as send_join, prepare_join_event::v1 as make_join,
    },
};
use serde_json::value::RawValue as RawJsonValue;
use vatra_store::{Batch, Direction, Range};

use super::{
    FlowError, elsewhere,
    membership::{Change, add_to, member_content},
    settings,
    template::{Template, candidates, version, versions, worse},
};
use crate::{
    event::pdu::Pdu,
    remote::{Bounds, RemoteError},
    rooms::{
        Reader, Room, RoomError,
        receive::{Manner, Receiver, import::Answer},
        restricted::Vouching,
    },
    schema::{self, PendingJoinRow},
    users::{Requester, Users},
};

/// Who wants to join what.
pub struct Join<'a> {
    /// Accounts.
    pub users: &'a Users,
    /// Rooms and how others are reached.
    pub receiver: &'a Receiver,
    /// Who.
    pub by: &'a Requester,
    /// Why.
    pub reason: Option<&'a str>,
    /// What the client adds to the member event. It replaces nothing that this server or the auth rules say there.
    pub more: CanonicalJsonObject,
}

/// The room that is meant by an id or alias, and servers that may be in it.
///
/// # Errors
/// [`FlowError::UnknownAlias`], and what the alias' server says.
pub async fn target(
    receiver: &Receiver,
    name: &RoomOrAliasId,
    via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), FlowError> {
    if let Ok(room) = RoomId::parse(name.as_str()) {
        return Ok((room, via));
    }
    let alias = RoomAliasId::parse(name.as_str())
        .map_err(|error| FlowError::BadRequest(error.to_string()))?;
    let (room, servers) = elsewhere::alias(receiver.rooms(), receiver.remote(), &alias).await?;
    Ok((room, via.into_iter().chain(servers).collect()))
}

impl Join<'_> {
    /// Joins, unless the user is in the room already.
    ///
    /// # Errors
    /// What the auth rules say, here or there; [`FlowError::NoServers`] if nobody can be asked.
    pub async fn join(&self, room: &RoomId, via: Vec<OwnedServerName>) -> Result<(), FlowError> {
        if self.is_in(room).await? {
            return Ok(());
        }
        if !self.join_here(room).await? {
            let _turn = self.receiver.join_turn(room).await;
            // Another user of this server may have brought the room here meanwhile.
            if !self.is_in(room).await? && !self.join_here(room).await? {
                if self.by.guest {
                    return Err(FlowError::NoGuests);
                }
                self.join_there(room, via).await?;
            }
        }
        let rooms = self.receiver.rooms();
        let known = rooms.reader().room(room).await?;
        let known = known.ok_or(RoomError::UnknownRoom)?;
        settings::joined(self.users, rooms, self.by.sid, &known).await
    }

    async fn is_in(&self, id: &RoomId) -> Result<bool, FlowError> {
        let reader = self.receiver.rooms().reader();
        match reader.room(id).await? {
            Some(room) => Ok(reader.is_joined(self.by.sid, room.sid).await?),
            None => Ok(false),
        }
    }

    /// Joins a room that this server is in; false if another server must be asked.
    async fn join_here(&self, id: &RoomId) -> Result<bool, FlowError> {
        let reader = self.receiver.rooms().reader();
        let Some(room) = reader.room(id).await? else {
            return Ok(false);
        };
        let here = reader.server_is_in(room.sid, None).await?;
        let others = self.servers(&reader, &room, Vec::new()).await?;
        if !here && !others.is_empty() {
            return Ok(false);
        }
        if here && !others.is_empty() {
            let vouching = reader.vouching(&room, &self.by.user).await?;
            if matches!(vouching, Vouching::NobodyCan | Vouching::CannotTell) {
                return Ok(false);
            }
        }
        let change = Change {
            by: self.by,
            of: &self.by.user,
            room: id,
            reason: self.reason,
        };
        let more = self.more.clone();
        match change
            .to_with(self.users, self.receiver, "join", more)
            .await
        {
            // A room that was heard of only.
            Err(FlowError::Room(RoomError::UnknownRoom)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Who is asked: the servers that are named, by the client or with an invite. If there are none, those that were in the room when this
    /// server last was.
    async fn servers(
        &self,
        reader: &Reader,
        room: &Room,
        via: Vec<OwnedServerName>,
    ) -> Result<Vec<OwnedServerName>, FlowError> {
        let outside = reader.outside(self.by.sid, room.sid).await?;
        let told = outside.map(|outside| outside.servers).unwrap_or_default();
        let own = reader.server_name();
        let mut named: Vec<OwnedServerName> = via.into_iter().chain(told).collect();
        named.retain(|server| server != own);
        if named.is_empty() {
            named = reader.other_servers(room.sid, 20).await?;
        }
        Ok(candidates(self.receiver.rooms(), &room.id, named))
    }

    async fn join_there(&self, id: &RoomId, via: Vec<OwnedServerName>) -> Result<(), FlowError> {
        let rooms = self.receiver.rooms();
        let reader = rooms.reader();
        let servers = match reader.room(id).await? {
            Some(room) => self.servers(&reader, &room, via).await?,
            None => candidates(rooms, id, via),
        };
        let mut failed = None;
        for server in servers {
            match self.join_through(&server, id).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::info!(%server, room = %id, %error, "a room cannot be joined through a server");
                    failed = Some(worse(failed, error));
                }
            }
        }
        Err(failed.unwrap_or(FlowError::NoServers))
    }

    async fn join_through(&self, server: &ServerName, id: &RoomId) -> Result<(), FlowError> {
        let (rooms, remote) = (self.receiver.rooms(), self.receiver.remote());
        let mut request = make_join::Request::new(id.to_owned(), self.by.user.clone());
        request.ver = versions();
        let answer = remote
            .call_within(server, request, Bounds::urgent())
            .await?;
        let version = version(answer.room_version)?;
        let template = Template::read(&answer.event)?;
        let room = rooms.heard_of(id, &version).await?;
        let mut content = member_content(self.users, self.by.sid, "join", self.reason).await?;
        let voucher = template
            .voucher
            .clone()
            .filter(|_| room.rules.authorization.restricted_join_rule);
        if let Some(voucher) = &voucher {
            let name = "join_authorised_via_users_server".to_owned();
            content.insert(name, CanonicalJsonValue::String(voucher.to_string()));
        }
        add_to(&mut content, self.more.clone());
        let pdu = template.member(rooms, &room, &self.by.user, content)?;
        self.pending(&room, server, &version).await?;
        self.receiver.joining(id);
        let outcome = self.send(server, &room, pdu, voucher.is_some()).await;
        self.receiver.joined(id).await;
        let settled = match &outcome {
            Ok(()) => true,
            Err(FlowError::Remote(error)) if never_taken(error) => true,
            // The other server may have taken it, or has, and this one does not believe what it says of the room: the user is taken out
            // again. If that cannot be done now, the row stays until the next start.
            Err(_) => {
                let user = &self.by.user;
                let left = super::leave::leave_through(self.receiver, server, &room, user, None);
                left.await.is_ok()
            }
        };
        if settled {
            let mut batch = Batch::new();
            batch.delete(&schema::PENDING_JOINS, &(room.sid, self.by.sid));
            rooms.store().write(batch).await?;
        }
        outcome
    }

    async fn pending(
        &self,
        room: &Room,
        server: &ServerName,
        version: &RoomVersionId,
    ) -> Result<(), FlowError> {
        let row = PendingJoinRow {
            server: server.to_string(),
            room: room.id.to_string(),
            version: version.to_string(),
            user: self.by.user.to_string(),
        };
        let mut batch = Batch::new();
        batch.put(&schema::PENDING_JOINS, &(room.sid, self.by.sid), &row);
        self.receiver.rooms().store().write(batch).await?;
        Ok(())
    }

    async fn send(
        &self,
        server: &ServerName,
        room: &std::sync::Arc<Room>,
        pdu: Pdu,
        vouched: bool,
    ) -> Result<(), FlowError> {
        let raw: Box<RawJsonValue> = serde_json::from_slice(pdu.bytes())
            .map_err(|error| FlowError::BadRequest(error.to_string()))?;
        let request = send_join::Request::new(room.id.clone(), pdu.event_id.clone(), raw);
        let bounds = Bounds {
            urgent: true,
            ..Bounds::large()
        };
        let answer = self
            .receiver
            .remote()
            .call_within(server, request, bounds)
            .await?
            .room_state;
        let join = if vouched {
            // The event with the signature of who vouches: the same event, and signed by all who must.
            let signed = answer.event.ok_or_else(|| {
                RemoteError::Unreadable("the server does not sign what it vouches for".to_owned())
            })?;
            let signed = self.receiver.check(room, &signed).await?;
            if signed.event_id != pdu.event_id || signed.content().get() != pdu.content().get() {
                return Err(RemoteError::Unreadable("that is another join".to_owned()).into());
            }
            signed
        } else {
            pdu
        };
        let reader = self.receiver.rooms().reader();
        if reader.server_is_in(room.sid, None).await? {
            let manner = Manner {
                told: true,
                all_or_nothing: true,
                ..Manner::default()
            };
            self.receiver.take(server, room, join, manner).await?;
            return Ok(());
        }
        if answer.members_omitted {
            let reason = "members were left out, which was not asked for";
            return Err(RemoteError::Unreadable(reason.to_owned()).into());
        }
        let answer = Answer {
            state: answer.state,
            auth_chain: answer.auth_chain,
        };
        self.receiver.import(server, room, join, answer).await?;
        Ok(())
    }
}

/// Whether a failed request cannot have been taken.
fn never_taken(error: &RemoteError) -> bool {
    match error {
        RemoteError::Answered(refusal) => !refusal.status.is_server_error(),
        RemoteError::Unreachable(_) | RemoteError::Unreadable(_) => false,
        RemoteError::BackingOff { .. }
        | RemoteError::Unwritable(_)
        | RemoteError::Closed
        | RemoteError::Ourselves(_) => true,
    }
}

/// Undoes joins that were asked for and did not end before the server did: the other server is told that the user leaves.
///
/// # Errors
/// The store's.
pub async fn undo_pending(receiver: &Receiver) -> Result<(), FlowError> {
    let rooms = receiver.rooms();
    let rows = rooms
        .store()
        .view()
        .range(
            &schema::PENDING_JOINS,
            Range::all(),
            Direction::Forward,
            10_000,
        )
        .await?;
    for ((room, user), row) in rows {
        let reader = rooms.reader();
        if !reader.is_joined(user, room).await?
            && let (Ok(id), Ok(server), Ok(name), Ok(version)) = (
                RoomId::parse(&row.room),
                OwnedServerName::try_from(row.server.as_str()),
                ruma::UserId::parse(&row.user),
                RoomVersionId::try_from(row.version.as_str()),
            )
        {
            let known = rooms.heard_of(&id, &version).await?;
            let left = super::leave::leave_through(receiver, &server, &known, &name, None).await;
            if let Err(error) = left {
                tracing::info!(%server, room = %id, %error, "a join that did not end cannot be undone");
            }
        }
        let mut batch = Batch::new();
        batch.delete(&schema::PENDING_JOINS, &(room, user));
        rooms.store().write(batch).await?;
    }
    Ok(())
}
