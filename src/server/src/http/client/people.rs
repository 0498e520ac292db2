//! Finding people, what one shares with them, and reporting them and what they say.
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use ruma::{
    UInt,
    api::client::{
        admin::get_user_info::v3 as whois,
        membership::get_mutual_rooms::v1 as mutual_rooms,
        reporting::report_user::v3 as report_user,
        room::{report_content::v3 as report_content, report_room::v3 as report_room},
        user_directory::search_users::v3 as search_users,
    },
};
use vatra_domain::{
    clock::to_ruma,
    flows::{reports, user_directory},
    rooms::RoomError,
    schema::RoomSid,
    users::Requester,
};

use super::{super::error::Error, rooms::Seen};
use crate::wiring::App;

/// How many rooms a page of mutual rooms has.
const MUTUAL_ROOMS: usize = 500;

pub(super) async fn search(
    app: App,
    caller: Requester,
    request: search_users::Request,
) -> Result<search_users::Response, Error> {
    let limit = usize::try_from(request.limit).unwrap_or(user_directory::MOST);
    let reader = app.rooms.reader();
    let term = &request.search_term;
    let found = user_directory::search(&app.users, &reader, caller.sid, term, limit);
    let (found, limited) = found.await?;
    let results = found.into_iter().map(|found| {
        let mut user = search_users::User::new(found.user);
        user.display_name = found.display_name;
        user.avatar_url = found.avatar_url.map(Into::into);
        user
    });
    Ok(search_users::Response::new(results.collect(), limited))
}

pub(super) async fn report_event(
    app: App,
    caller: Requester,
    request: report_content::Request,
) -> Result<report_content::Response, Error> {
    app.rates.send(&caller)?;
    let seen = Seen::current(&app, &caller, &request.room_id).await;
    let seen = seen.map_err(|_| RoomError::UnknownEvent)?;
    seen.event(&request.event_id).await?;
    let about = (&*seen.room, &*request.event_id);
    reports::event(&app.users, &app.rooms, &caller, about, request.reason).await?;
    Ok(report_content::Response::new())
}

pub(super) async fn report_room(
    app: App,
    caller: Requester,
    request: report_room::Request,
) -> Result<report_room::Response, Error> {
    app.rates.send(&caller)?;
    let reason = Some(request.reason);
    reports::room(&app.users, &app.rooms, &caller, &request.room_id, reason).await?;
    Ok(report_room::Response::new())
}

pub(super) async fn report_user(
    app: App,
    caller: Requester,
    request: report_user::Request,
) -> Result<report_user::Response, Error> {
    app.rates.send(&caller)?;
    let reason = Some(request.reason);
    reports::user(&app.users, &app.rooms, &caller, &request.user_id, reason).await?;
    Ok(report_user::Response::new())
}

/// The rooms shared with another user. <https://spec.matrix.org/v1.19/client-server-api/#mutual-rooms>
pub(super) async fn mutual_rooms(
    app: App,
    caller: Requester,
    request: mutual_rooms::Request,
) -> Result<mutual_rooms::Response, Error> {
    if request.user_id == caller.user {
        return Err(Error::invalid_param("that is yourself"));
    }
    let after = match &request.from {
        Some(token) => {
            Some(RoomSid(token.parse().map_err(|_| {
                Error::invalid_param("from is no token of this server")
            })?))
        }
        None => None,
    };
    let reader = app.rooms.reader();
    let Some(other) = reader.user_sid(&request.user_id).await? else {
        return Ok(mutual_rooms::Response::new(UInt::MIN, Vec::new()));
    };
    let both = (caller.sid, other);
    let found = reader.mutual_rooms(both, after, MUTUAL_ROOMS).await?;
    let count = UInt::try_from(found.count).unwrap_or(UInt::MAX);
    let mut response = mutual_rooms::Response::new(count, found.rooms);
    response.next_batch = found.next.map(|room| room.0.to_string());
    Ok(response)
}

/// What is known of a user's sessions: for themselves and for admins.
/// <https://spec.matrix.org/v1.19/client-server-api/#server-administration>
pub(super) async fn whois(
    app: App,
    caller: Requester,
    request: whois::Request,
) -> Result<whois::Response, Error> {
    if request.user_id != caller.user && !caller.admin {
        return Err(Error::forbidden("only admins may ask about others"));
    }
    let found = app.users.find(request.user_id.as_str()).await?;
    let (user, sid) = found.ok_or_else(|| Error::not_found("no such user"))?;
    let mut response = whois::Response::new();
    for device in app.users.devices(sid).await? {
        let mut connection = whois::ConnectionInfo::new();
        connection.ip = device.row.last_seen_ip;
        connection.last_seen = device.row.last_seen.map(to_ruma);
        let mut session = whois::SessionInfo::new();
        session.connections = vec![connection];
        let mut info = whois::DeviceInfo::new();
        info.sessions = vec![session];
        response.devices.insert(device.id.to_string(), info);
    }
    response.user_id = Some(user);
    Ok(response)
}
