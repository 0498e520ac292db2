//! Asking a room's policy server, with no room held: for what local users send, and for what comes without its signature.
//! <https://spec.matrix.org/v1.19/server-server-api/#asking-for-a-policy-server-signature-on-an-event>

use std::{sync::Arc, time::Duration};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId,
    api::federation::policy::sign_event::v1 as sign,
};
use serde_json::value::RawValue as RawJsonValue;

use super::{Manner, ReceiveError, Receiver};
use crate::{
    event::{build::Draft, pdu::Pdu, policy::PolicyServer},
    remote::{Bounds, RemoteError},
    rooms::{Room, RoomError, TxnKey},
};

/// How long the policy server may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Receiver {
    /// Sends an event of a local user, as [`Rooms::send_one`](crate::rooms::Rooms::send_one); if the room uses a policy server, with its signature.
    ///
    /// # Errors
    /// As there; [`ReceiveError::Policy`].
    pub async fn send_one(
        &self,
        room: &RoomId,
        draft: Draft,
        txn: Option<TxnKey>,
    ) -> Result<OwnedEventId, ReceiveError> {
        self.send_one_at(room, draft, txn, None).await
    }

    /// The same with another time of sending than now.
    ///
    /// # Errors
    /// The same.
    pub async fn send_one_at(
        &self,
        room: &RoomId,
        draft: Draft,
        txn: Option<TxnKey>,
        sent: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Result<OwnedEventId, ReceiveError> {
        let rooms = &self.rooms;
        let unasked = rooms.send_one_at(room, draft.clone(), txn.clone(), sent);
        match unasked.await {
            Err(RoomError::Unasked) => {}
            other => return Ok(other?),
        }
        // Built on the head, signed with no room held, then judged and placed like what others send: the room may have gone on.
        let pdu = rooms.build_only_at(room, draft, sent).await?;
        let known = rooms.reader().room(room).await?;
        let known = known.ok_or(RoomError::UnknownRoom)?;
        let id = pdu.event_id.clone();
        let pdu = self.recommended(&known, pdu).await?;
        let manner = Manner {
            all_or_nothing: true,
            txn: txn.clone(),
            ..Manner::default()
        };
        let own = rooms.server_name();
        match self.take(&own, &known, pdu, manner).await {
            // The same transaction came twice at once.
            Err(ReceiveError::Room(RoomError::Raced)) => {
                let before = rooms.sent_before(txn.as_ref()).await?;
                Ok(before.ok_or(RoomError::Raced)?)
            }
            other => other.map(|_| id),
        }
    }

    /// An event that a local user waits for, with the signature of the room's policy server if there is one.
    ///
    /// # Errors
    /// [`ReceiveError::Policy`] if the server does not recommend it, or cannot be asked.
    pub async fn recommended(&self, room: &Room, pdu: Pdu) -> Result<Pdu, ReceiveError> {
        let server = self.rooms.reader().policy_server(room.sid).await?;
        let judges = PolicyServer::judges(&pdu.kind, pdu.state_key.as_deref());
        let Some(server) = server.filter(|_| judges) else {
            return Ok(pdu);
        };
        let bounds = Bounds {
            timeout: PATIENCE,
            ..Bounds::urgent()
        };
        let signed = self.signed(&server, room, &pdu, bounds).await;
        signed.map_err(ReceiveError::Policy)
    }

    /// The event with the signature of the room's policy server, if it lacks one and the server gives it.
    pub(super) async fn asked_for(&self, room: &Arc<Room>, pdu: Pdu) -> Result<Pdu, ReceiveError> {
        if !PolicyServer::judges(&pdu.kind, pdu.state_key.as_deref()) {
            return Ok(pdu);
        }
        let server = self.rooms.reader().policy_server(room.sid).await?;
        let server = server.filter(|server| !server.recommends(&pdu, &room.rules));
        let Some(server) = server else {
            return Ok(pdu);
        };
        // A server that does not answer is left alone: what comes meanwhile is not recommended.
        let bounds = Bounds {
            timeout: PATIENCE,
            ..Bounds::default()
        };
        match self.signed(&server, room, &pdu, bounds).await {
            Ok(signed) => Ok(signed),
            Err(error) => {
                tracing::debug!(event = %pdu.event_id, %error, "a policy server does not recommend an event");
                Ok(pdu)
            }
        }
    }

    async fn signed(
        &self,
        server: &PolicyServer,
        room: &Room,
        pdu: &Pdu,
        bounds: Bounds,
    ) -> Result<Pdu, RemoteError> {
        let unreadable = |reason: String| RemoteError::Unreadable(reason);
        let raw: Box<RawJsonValue> =
            serde_json::from_slice(pdu.bytes()).map_err(|error| unreadable(error.to_string()))?;
        let request = sign::Request::new(raw);
        let answer = self
            .remote
            .call_within(&server.via, request, bounds)
            .await?;
        let signature = answer.ed25519_signature(&server.via);
        let signature = signature.ok_or_else(|| unreadable("it does not sign".to_owned()))?;
        let signed = server.signed(pdu, signature, &room.rules);
        let signed = signed.map_err(|error| unreadable(error.to_string()))?;
        signed.ok_or_else(|| unreadable("its signature does not hold".to_owned()))
    }
}
