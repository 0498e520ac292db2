//! What only other servers know, asked for a local user who waits: where an alias points, who someone is, which rooms there are.
//!
//! Answers are checked to be of the shape that was asked for and bounded in size; nothing of them is kept.

use std::time::Duration;

use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName, UInt, UserId,
    api::federation::{
        directory::get_public_rooms_filtered::v1 as get_public_rooms,
        query::{
            get_profile_information::v1 as get_profile, get_room_information::v1 as get_directory,
        },
    },
    directory::{Filter, RoomNetwork},
    profile::ProfileFieldName,
};

use super::{FlowError, membership::alias_target, public_rooms::Page};
use crate::{
    remote::{Bounds, Remote},
    rooms::Rooms,
    users::profile::Profile,
};

/// The most servers that an alias is said to be known by.
const MAX_SERVERS: usize = 100;

/// What an answer may cost for which a person waits.
fn bounds(limit_bytes: usize) -> Bounds {
    Bounds {
        limit_bytes,
        timeout: Duration::from_secs(20),
        urgent: true,
    }
}

/// Where an alias points, and servers that can tell of the room; another server's alias is asked for there.
///
/// # Errors
/// [`FlowError::UnknownAlias`] if its server says so; [`FlowError::Remote`] if that one does not answer.
pub async fn alias(
    rooms: &Rooms,
    remote: &Remote,
    alias: &RoomAliasId,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), FlowError> {
    if alias.server_name() == remote.server_name() {
        let room = alias_target(rooms, alias).await?;
        let room = room.ok_or(FlowError::UnknownAlias)?;
        let servers = servers_in(rooms, remote.server_name(), &room).await?;
        return Ok((room, servers));
    }
    let request = get_directory::Request::new(alias.to_owned());
    let bounds = bounds(256 << 10);
    let answer = match remote
        .call_within(alias.server_name(), request, bounds)
        .await
    {
        Ok(answer) => answer,
        Err(error) if error.refusal().is_some_and(|refusal| refusal.status == 404) => {
            return Err(FlowError::UnknownAlias);
        }
        Err(error) => return Err(error.into()),
    };
    let mut servers = answer.servers;
    servers.truncate(MAX_SERVERS);
    if servers.is_empty() {
        servers.push(alias.server_name().to_owned());
    }
    Ok((answer.room_id, servers))
}

/// Servers in a room of which this server knows, this one first if it is there; this one at least, which has the alias.
async fn servers_in(
    rooms: &Rooms,
    own: &ServerName,
    room: &RoomId,
) -> Result<Vec<OwnedServerName>, FlowError> {
    let reader = rooms.reader();
    let mut servers = Vec::new();
    if let Some(known) = reader.room(room).await? {
        if reader.server_is_in(known.sid, None).await? {
            servers.push(own.to_owned());
        }
        let others = reader.other_servers(known.sid, MAX_SERVERS).await?;
        servers.extend(others);
    }
    if servers.is_empty() {
        servers.push(own.to_owned());
    }
    Ok(servers)
}

/// The profile of another server's user, or one field of it.
///
/// # Errors
/// [`FlowError::Remote`].
pub async fn profile(
    remote: &Remote,
    user: &UserId,
    field: Option<&str>,
) -> Result<Profile, FlowError> {
    let mut request = get_profile::Request::new(user.to_owned());
    request.field = field.map(ProfileFieldName::from);
    let bounds = bounds(128 << 10);
    let answer = remote
        .call_within(user.server_name(), request, bounds)
        .await?;
    let classic = |name: &str| name == "displayname" || name == "avatar_url";
    Ok(answer
        .into_iter()
        .filter(|(name, value)| field.is_none_or(|field| field == name) && !value.is_null())
        .filter(|(name, value)| !classic(name) || value.is_string())
        .collect())
}

/// A page of another server's list of rooms.
///
/// # Errors
/// [`FlowError::Remote`].
pub async fn public_rooms(
    remote: &Remote,
    server: &ServerName,
    filter: Filter,
    limit: Option<UInt>,
    since: Option<String>,
) -> Result<Page, FlowError> {
    let request = get_public_rooms::Request {
        limit,
        since,
        filter,
        room_network: RoomNetwork::Matrix,
    };
    let answer = remote.call_within(server, request, bounds(4 << 20)).await?;
    let total = answer.total_room_count_estimate;
    Ok(Page {
        total: total.map_or(answer.chunk.len(), |total| {
            usize::try_from(total).unwrap_or(usize::MAX)
        }),
        chunk: answer.chunk,
        next: answer.next_batch,
        previous: answer.prev_batch,
    })
}
