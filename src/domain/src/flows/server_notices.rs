//! What the server itself has to say to one of its users: a room for each of them, in which an account of the server's own speaks.
//!
//! The room is made with the first notice and carries the tag `m.server_notice`; the user is invited, and again if they have left. They may
//! leave, but not refuse. Nobody can log in to the account: it has no password.
//! <https://spec.matrix.org/v1.19/client-server-api/#server-notices>

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, UserId,
    api::client::room::create_room::v3::{Request, RoomPreset},
    events::TimelineEventType,
    serde::Raw,
};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use vatra_store::Batch;

use super::{FlowError, create_room::create_room, invite::Invite};
use crate::{
    event::build::Draft,
    rooms::{Reader, TxnKey, receive::Receiver},
    schema::{self, Membership, RoomSid, UserSid},
    users::{NewAccount, Requester, Users, UsersError},
};

/// The tag by which clients know the room.
const TAG: &str = "m.server_notice";

/// Who speaks for the server, and how.
#[derive(Debug, Clone)]
pub struct Voice {
    /// The local part of its account.
    pub localpart: String,
    /// What it, and its rooms, are called.
    pub display_name: String,
    /// Of which version its rooms are.
    pub version: RoomVersionId,
}

/// A notice.
pub struct Notice<'a> {
    /// To whom.
    pub to: &'a UserId,
    /// The type of the event.
    pub kind: TimelineEventType,
    /// Its state key, if it is a state event.
    pub state_key: Option<String>,
    /// Its content.
    pub content: CanonicalJsonObject,
}

/// Sends notices. Cheap to clone.
#[derive(Clone)]
pub struct ServerNotices {
    inner: Arc<Inner>,
}

struct Inner {
    users: Users,
    receiver: Receiver,
    voice: Voice,
    /// Two notices at once make one room.
    making: Mutex<()>,
}

impl ServerNotices {
    /// Makes the account that speaks, so that nobody else can take its name.
    ///
    /// # Errors
    /// [`FlowError::BadState`] if it is a person's.
    pub async fn open(users: Users, receiver: Receiver, voice: Voice) -> Result<Self, FlowError> {
        let notices = Self {
            inner: Arc::new(Inner {
                users,
                receiver,
                voice,
                making: Mutex::new(()),
            }),
        };
        let speaker = notices.speaker().await?;
        let Inner { users, voice, .. } = &*notices.inner;
        let name = Some(voice.display_name.clone().into());
        users
            .set_profile_field(speaker.sid, "displayname", name)
            .await?;
        Ok(notices)
    }

    /// Sends a notice, making the room or inviting the user as needed. The same transaction sends it once.
    ///
    /// # Errors
    /// [`UsersError::NotForYou`] unless an admin asks; what is wrong with the user or the event.
    pub async fn send(
        &self,
        by: &Requester,
        notice: Notice<'_>,
        txn: Option<String>,
    ) -> Result<OwnedEventId, FlowError> {
        by.must_be_admin()?;
        let txn = txn.map(|id| TxnKey {
            user: by.sid,
            device: by.device_key().to_owned(),
            endpoint: format!("send_server_notice/{}", notice.to),
            id,
        });
        self.deliver(notice, txn).await
    }

    /// Tells a user something of the server's own accord. What has the same name is told once.
    ///
    /// # Errors
    /// If the user is gone, or the store does not take it.
    pub async fn tell(&self, to: &UserId, text: String, name: &str) -> Result<(), FlowError> {
        let speaker = self.speaker().await?;
        let said = json!({ "msgtype": "m.text", "body": text });
        let notice = Notice {
            to,
            kind: TimelineEventType::RoomMessage,
            state_key: None,
            content: super::content(said)?,
        };
        let txn = TxnKey {
            user: speaker.sid,
            device: String::new(),
            endpoint: format!("tell/{to}"),
            id: name.to_owned(),
        };
        self.deliver(notice, Some(txn)).await.map(|_| ())
    }

    async fn deliver(
        &self,
        notice: Notice<'_>,
        txn: Option<TxnKey>,
    ) -> Result<OwnedEventId, FlowError> {
        let Inner {
            users, receiver, ..
        } = &*self.inner;
        let (to, sid) = users.local(notice.to).await?;
        let speaker = self.speaker().await?;
        if sid == speaker.sid {
            let message = "the server has nothing to say to itself";
            return Err(FlowError::InvalidParam(message.to_owned()));
        }
        let room = self.room_for(&speaker, &to, sid).await?;
        let draft = Draft {
            sender: speaker.user,
            kind: notice.kind,
            state_key: notice.state_key,
            content: notice.content,
            redacts: None,
        };
        Ok(receiver.send_one(&room, draft, txn).await?)
    }

    async fn speaker(&self) -> Result<Requester, FlowError> {
        let Inner { users, voice, .. } = &*self.inner;
        let (user, sid) = match users.find(&voice.localpart).await? {
            Some((user, sid)) => {
                let account = users.account(sid).await?;
                if account.is_none_or(|it| it.deactivated || it.password.is_some()) {
                    return Err(FlowError::BadState(format!(
                        "{user} is someone's account, or has ended: the server needs another name to speak by"
                    )));
                }
                (user, sid)
            }
            None => {
                let new = NewAccount {
                    name: Some(voice.localpart.clone()),
                    ..NewAccount::default()
                };
                users.register(new).await?
            }
        };
        Ok(Requester {
            user,
            sid,
            device: None,
            service: None,
            admin: false,
            suspended: false,
            guest: false,
        })
    }

    /// The user's room, in which they are at least invited.
    async fn room_for(
        &self,
        speaker: &Requester,
        to: &OwnedUserId,
        sid: UserSid,
    ) -> Result<OwnedRoomId, FlowError> {
        let Inner {
            users,
            receiver,
            making,
            ..
        } = &*self.inner;
        let _turn = making.lock().await;
        let rooms = receiver.rooms();
        let reader = rooms.reader();
        let known = match reader.view().get(&schema::NOTICE_ROOMS, &sid).await? {
            Some(room) if reader.is_joined(speaker.sid, room).await? => {
                reader.room_by_sid(room).await?
            }
            _ => None,
        };
        let (room, standing) = match known {
            Some(room) => {
                let row = reader.membership(sid, room.sid).await?;
                (room, row.map(|row| row.membership))
            }
            None => {
                let id = self.make(speaker).await?;
                let room = rooms.reader().room(&id).await?;
                let room = room.ok_or(crate::rooms::RoomError::UnknownRoom)?;
                let mut batch = Batch::new();
                batch.put(&schema::NOTICE_ROOMS, &sid, &room.sid);
                rooms.store().write(batch).await?;
                (room, None)
            }
        };
        if !matches!(standing, Some(Membership::Join | Membership::Invite)) {
            tag(users, sid, room.sid).await?;
            let invite = Invite {
                by: speaker,
                of: to,
                room: &room.id,
                reason: None,
                is_direct: false,
            };
            invite.send(users, receiver).await?;
        }
        Ok(room.id.clone())
    }

    /// A room in which only the server speaks.
    async fn make(&self, speaker: &Requester) -> Result<OwnedRoomId, FlowError> {
        let Inner {
            users,
            receiver,
            voice,
            ..
        } = &*self.inner;
        let mut request = Request::new();
        request.preset = Some(RoomPreset::PrivateChat);
        request.name = Some(voice.display_name.clone());
        let levels = json!({ "users_default": -10 });
        let levels = serde_json::value::to_raw_value(&levels);
        request.power_level_content_override = levels.ok().map(Raw::from_json);
        create_room(users, receiver, speaker, request, &voice.version).await
    }
}

async fn tag(users: &Users, user: UserSid, room: RoomSid) -> Result<(), FlowError> {
    let add = |old: Option<&str>| -> Result<String, UsersError> {
        let mut content: Map<String, Value> = old
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        let tags = content.entry("tags").or_insert_with(|| json!({}));
        if !tags.is_object() {
            *tags = json!({});
        }
        if let Some(tags) = tags.as_object_mut() {
            tags.entry(TAG).or_insert_with(|| json!({}));
        }
        Ok(Value::Object(content).to_string())
    };
    users
        .change_account_data(user, room, "m.tag", add)
        .await??;
    Ok(())
}

/// For who would leave a room to which they are invited.
///
/// # Errors
/// [`FlowError::ServerNotices`] if it is the room in which the server speaks to them.
pub(super) async fn may_refuse(
    reader: &Reader,
    user: UserSid,
    room: RoomSid,
) -> Result<(), FlowError> {
    let theirs = reader.view().get(&schema::NOTICE_ROOMS, &user).await?;
    if theirs != Some(room) {
        return Ok(());
    }
    let row = reader.membership(user, room).await?;
    if row.is_some_and(|row| row.membership == Membership::Invite) {
        return Err(FlowError::ServerNotices);
    }
    Ok(())
}
