//! Third-party networks, of which the application services know that bridge to them.
//! <https://spec.matrix.org/v1.19/client-server-api/#third-party-networks>

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{
    RoomAliasId, UserId,
    api::client::thirdparty::{
        get_location_for_protocol::v3 as locations, get_location_for_room_alias::v3 as location_of,
        get_protocol::v3 as get_protocol, get_protocols::v3 as get_protocols,
        get_user_for_protocol::v3 as users, get_user_for_user_id::v3 as user_of,
    },
    thirdparty::{Location, User},
};
use serde_json::{Map, Value, json};
use vatra_domain::{
    flows::appservices::{Known, found, known},
    users::Requester,
};

use super::super::{
    endpoint::{Input, Routes},
    error::Error,
};
use crate::wiring::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .json::<get_protocols::Request, _, _, _>(all)
        .json::<get_protocol::Request, _, _, _>(one)
        .json::<locations::Request, _, _, _>(locations_of_protocol)
        .json::<users::Request, _, _, _>(users_of_protocol)
        .json::<location_of::Request, _, _, _>(locations_of_alias)
        .json::<user_of::Request, _, _, _>(users_of_user)
}

async fn all(app: App, _: Requester, _: Input) -> Result<Response, Error> {
    let mut shown = Map::new();
    for protocol in app.users.services().protocols() {
        if let Some(about) = about(&app, protocol).await {
            shown.insert(protocol.to_owned(), about);
        }
    }
    Ok(Json(shown).into_response())
}

async fn one(app: App, _: Requester, input: Input) -> Result<Response, Error> {
    let about = about(&app, input.arg(0)).await;
    let about = about.ok_or_else(|| unknown(input.arg(0)))?;
    Ok(Json(about).into_response())
}

/// What a network is: as the first of its services says, with the instances of all.
async fn about(app: &App, protocol: &str) -> Option<Value> {
    let told = known::<Map<String, Value>>(
        &app.users,
        &app.asking,
        |service| service.protocols.iter().any(|it| it == protocol),
        (Known::Protocol, protocol, ""),
    );
    let (mut whole, mut instances) = (None, Vec::new());
    for (service, mut about) in told.await {
        if let Some(Value::Array(own)) = about.remove("instances") {
            for mut instance in own {
                let network = instance.get("network_id").and_then(Value::as_str);
                let id = network.map(|network| format!("{}|{network}", service.id));
                if let Some((instance, id)) = instance.as_object_mut().zip(id) {
                    // How clients name it in `third_party_instance_id`.
                    instance.insert("instance_id".to_owned(), json!(id));
                }
                instances.push(instance);
            }
        }
        whole.get_or_insert(about);
    }
    let mut whole = whole?;
    whole.insert("instances".to_owned(), Value::Array(instances));
    Some(Value::Object(whole))
}

/// The query without the client's token, which is none of a service's business.
fn fields(input: &Input) -> String {
    let pairs = form_urlencoded::parse(input.query.as_bytes());
    let kept = pairs.filter(|(key, _)| key != "access_token" && key != "user_id");
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .finish()
}

async fn locations_of_protocol(app: App, _: Requester, input: Input) -> Result<Response, Error> {
    let protocol = bridged(&app, &input)?;
    let fields = fields(&input);
    let told = found::<Location>(
        &app.users,
        &app.asking,
        |service| service.protocols.iter().any(|it| it == protocol),
        (Known::Location, protocol, &fields),
    );
    Ok(Json(told.await).into_response())
}

async fn users_of_protocol(app: App, _: Requester, input: Input) -> Result<Response, Error> {
    let protocol = bridged(&app, &input)?;
    let fields = fields(&input);
    let told = found::<User>(
        &app.users,
        &app.asking,
        |service| service.protocols.iter().any(|it| it == protocol),
        (Known::User, protocol, &fields),
    );
    Ok(Json(told.await).into_response())
}

async fn locations_of_alias(app: App, _: Requester, input: Input) -> Result<Response, Error> {
    let alias = input
        .param("alias")
        .and_then(|alias| RoomAliasId::parse(alias).ok());
    let alias = alias.ok_or_else(|| Error::invalid_param("alias is a room alias"))?;
    let fields = fields(&input);
    let told = found::<Location>(
        &app.users,
        &app.asking,
        |service| service.has_alias(&alias),
        (Known::Location, "", &fields),
    );
    Ok(Json(told.await).into_response())
}

async fn users_of_user(app: App, _: Requester, input: Input) -> Result<Response, Error> {
    let user = input
        .param("userid")
        .and_then(|user| UserId::parse(user).ok());
    let user = user.ok_or_else(|| Error::invalid_param("userid is a user id"))?;
    let fields = fields(&input);
    let told = found::<User>(
        &app.users,
        &app.asking,
        |service| service.has_user(&user),
        (Known::User, "", &fields),
    );
    Ok(Json(told.await).into_response())
}

/// The network that a path names, if a service bridges to it.
fn bridged<'a>(app: &App, input: &'a Input) -> Result<&'a str, Error> {
    let protocol = input.arg(0);
    if app.users.services().protocols().contains(&protocol) {
        Ok(protocol)
    } else {
        Err(unknown(protocol))
    }
}

fn unknown(protocol: &str) -> Error {
    Error::not_found(format!("this server knows no network {protocol}"))
}
