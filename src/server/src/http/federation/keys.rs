//! Signing keys: this server's, and as a notary those of others.
//! <https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys>

use futures::{StreamExt, stream};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId,
    api::federation::discovery::{
        ServerSigningKeys, get_remote_server_keys::v2 as of_one_server,
        get_remote_server_keys_batch::v2 as of_many_servers, get_server_keys::v2 as own_keys,
    },
    serde::Raw,
};
use vatra_domain::clock::to_ruma;

use super::super::error::Error;
use crate::wiring::App;

/// The most servers that one request may ask about.
const MAX_SERVERS: usize = 100;
/// How many of them are asked side by side.
const SIDE_BY_SIDE: usize = 10;

pub(super) async fn own(
    app: App,
    (): (),
    _: own_keys::Request,
) -> Result<own_keys::Response, Error> {
    let document = app.keys.published().await?;
    Ok(own_keys::Response::new(raw(&document)?))
}

pub(super) async fn of_one(
    app: App,
    (): (),
    request: of_one_server::Request,
) -> Result<of_one_server::Response, Error> {
    let until = request.minimum_valid_until_ts;
    let document = app.keys.notarised(&request.server_name, &[], until).await?;
    let keys = document.as_ref().map(raw).transpose()?;
    Ok(of_one_server::Response::new(keys.into_iter().collect()))
}

pub(super) async fn of_many(
    app: App,
    (): (),
    request: of_many_servers::Request,
) -> Result<of_many_servers::Response, Error> {
    if request.server_keys.len() > MAX_SERVERS {
        let message = format!("one request asks about {MAX_SERVERS} servers at most");
        return Err(Error::invalid_param(&message));
    }
    let now = to_ruma(app.clock.now());
    let asked = request.server_keys.into_iter().map(|(server, keys)| {
        let until = keys
            .values()
            .filter_map(|key| key.minimum_valid_until_ts)
            .max();
        let ids: Vec<_> = keys.into_keys().take(MAX_SERVERS).collect();
        one(&app, server, ids, until.unwrap_or(now))
    });
    let found: Vec<_> = stream::iter(asked).buffered(SIDE_BY_SIDE).collect().await;
    let mut keys = Vec::new();
    for document in found {
        if let Some(document) = document? {
            keys.push(raw(&document)?);
        }
    }
    Ok(of_many_servers::Response::new(keys))
}

async fn one(
    app: &App,
    server: OwnedServerName,
    ids: Vec<OwnedServerSigningKeyId>,
    until: MilliSecondsSinceUnixEpoch,
) -> Result<Option<CanonicalJsonObject>, Error> {
    Ok(app.keys.notarised(&server, &ids, until).await?)
}

fn raw(document: &CanonicalJsonObject) -> Result<Raw<ServerSigningKeys>, Error> {
    let raw = Raw::new(document).map_err(|error| Error::internal(&error))?;
    Ok(raw.cast_unchecked())
}
