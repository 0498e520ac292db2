//! How a server of these tests answers another: by the functions that the handlers call.

use bytes::Bytes;
use http::Request;
use ruma::{OwnedEventId, RoomId, RoomVersionId, ServerName, UserId};
use serde_json::{Value, json, value::RawValue};

use super::world::Server;
use crate::federation::{
    FederationError,
    invite::Invite,
    membership::{Joined, Kind},
};

fn refused(error: FederationError) -> (u16, Value) {
    match error {
        FederationError::Unknown(_) => (404, json!({ "errcode": "M_NOT_FOUND", "error": "" })),
        FederationError::Forbidden(reason) => {
            (403, json!({ "errcode": "M_FORBIDDEN", "error": reason }))
        }
        FederationError::UnableToAuthorise => (
            400,
            json!({ "errcode": "M_UNABLE_TO_AUTHORISE_JOIN", "error": "" }),
        ),
        other => (
            400,
            json!({ "errcode": "M_INVALID_PARAM", "error": other.to_string() }),
        ),
    }
}

fn joined(joined: Joined) -> Value {
    json!({ "event": joined.event, "state": joined.state, "auth_chain": joined.auth_chain })
}

impl Server {
    pub(super) async fn answer(
        &self,
        origin: &ServerName,
        request: &Request<Bytes>,
    ) -> Result<Value, (u16, Value)> {
        let uri = request.uri();
        let decode = |text: &str| form_decode(&text.replace('+', "%2B"));
        let path: Vec<String> = uri.path().split('/').skip(3).map(decode).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let query: Vec<(String, String)> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), form_decode(value)))
            .collect();
        let all = |name: &str| -> Vec<String> {
            let found = query.iter().filter(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).collect()
        };
        let event_id = || OwnedEventId::try_from(all("event_id")[0].clone()).unwrap();
        let body: &[u8] = request.body();
        let raw = || serde_json::from_slice::<Box<RawValue>>(body).unwrap();
        let room = |text: &str| RoomId::parse(text).unwrap();
        let event = |text: &str| OwnedEventId::try_from(text).unwrap();
        let federation = &self.federation;
        let answer = match path.as_slice() {
            ["v2", "server"] => return Ok(json!(self.keys.published().await.unwrap())),
            [
                "v1",
                made @ ("make_join" | "make_leave" | "make_knock"),
                id,
                user,
            ] => {
                let kind = match *made {
                    "make_join" => Kind::Join,
                    "make_leave" => Kind::Leave,
                    _ => Kind::Knock,
                };
                let user = UserId::parse(*user).unwrap();
                let made = federation.make(origin, kind, &room(id), &user, None).await;
                made.map(|(event, version)| json!({ "event": event, "room_version": version }))
            }
            ["v2", "send_join", id, event_id] => federation
                .send_join(origin, &room(id), &event(event_id), &raw(), false)
                .await
                .map(joined),
            ["v2", "send_leave", id, event_id] => federation
                .send_leave(origin, &room(id), &event(event_id), &raw())
                .await
                .map(|()| json!({})),
            ["v1", "send_knock", id, event_id] => federation
                .send_knock(origin, &room(id), &event(event_id), &raw())
                .await
                .map(|state| json!({ "knock_room_state": state })),
            ["v2", "invite", id, event_id] => {
                let body: Value = serde_json::from_slice(body).unwrap();
                let state = body["invite_room_state"].as_array().unwrap().iter();
                let invite = Invite {
                    room: &room(id),
                    id: &event(event_id),
                    version: RoomVersionId::try_from(body["room_version"].as_str().unwrap())
                        .unwrap(),
                    event: &serde_json::value::to_raw_value(&body["event"]).unwrap(),
                    state: state
                        .map(|event| serde_json::value::to_raw_value(event).unwrap())
                        .collect(),
                };
                let signed = federation.invite(origin, invite).await;
                signed.map(|event| json!({ "event": event }))
            }
            ["v1", "event", id] => federation
                .event(origin, &event(id))
                .await
                .map(|pdu| json!({ "origin": self.name, "origin_server_ts": 1, "pdus": [pdu] })),
            ["v1", "state_ids", id] => federation
                .state_ids(origin, &room(id), &event_id())
                .await
                .map(|it| json!({ "pdu_ids": it.state, "auth_chain_ids": it.auth_chain })),
            ["v1", "state", id] => federation
                .state(origin, &room(id), &event_id())
                .await
                .map(|it| json!({ "pdus": it.state, "auth_chain": it.auth_chain })),
            ["v1", "backfill", id] => {
                let from: Vec<OwnedEventId> = all("v").iter().map(|id| event(id)).collect();
                let limit = all("limit")[0].parse().unwrap();
                let pdus = federation.backfill(origin, &room(id), &from, limit).await;
                pdus.map(|pdus| json!({ "origin": self.name, "origin_server_ts": 1, "pdus": pdus }))
            }
            ["v1", "get_missing_events", id] => {
                let body: Value = serde_json::from_slice(body).unwrap();
                let ids = |name: &str| -> Vec<OwnedEventId> {
                    serde_json::from_value(body[name].clone()).unwrap()
                };
                let (earliest, latest) = (ids("earliest_events"), ids("latest_events"));
                let limit = body["limit"].as_u64().unwrap_or(10);
                let limit = usize::try_from(limit).unwrap();
                let events = federation
                    .missing_events(origin, &room(id), &earliest, &latest, 0, limit)
                    .await;
                events.map(|events| json!({ "events": events }))
            }
            ["v1", "sign"] => return super::policy::sign(&raw()),
            other => panic!("nobody answers {other:?}"),
        };
        answer.map_err(refused)
    }
}

fn form_decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                let hex = String::from_utf8(hex).unwrap();
                out.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            b'+' => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).unwrap()
}
