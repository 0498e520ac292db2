//! Third-party networks, of which there are none without application services.
//! <https://spec.matrix.org/v1.19/client-server-api/#third-party-networks>

use std::collections::BTreeMap;

use ruma::api::client::thirdparty::{
    get_location_for_protocol::v3 as locations, get_location_for_room_alias::v3 as location_of,
    get_protocol::v3 as get_protocol, get_protocols::v3 as get_protocols,
    get_user_for_protocol::v3 as users, get_user_for_user_id::v3 as user_of,
};
use vatra_domain::users::Requester;

use super::super::{endpoint::Routes, error::Error};
use crate::wiring::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .add(all)
        .add(one)
        .add(locations_of_protocol)
        .add(users_of_protocol)
        .add(locations_of_alias)
        .add(users_of_user)
}

async fn all(
    _: App,
    _: Requester,
    _: get_protocols::Request,
) -> Result<get_protocols::Response, Error> {
    Ok(get_protocols::Response::new(BTreeMap::new()))
}

async fn one(
    _: App,
    _: Requester,
    request: get_protocol::Request,
) -> Result<get_protocol::Response, Error> {
    Err(unknown(&request.protocol))
}

async fn locations_of_protocol(
    _: App,
    _: Requester,
    request: locations::Request,
) -> Result<locations::Response, Error> {
    Err(unknown(&request.protocol))
}

async fn users_of_protocol(
    _: App,
    _: Requester,
    request: users::Request,
) -> Result<users::Response, Error> {
    Err(unknown(&request.protocol))
}

async fn locations_of_alias(
    _: App,
    _: Requester,
    _: location_of::Request,
) -> Result<location_of::Response, Error> {
    Ok(location_of::Response::new(Vec::new()))
}

async fn users_of_user(
    _: App,
    _: Requester,
    _: user_of::Request,
) -> Result<user_of::Response, Error> {
    Ok(user_of::Response::new(Vec::new()))
}

fn unknown(protocol: &str) -> Error {
    Error::not_found(format!("this server knows no network {protocol}"))
}
