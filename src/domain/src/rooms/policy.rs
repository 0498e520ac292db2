//! Which policy server a room uses now, and what local users send in such a room.
//! <https://spec.matrix.org/v1.19/server-server-api/#determining-if-a-policy-server-is-enabled-in-a-room>

use std::sync::Arc;

use ruma::events::StateEventType;

use super::{Reader, RoomError, RoomGuard};
use crate::{
    event::{
        build::Draft,
        pdu::Pdu,
        policy::{POLICY, PolicyServer},
    },
    schema::RoomSid,
};

impl Reader {
    /// The policy server that a room uses: one that it names and that is in it.
    ///
    /// # Errors
    /// The store's.
    pub async fn policy_server(&self, room: RoomSid) -> Result<Option<PolicyServer>, RoomError> {
        let event = self
            .state_event(room, &StateEventType::from(POLICY), "")
            .await?;
        self.in_use(room, event.map(|event| Arc::clone(&event.pdu)))
            .await
    }

    async fn in_use(
        &self,
        room: RoomSid,
        named: Option<Arc<Pdu>>,
    ) -> Result<Option<PolicyServer>, RoomError> {
        let Some(server) = named.and_then(|event| PolicyServer::of(&event)) else {
            return Ok(None);
        };
        let there = self.server_is_in(room, Some(&server.via)).await?;
        Ok(there.then_some(server))
    }
}

impl RoomGuard {
    /// The same while the room is held.
    async fn policy_server(&mut self) -> Result<Option<PolicyServer>, RoomError> {
        let event = self.state_event(&StateEventType::from(POLICY), "").await?;
        let Some(event) = event else {
            return Ok(None);
        };
        let reader = Reader::new(Arc::clone(&self.inner), self.inner.store.view());
        reader
            .in_use(self.room.sid, Some(Arc::clone(&event.pdu)))
            .await
    }

    /// Whether an event may become part of the room, as far as its policy server goes; if not, why.
    pub(super) async fn recommended(&mut self, pdu: &Pdu) -> Result<Result<(), String>, RoomError> {
        if !PolicyServer::judges(&pdu.kind, pdu.state_key.as_deref()) {
            return Ok(Ok(()));
        }
        Ok(match self.policy_server().await? {
            Some(server) if !server.recommends(pdu, &self.room.rules) => {
                Err("the room's policy server does not recommend it".to_owned())
            }
            _ => Ok(()),
        })
    }

    /// For what is sent without asking anyone.
    ///
    /// # Errors
    /// [`RoomError::Unasked`] if the room's policy server is to be asked.
    pub(super) async fn nobody_is_asked(&mut self, draft: &Draft) -> Result<(), RoomError> {
        if PolicyServer::judges(&draft.kind, draft.state_key.as_deref())
            && self.policy_server().await?.is_some()
        {
            return Err(RoomError::Unasked);
        }
        Ok(())
    }
}
