//! Events that are built and not appended here: for other servers, or with something of theirs.

use ruma::{MilliSecondsSinceUnixEpoch, RoomId};
use serde_json::value::RawValue as RawJsonValue;

use super::super::{Room, RoomError, Rooms};
use crate::event::{
    auth,
    build::{self, Countersigned, Draft, Placement},
    pdu::Pdu,
};

impl Rooms {
    /// The template of an event that a user of another server may build: only if the current state would allow it.
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] with the auth rule that says no.
    pub async fn template(
        &self,
        room: &RoomId,
        draft: Draft,
    ) -> Result<Box<RawJsonValue>, RoomError> {
        let mut guard = self.lock(room).await?;
        let (placement, state) = self.placement(&mut guard, &draft).await?;
        drop(guard);
        // The rules judge events only: this one goes no further.
        let pdu = build::build(draft.clone(), &placement, &self.inner.signer)?;
        auth::authorise(&placement.rules, &pdu, |kind, key| {
            state.get(&(kind.clone(), key.to_owned())).cloned()
        })?;
        Ok(build::template(&draft, &placement)?)
    }

    /// Builds an event on the head without appending it, for a local user: what it needs of another server is got with no room
    /// held.
    ///
    /// # Errors
    /// As [`Rooms::send`].
    pub async fn build_only(&self, room: &RoomId, draft: Draft) -> Result<Pdu, RoomError> {
        self.build_only_at(room, draft, None).await
    }

    /// The same with another time of sending than now.
    ///
    /// # Errors
    /// As [`Rooms::send`].
    pub(in crate::rooms) async fn build_only_at(
        &self,
        room: &RoomId,
        draft: Draft,
        sent: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Result<Pdu, RoomError> {
        let mut guard = self.lock(room).await?;
        self.check_redaction(&mut guard, &draft).await?;
        self.build_on(&mut guard, draft, sent).await
    }

    /// Builds an event of a local user at a place that another server has named: it is for that server to judge.
    ///
    /// # Errors
    /// [`RoomError::Unbuildable`].
    pub fn build_at(&self, draft: Draft, placement: &Placement) -> Result<Pdu, RoomError> {
        Ok(build::build(draft, placement, &self.inner.signer)?)
    }

    /// Adds this server's signature to another server's event; see [`build::countersign`].
    ///
    /// # Errors
    /// [`RoomError::Unbuildable`] if there is no reason to.
    pub fn countersign(
        &self,
        room: &Room,
        pdu: &Pdu,
        reason: Countersigned,
    ) -> Result<Pdu, RoomError> {
        Ok(build::countersign(
            pdu,
            reason,
            &room.rules,
            &self.inner.signer,
        )?)
    }

    /// The time now, as events have it.
    pub fn now(&self) -> ruma::MilliSecondsSinceUnixEpoch {
        crate::clock::to_ruma(self.inner.clock.now())
    }
}
