//! What this server is and can do. <https://spec.matrix.org/v1.19/client-server-api/#server-discovery>

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{
    ServerName, UserId,
    api::{
        client::discovery::{
            discover_homeserver::{self, HomeserverInfo},
            discover_support::{self, Contact, ContactRole},
            get_supported_versions,
        },
        federation::discovery::discover_homeserver as discover_server,
    },
};
use serde_json::json;
use vatra_domain::users::Requester;

use super::super::{endpoint::Input, error::Error};
use crate::wiring::App;

/// v1.1 to v1.13: clients and bridges need them. What of them is missing stands in the README.
const VERSIONS: [&str; 17] = [
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8",
    "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "r0.4.0",
];

pub(super) async fn versions(
    _: App,
    _: Option<Requester>,
    _: get_supported_versions::Request,
) -> Result<get_supported_versions::Response, Error> {
    let features = [
        "org.matrix.msc4222",
        "org.matrix.msc3916.stable",
        "org.matrix.msc2285.stable",
        "org.matrix.msc3814",
        "org.matrix.msc3391",
        "org.matrix.msc3874",
    ];
    Ok(get_supported_versions::Response {
        versions: VERSIONS.iter().map(|&version| version.to_owned()).collect(),
        unstable_features: features
            .into_iter()
            .map(|feature| (feature.to_owned(), true))
            .collect(),
    })
}

pub(super) async fn well_known_client(
    app: App,
    (): (),
    _: discover_homeserver::Request,
) -> Result<discover_homeserver::Response, Error> {
    let base_url = app.config.client.base_url.clone();
    if base_url.is_empty() {
        return Err(Error::not_found(
            "client.base_url is not set on this server",
        ));
    }
    Ok(discover_homeserver::Response {
        homeserver: HomeserverInfo { base_url },
        identity_server: None,
    })
}

pub(super) async fn well_known_server(
    app: App,
    (): (),
    _: discover_server::Request,
) -> Result<discover_server::Response, Error> {
    match ServerName::parse(&app.config.federation.delegate) {
        Ok(server) => Ok(discover_server::Response::new(server)),
        // Empty; what is no server was refused at the start.
        Err(_) => Err(Error::not_found(format!(
            "{} is not delegated",
            app.server_name
        ))),
    }
}

pub(super) async fn well_known_support(
    app: App,
    (): (),
    _: discover_support::Request,
) -> Result<discover_support::Response, Error> {
    let support = &app.config.support;
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let (matrix_id, email_address) = (some(&support.admin_matrix_id), some(&support.admin_email));
    let support_page = some(&support.page);
    if matrix_id.is_none() && email_address.is_none() && support_page.is_none() {
        return Err(Error::not_found("this server names nobody for support"));
    }
    let matrix_id = matrix_id.and_then(|id| UserId::parse(id).ok());
    let named = matrix_id.is_some() || email_address.is_some();
    let contact = Contact {
        role: ContactRole::Admin,
        email_address,
        matrix_id,
    };
    Ok(discover_support::Response {
        contacts: named.then_some(contact).into_iter().collect(),
        support_page,
    })
}

/// Written by hand: ruma leaves out what is as the spec's default, and clients look for it.
pub(super) async fn capabilities(app: App, caller: Requester, _: Input) -> Result<Response, Error> {
    let available: BTreeMap<_, _> = (1..=12)
        .map(|version: u8| (version.to_string(), "stable"))
        .collect();
    let mut capabilities = json!({
        "m.change_password": { "enabled": true },
        "m.set_displayname": { "enabled": true },
        "m.set_avatar_url": { "enabled": true },
        "m.profile_fields": { "enabled": true },
        "m.3pid_changes": { "enabled": app.mail.is_some() },
        "m.get_login_token": { "enabled": caller.service.is_none() },
        "m.room_versions": {
            "default": app.config.rooms.default_version,
            "available": available,
        },
    });
    if let (true, Some(all)) = (caller.admin, capabilities.as_object_mut()) {
        let can = json!({ "suspend": true, "lock": true });
        all.insert("m.account_moderation".to_owned(), can);
    }
    Ok(Json(json!({ "capabilities": capabilities })).into_response())
}
