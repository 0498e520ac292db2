//! What only application services ask.
//! <https://spec.matrix.org/v1.19/application-service-api/#client-server-api-extensions>

use std::{sync::Arc, time::Duration};

use ruma::api::client::{
    appservice::{
        request_ping::v1 as request_ping, set_room_visibility::v3 as set_room_visibility,
    },
    room::Visibility,
};
use vatra_domain::{appservice::Service, flows::appservices};

use super::super::error::Error;
use crate::wiring::App;

pub(super) async fn ping(
    app: App,
    service: Arc<Service>,
    request: request_ping::Request,
) -> Result<request_ping::Response, Error> {
    if request.appservice_id != service.id {
        return Err(Error::forbidden(
            "this is the token of another application service",
        ));
    }
    let transaction = request.transaction_id.as_ref().map(|id| id.as_str());
    let millis = appservices::ping(&app.asking, &app.clock, &service, transaction).await?;
    Ok(request_ping::Response::new(Duration::from_millis(millis)))
}

/// `PUT /directory/list/appservice/{network}/{room}`.
pub(super) async fn set_visibility(
    app: App,
    service: Arc<Service>,
    request: set_room_visibility::Request,
) -> Result<set_room_visibility::Response, Error> {
    let listed = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        _ => return Err(Error::invalid_param("visibility is public or private")),
    };
    let (network, room) = (&request.network_id, &request.room_id);
    appservices::set_listed(&app.rooms, &service, network, room, listed).await?;
    Ok(set_room_visibility::Response::new())
}
