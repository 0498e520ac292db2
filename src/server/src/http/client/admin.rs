//! What admins do to accounts. <https://spec.matrix.org/v1.19/client-server-api/#server-administration>

use ruma::api::client::admin::{
    is_user_locked::v1 as is_locked, is_user_suspended::v1 as is_suspended, lock_user::v1 as lock,
    suspend_user::v1 as suspend,
};
use vatra_domain::users::{Requester, moderation::Measure};

use super::super::{endpoint::Routes, error::Error};
use crate::wiring::App;

/// All of them.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .add(is_locked)
        .add(lock)
        .add(is_suspended)
        .add(suspend)
}

async fn is_locked(
    app: App,
    caller: Requester,
    request: is_locked::Request,
) -> Result<is_locked::Response, Error> {
    let of = &request.user_id;
    let locked = app.users.is_under(&caller, of, Measure::Lock).await?;
    Ok(is_locked::Response::new(locked))
}

async fn lock(
    app: App,
    caller: Requester,
    request: lock::Request,
) -> Result<lock::Response, Error> {
    let (of, on) = (&request.user_id, request.locked);
    app.users.moderate(&caller, of, Measure::Lock, on).await?;
    Ok(lock::Response::new(on))
}

async fn is_suspended(
    app: App,
    caller: Requester,
    request: is_suspended::Request,
) -> Result<is_suspended::Response, Error> {
    let of = &request.user_id;
    let suspended = app.users.is_under(&caller, of, Measure::Suspend).await?;
    Ok(is_suspended::Response::new(suspended))
}

async fn suspend(
    app: App,
    caller: Requester,
    request: suspend::Request,
) -> Result<suspend::Response, Error> {
    let (of, on) = (&request.user_id, request.suspended);
    app.users
        .moderate(&caller, of, Measure::Suspend, on)
        .await?;
    Ok(suspend::Response::new(on))
}
