//! What other servers ask of the rooms they are in.
//! <https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events>

use ruma::api::federation::{
    authorization::get_event_authorization::v1 as get_event_auth,
    backfill::get_backfill::v1 as get_backfill,
    event::{
        get_event::v1 as get_event, get_event_by_timestamp::v1 as get_event_by_timestamp,
        get_missing_events::v1 as get_missing_events, get_room_state::v1 as get_state,
        get_room_state_ids::v1 as get_state_ids,
    },
};
use vatra_domain::clock::to_ruma;
use vatra_store::Direction;

use super::{super::error::Error, Origin};
use crate::wiring::App;

pub(super) async fn event(
    app: App,
    origin: Origin,
    request: get_event::Request,
) -> Result<get_event::Response, Error> {
    let pdu = app
        .federation
        .event(origin.name(), &request.event_id)
        .await?;
    let now = to_ruma(app.clock.now());
    Ok(get_event::Response::new(app.server_name.clone(), now, pdu))
}

pub(super) async fn event_auth(
    app: App,
    origin: Origin,
    request: get_event_auth::Request,
) -> Result<get_event_auth::Response, Error> {
    let chain = app
        .federation
        .event_auth(origin.name(), &request.room_id, &request.event_id)
        .await?;
    Ok(get_event_auth::Response::new(chain))
}

pub(super) async fn state(
    app: App,
    origin: Origin,
    request: get_state::Request,
) -> Result<get_state::Response, Error> {
    let state = app
        .federation
        .state(origin.name(), &request.room_id, &request.event_id)
        .await?;
    Ok(get_state::Response::new(state.auth_chain, state.state))
}

pub(super) async fn state_ids(
    app: App,
    origin: Origin,
    request: get_state_ids::Request,
) -> Result<get_state_ids::Response, Error> {
    let state = app
        .federation
        .state_ids(origin.name(), &request.room_id, &request.event_id)
        .await?;
    Ok(get_state_ids::Response::new(state.auth_chain, state.state))
}

pub(super) async fn backfill(
    app: App,
    origin: Origin,
    request: get_backfill::Request,
) -> Result<get_backfill::Response, Error> {
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let pdus = app
        .federation
        .backfill(origin.name(), &request.room_id, &request.v, limit)
        .await?;
    let now = to_ruma(app.clock.now());
    Ok(get_backfill::Response::new(
        app.server_name.clone(),
        now,
        pdus,
    ))
}

pub(super) async fn missing_events(
    app: App,
    origin: Origin,
    request: get_missing_events::Request,
) -> Result<get_missing_events::Response, Error> {
    let events = app
        .federation
        .missing_events(
            origin.name(),
            &request.room_id,
            &request.earliest_events,
            &request.latest_events,
            request.min_depth.into(),
            usize::try_from(request.limit).unwrap_or(usize::MAX),
        )
        .await?;
    Ok(get_missing_events::Response::new(events))
}

pub(super) async fn at_time(
    app: App,
    origin: Origin,
    request: get_event_by_timestamp::Request,
) -> Result<get_event_by_timestamp::Response, Error> {
    let direction = match request.dir {
        ruma::api::Direction::Forward => Direction::Forward,
        ruma::api::Direction::Backward => Direction::Backward,
    };
    let ts = request.ts.0.into();
    let (id, ts) = app
        .federation
        .event_at(origin.name(), &request.room_id, ts, direction)
        .await?;
    Ok(get_event_by_timestamp::Response::new(id, ts))
}
