//! Finding people, and reporting them and what they say.
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use ruma::api::client::{
    reporting::report_user::v3 as report_user,
    room::{report_content::v3 as report_content, report_room::v3 as report_room},
    user_directory::search_users::v3 as search_users,
};
use vatra_domain::{
    flows::{reports, user_directory},
    rooms::RoomError,
    users::Requester,
};

use super::{super::error::Error, rooms::Seen};
use crate::wiring::App;

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
    app.rates.send(caller.user.as_str())?;
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
    app.rates.send(caller.user.as_str())?;
    let reason = Some(request.reason);
    reports::room(&app.users, &app.rooms, &caller, &request.room_id, reason).await?;
    Ok(report_room::Response::new())
}

pub(super) async fn report_user(
    app: App,
    caller: Requester,
    request: report_user::Request,
) -> Result<report_user::Response, Error> {
    app.rates.send(caller.user.as_str())?;
    let reason = Some(request.reason);
    reports::user(&app.users, &app.rooms, &caller, &request.user_id, reason).await?;
    Ok(report_user::Response::new())
}
