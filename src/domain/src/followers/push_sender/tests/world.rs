//! A server with phones, and the gateways of these phones in memory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::Uri;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomVersionId, UserId,
    events::{TimelineEventType, receipt::ReceiptThread},
    server_name,
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vatra_store::{MemoryEngine, Options, Store, testing::CountingEngine};

use super::super::{Answer, Gateway, Parts, PushSender};
use crate::{
    clock::ManualClock,
    event::{build::Draft, signer::Signer},
    followers::{Status, notices::Notices, run},
    ids::Ids,
    random::SystemRandom,
    remote::TransportError,
    rooms::{CacheSizes, Rooms, ephemeral::Ephemeral},
    schema,
    users::{
        Login, NewAccount, Requester, Users,
        pushers::{PusherError, SetPusher, Ways},
    },
};

/// What a gateway does with what it gets.
#[derive(Debug, Clone)]
pub(super) enum Mood {
    Status(u16),
    Rejects(&'static str),
    Gone,
    NeverAnswers,
}

/// Gateways, by host: they take what they are sent, unless they are in another mood.
#[derive(Clone, Default)]
pub(in crate::followers) struct Gateways {
    got: Arc<Mutex<Vec<(String, Value)>>>,
    moods: Arc<Mutex<HashMap<String, VecDeque<Mood>>>>,
}

#[async_trait]
impl Gateway for Gateways {
    async fn post(&self, url: &Uri, body: Bytes) -> Result<Answer, TransportError> {
        let host = url.host().unwrap().to_owned();
        let body: Value = serde_json::from_slice(&body).unwrap();
        self.got
            .lock()
            .unwrap()
            .push((host.clone(), body["notification"].clone()));
        let mood = {
            let mut moods = self.moods.lock().unwrap();
            let moods = moods.entry(host).or_default();
            match moods.len() {
                // The last one stays.
                1 => moods.front().cloned(),
                _ => moods.pop_front(),
            }
        };
        let (status, rejected) = match mood {
            None => (200, vec![]),
            Some(Mood::Status(status)) => (status, vec![]),
            Some(Mood::Rejects(pushkey)) => (200, vec![pushkey]),
            Some(Mood::Gone) => return Err(TransportError::NoConnection("gone".to_owned())),
            Some(Mood::NeverAnswers) => std::future::pending().await,
        };
        let body = json!({ "rejected": rejected }).to_string().into();
        Ok(Answer { status, body })
    }
}

impl Gateways {
    /// What a gateway does next, and from the last on always.
    pub(super) fn set(&self, host: &str, moods: &[Mood]) {
        let moods = moods.iter().cloned().collect();
        self.moods.lock().unwrap().insert(host.to_owned(), moods);
    }

    /// Everything that a gateway got.
    pub(super) fn got(&self, host: &str) -> Vec<Value> {
        let got = self.got.lock().unwrap();
        let its = got.iter().filter(|(name, _)| name == host);
        its.map(|(_, it)| it.clone()).collect()
    }

    /// In short: texts and memberships of events, and counts.
    pub(super) fn told(&self, host: &str) -> Vec<String> {
        let short = |it: &Value| {
            let content = &it["content"];
            let text = content["body"].as_str().or(content["membership"].as_str());
            let count = &it["counts"]["unread"];
            format!("{} {count}", text.unwrap_or("-"))
        };
        self.got(host).iter().map(short).collect()
    }
}

pub(in crate::followers) struct World {
    pub(in crate::followers) rooms: Rooms,
    pub(in crate::followers) users: Users,
    pub(in crate::followers) notices: Notices,
    pub(in crate::followers) engine: Arc<CountingEngine>,
    pub(in crate::followers) store: Store,
    pub(super) ephemeral: Ephemeral,
    pub(super) gateways: Gateways,
    pub(in crate::followers) clock: Arc<ManualClock>,
    pub(super) sender: PushSender,
    status: Arc<Status>,
    signer: Arc<Signer>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl World {
    pub(in crate::followers) async fn new() -> Self {
        let engine = Arc::new(CountingEngine::new(Arc::new(MemoryEngine::new())));
        let store = Store::open(engine.clone(), Options::default(), schema::migrations())
            .await
            .unwrap();
        let name = server_name!("here").to_owned();
        let signer = Signer::from_der(name, &Signer::generate(), "1".to_owned()).unwrap();
        let clock = ManualClock::new(1_700_000_000_000);
        Self::on(engine, store, Arc::new(signer), clock, Gateways::default())
    }

    fn on(
        engine: Arc<CountingEngine>,
        store: Store,
        signer: Arc<Signer>,
        clock: Arc<ManualClock>,
        gateways: Gateways,
    ) -> Self {
        let ids = Ids::new(store.clone(), 10_000);
        let rooms = Rooms::new(
            store.clone(),
            ids.clone(),
            clock.clone(),
            signer.clone(),
            CacheSizes::default(),
        );
        let name = server_name!("here").to_owned();
        let random = Arc::new(SystemRandom);
        let users = Users::new(store.clone(), ids, clock.clone(), random.clone(), name);
        let notices = Notices::new(rooms.clone(), users.clone(), clock.clone());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let sender = PushSender::new(Parts {
            notices: notices.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            gateway: Arc::new(gateways.clone()),
            clock: clock.clone(),
            random,
            tasks: tasks.clone(),
            shutdown: stop.clone(),
        });
        let world = Self {
            ephemeral: Ephemeral::new(store.clone(), clock.clone(), true),
            status: Status::new("notices"),
            rooms,
            users,
            notices,
            engine,
            store,
            gateways,
            clock,
            sender,
            signer,
            stop,
            tasks,
        };
        let follower = Arc::new(world.notices.clone());
        let (store, status) = (world.store.clone(), world.status.clone());
        world
            .tasks
            .spawn(run(follower, store, status, world.stop.clone()));
        world
            .tasks
            .spawn(world.notices.clone().run(world.stop.clone()));
        world.tasks.spawn(world.sender.clone().run());
        world
    }

    pub(in crate::followers) async fn stopped(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops it, and begins again on the same store.
    pub(super) async fn restarted(self) -> Self {
        self.stopped().await;
        Self::on(
            self.engine,
            self.store,
            self.signer,
            self.clock,
            self.gateways,
        )
    }

    /// A new user, logged in.
    pub(in crate::followers) async fn user(&self, name: &str) -> Requester {
        let new = NewAccount {
            name: Some(name.to_owned()),
            ..NewAccount::default()
        };
        let (user, sid) = self.users.register(new).await.unwrap();
        self.device(&user, sid).await
    }

    /// Another device.
    pub(super) async fn device(&self, user: &UserId, sid: schema::UserSid) -> Requester {
        let login = self.users.login(user.to_owned(), sid, Login::default());
        Requester {
            user: user.to_owned(),
            sid,
            device: Some(login.await.unwrap().device),
            service: None,
            admin: false,
            suspended: false,
            guest: false,
        }
    }

    pub(super) async fn set(
        &self,
        user: &Requester,
        host: &str,
        change: Value,
    ) -> Result<(), PusherError> {
        let mut asked = json!({
            "kind": "http", "app_id": "app", "pushkey": format!("{host}{}", user.sid.0), "app_display_name": "a",
            "device_display_name": "d", "lang": "en",
            "data": { "url": format!("https://{host}/_matrix/push/v1/notify") },
        });
        for (name, value) in change.as_object().into_iter().flatten() {
            asked[name] = value.clone();
        }
        let asked: SetPusher = serde_json::from_value(asked).unwrap();
        self.users.set_pusher(user, asked, Ways::default()).await
    }

    /// A pusher at a gateway, whose pushkey is the host and the user's number; waits until it is known everywhere.
    pub(in crate::followers) async fn push(&self, user: &Requester, host: &str) {
        self.set(user, host, json!({})).await.unwrap();
        self.settled().await;
    }

    /// The same, without waiting.
    pub(in crate::followers) async fn push_later(&self, user: &Requester) {
        self.set(user, "phone", json!({})).await.unwrap();
    }

    /// A public room of a user.
    pub(in crate::followers) async fn room(&self, owner: &Requester) -> OwnedRoomId {
        let owner = owner.user.as_str();
        let content = json!({ "room_version": "12" });
        let create = draft(owner, "m.room.create", Some(""), content);
        let version = RoomVersionId::V12;
        let (mut guard, _) = self.rooms.create(&version, None, create).await.unwrap();
        let join = member(owner, owner, "join");
        self.rooms.send(&mut guard, join, None).await.unwrap();
        let content = json!({ "join_rule": "public" });
        let public = draft(owner, "m.room.join_rules", Some(""), content);
        let sent = self.rooms.send(&mut guard, public, None).await.unwrap();
        let id = guard.room.id.clone();
        drop(guard);
        sent.durable().await.unwrap();
        id
    }

    pub(in crate::followers) async fn send(
        &self,
        room: &OwnedRoomId,
        draft: Draft,
    ) -> OwnedEventId {
        self.rooms.send_one(room, draft, None).await.unwrap()
    }

    pub(in crate::followers) async fn join(&self, room: &OwnedRoomId, user: &Requester) {
        let user = user.user.as_str();
        self.send(room, member(user, user, "join")).await;
    }

    pub(in crate::followers) async fn say(
        &self,
        room: &OwnedRoomId,
        user: &Requester,
        text: &str,
    ) -> OwnedEventId {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.send(
            room,
            draft(user.user.as_str(), "m.room.message", None, content),
        )
        .await
    }

    /// A user has read up to an event.
    pub(in crate::followers) async fn read(
        &self,
        room: &OwnedRoomId,
        user: &Requester,
        event: &OwnedEventId,
    ) {
        let reader = self.rooms.reader();
        let room = reader.room(room).await.unwrap().unwrap();
        let receipts = &self.ephemeral.receipts;
        let thread = &ReceiptThread::Unthreaded;
        receipts
            .set(&reader, room.sid, user.sid, "m.read.private", thread, event)
            .await
            .unwrap();
    }

    /// What happened so far has been followed, and sent if it could be.
    pub(in crate::followers) async fn settled(&self) {
        let mark = self.store.watermark();
        self.until(
            || self.status.lag(mark) == 0,
            || "the follower lags".to_owned(),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }

    pub(super) async fn told(&self, host: &str, expected: &[&str]) {
        self.until(
            || self.gateways.told(host) == expected,
            || format!("{:?} is not {expected:?}", self.gateways.told(host)),
        )
        .await;
    }

    /// The same, and nothing more comes.
    pub(super) async fn told_only(&self, host: &str, expected: &[&str]) {
        self.told(host, expected).await;
        self.settled().await;
        self.told(host, expected).await;
    }

    pub(super) async fn until(&self, holds: impl Fn() -> bool, otherwise: impl Fn() -> String) {
        for _ in 0..400 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{}", otherwise());
    }
}

pub(in crate::followers) fn draft(
    sender: &str,
    kind: &str,
    state_key: Option<&str>,
    content: Value,
) -> Draft {
    let content: CanonicalJsonObject = serde_json::from_value(content).unwrap();
    Draft {
        sender: UserId::parse(sender).unwrap(),
        kind: TimelineEventType::from(kind),
        state_key: state_key.map(str::to_owned),
        content,
        redacts: None,
    }
}

pub(in crate::followers) fn member(sender: &str, of: &str, membership: &str) -> Draft {
    let content = json!({ "membership": membership });
    draft(sender, "m.room.member", Some(of), content)
}
