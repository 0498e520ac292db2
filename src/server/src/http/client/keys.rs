//! Keys for end-to-end encryption. <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use ruma::{
    OwnedUserId,
    api::{
        client::keys::{
            claim_keys::v3 as claim_keys, get_key_changes::v3 as get_changes,
            upload_signing_keys::v3 as upload_signing,
        },
        error::ErrorCode,
    },
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use vatra_domain::{
    e2ee::{Failure, KeysUpload, SignedObjects, SigningKeys, Uploaded},
    flows::keys::TIMEOUT,
    users::Requester,
};

use super::{
    super::{
        claims,
        endpoint::Input,
        error::Error,
        uiaa::{Operation, own_device},
    },
    rooms::viewer,
};
use crate::wiring::App;

/// The longest that a client can have other servers waited for.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct UploadBody {
    device_keys: Option<Box<RawValue>>,
    #[serde(default)]
    one_time_keys: BTreeMap<String, Box<RawValue>>,
    #[serde(default)]
    fallback_keys: BTreeMap<String, Box<RawValue>>,
}

/// Read by hand: the domain says what is wrong with a key.
pub(super) async fn upload(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let body: UploadBody = input.read()?;
    let device = own_device(&caller)?;
    let upload = KeysUpload {
        device_keys: body.device_keys,
        one_time_keys: body.one_time_keys,
        fallback_keys: body.fallback_keys,
    };
    let counts = app
        .e2ee
        .upload_keys(&caller.user, caller.sid, device.as_str(), &upload)
        .await?;
    let counts: BTreeMap<String, u64> = counts.into_iter().collect();
    Ok(Json(json!({ "one_time_key_counts": counts })).into_response())
}

#[derive(Deserialize)]
struct QueryBody {
    device_keys: BTreeMap<OwnedUserId, Vec<String>>,
    /// In milliseconds.
    timeout: Option<u64>,
}

/// How long other servers are waited for: as long as the client likes, within bounds.
fn wait(asked: Option<Duration>) -> Duration {
    asked.map_or(TIMEOUT, |asked| asked.min(LONGEST_TIMEOUT))
}

#[derive(Default, Serialize)]
struct QueryAnswer {
    failures: BTreeMap<String, Value>,
    device_keys: BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>,
    master_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    self_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    user_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
}

/// Answered by hand: keys are copied as they are stored.
pub(super) async fn query(app: App, caller: Requester, input: Input) -> Result<Response, Error> {
    let body: QueryBody = input.read()?;
    let timeout = wait(body.timeout.map(Duration::from_millis));
    let asked = app.user_keys.query(&caller, body.device_keys, timeout);
    let answer = asked.await?;
    let mut shown = QueryAnswer {
        failures: failures(answer.unreachable),
        ..QueryAnswer::default()
    };
    for (user, keys) in answer.found {
        let signing = [
            (&mut shown.master_keys, keys.master),
            (&mut shown.self_signing_keys, keys.self_signing),
            (&mut shown.user_signing_keys, keys.user_signing),
        ];
        for (map, key) in signing {
            map.extend(key.map(|key| (user.clone(), key)));
        }
        shown.device_keys.insert(user, keys.devices);
    }
    Ok(Json(shown).into_response())
}

pub(super) async fn claim(
    app: App,
    _: Requester,
    request: claim_keys::Request,
) -> Result<claim_keys::Response, Error> {
    let timeout = wait(request.timeout);
    let claims = claims::asked(request.one_time_keys);
    let answer = app.user_keys.claim(claims, timeout).await?;
    Ok(claim_keys::Response {
        failures: failures(answer.unreachable),
        one_time_keys: claims::shown(answer.found)?,
    })
}

/// Servers that could not be asked.
fn failures(servers: impl IntoIterator<Item = ruma::OwnedServerName>) -> BTreeMap<String, Value> {
    let failure = json!({ "errcode": "M_UNKNOWN", "error": "that server cannot be reached" });
    servers
        .into_iter()
        .map(|server| (server.to_string(), failure.clone()))
        .collect()
}

pub(super) async fn changes(
    app: App,
    caller: Requester,
    request: get_changes::Request,
) -> Result<get_changes::Response, Error> {
    let token = |name: &str, token: &str| {
        let bad = format!("{name} is no token of this server");
        token.parse().map_err(|_| Error::invalid_param(&bad))
    };
    let from = token("from", &request.from)?;
    // Only a hint: what is known now is never older than what the client was told.
    token("to", &request.to)?;
    let lists = app.syncs.key_changes(&viewer(&caller), from).await?;
    Ok(get_changes::Response {
        changed: lists.changed,
        left: lists.left,
    })
}

pub(super) async fn upload_signing_keys(
    app: App,
    caller: Requester,
    request: upload_signing::Request,
) -> Result<upload_signing::Response, Error> {
    let keys = SigningKeys {
        master: request.master_key.map(Raw::into_json),
        self_signing: request.self_signing_key.map(Raw::into_json),
        user_signing: request.user_signing_key.map(Raw::into_json),
    };
    let mut authenticated = false;
    loop {
        let uploaded = app
            .e2ee
            .upload_signing_keys(&caller.user, caller.sid, &keys, authenticated)
            .await?;
        if uploaded == Uploaded::Done {
            return Ok(upload_signing::Response {});
        }
        let operation = Operation::by_password("cross-signing keys", &keys, &caller);
        operation.check(&app, request.auth.as_ref()).await?;
        authenticated = true;
    }
}

/// Answered by hand: ruma's failures cannot be made.
pub(super) async fn upload_signatures(
    app: App,
    caller: Requester,
    input: Input,
) -> Result<Response, Error> {
    let objects: SignedObjects = input.read()?;
    let failures = app
        .e2ee
        .upload_signatures(&caller.user, caller.sid, &objects)
        .await?;
    let shown: BTreeMap<_, BTreeMap<_, _>> = failures
        .into_iter()
        .map(|(user, keys)| {
            let keys = keys.into_iter();
            (user, keys.map(|(key, why)| (key, failure(&why))).collect())
        })
        .collect();
    Ok(Json(json!({ "failures": shown })).into_response())
}

fn failure(failure: &Failure) -> Value {
    let code = match failure {
        Failure::NotFound => ErrorCode::NotFound,
        Failure::InvalidSignature(_) => ErrorCode::from("M_INVALID_SIGNATURE"),
        Failure::BadJson(_) => ErrorCode::BadJson,
    };
    json!({ "errcode": code.to_string(), "error": failure.to_string() })
}
