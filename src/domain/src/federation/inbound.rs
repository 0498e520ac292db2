//! Events that other servers send.

use async_trait::async_trait;
use ruma::{
    RoomId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::value::RawValue as RawJsonValue;

use super::{
    Federation, FederationError,
    transaction::{Receive, Received},
};
use crate::{
    event::check,
    rooms::receive::{ReceiveError, Verdict},
    schema::Membership,
};

#[async_trait]
impl Receive for Federation {
    async fn receive(
        &self,
        origin: &ServerName,
        room: &RoomId,
        events: Vec<Box<RawJsonValue>>,
    ) -> Vec<Received> {
        let mut received = Vec::with_capacity(events.len());
        let known = match self.admitted(origin, room).await {
            Ok(known) => known,
            Err(refused) => {
                for event in events {
                    // The room may be on its way here, or the event be the end of an invite.
                    let Some(event) = self.receiver.keep_for_join(origin, room, event) else {
                        continue;
                    };
                    let (id, withdrawn) = self.withdrawal(origin, room, &event).await;
                    let outcome = match withdrawn {
                        Ok(true) => Ok(()),
                        Ok(false) => Err(refused.to_string()),
                        Err(error) => Err(error.to_string()),
                    };
                    received.push((id, outcome));
                }
                return received;
            }
        };
        for event in events {
            let (id, outcome) = self.receiver.receive(origin, &known, &event).await;
            let outcome = match outcome {
                Ok(Verdict::Rejected(reason)) => {
                    // What the rules forbid was dealt with: sending it again would change nothing.
                    tracing::debug!(%origin, ?id, %reason, "an event is rejected");
                    Ok(())
                }
                Ok(_) => Ok(()),
                Err(error @ ReceiveError::MissingAuth) => {
                    // What nobody can show to be allowed is as good as forbidden: there is nothing the server could do about it.
                    tracing::debug!(%origin, ?id, %error, "an event is not taken");
                    Ok(())
                }
                Err(error) => {
                    tracing::debug!(%origin, ?id, %error, "an event is not taken");
                    Err(error.to_string())
                }
            };
            received.push((id, outcome));
        }
        received
    }
}

impl Federation {
    /// An event of a room that this server is not in: it is of interest if the one who invited a local user takes
    /// that back, or the server that a local user knocked through tells that they are not let in.
    async fn withdrawal(
        &self,
        origin: &ServerName,
        room: &RoomId,
        event: &RawJsonValue,
    ) -> (Option<ruma::OwnedEventId>, Result<bool, FederationError>) {
        let reader = self.receiver.rooms().reader();
        let known = match reader.room(room).await {
            Ok(Some(known)) => known,
            Ok(None) => return (None, Ok(false)),
            Err(error) => return (None, Err(error.into())),
        };
        let (_, pdu) = match check::read(event.get().as_bytes(), &known.rules) {
            Ok(read) => read,
            Err(error) => return (None, Err(FederationError::invalid(error))),
        };
        let id = pdu.event_id.clone();
        let done = async {
            let user = pdu.state_key.as_deref().map(UserId::parse);
            let (TimelineEventType::RoomMember, Some(Ok(user))) = (&pdu.kind, user) else {
                return Ok(false);
            };
            let membership = pdu.member().and_then(|member| member.membership.clone());
            let ends = matches!(
                membership,
                Some(MembershipState::Leave | MembershipState::Ban)
            );
            let ours = user.server_name() == reader.server_name();
            if !ends || !ours || pdu.sender.server_name() != origin {
                return Ok(false);
            }
            let Some(sid) = reader.user_sid(&user).await? else {
                return Ok(false);
            };
            let row = reader.membership(sid, known.sid).await?;
            let Some(row) = row else {
                return Ok(false);
            };
            let may = match row.membership {
                Membership::Invite => {
                    let invite = reader.event_by_sid(row.event).await?;
                    invite.is_some_and(|invite| invite.pdu.sender == pdu.sender)
                }
                Membership::Knock => {
                    let outside = reader.outside(sid, known.sid).await?;
                    outside.is_some_and(|outside| outside.servers.iter().any(|it| it == origin))
                }
                _ => false,
            };
            if !may {
                return Ok(false);
            }
            let checked = self.receiver.check(&known, event).await?;
            self.receiver
                .rooms()
                .set_outside(&known, &user, checked, None)
                .await?;
            Ok(true)
        };
        (Some(id), done.await)
    }
}
