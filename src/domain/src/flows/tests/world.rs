//! The servers, and the network between them: a request is answered by the other's functions, without HTTP.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId,
    ServerName, api::client::room::create_room::v3::Request as CreateRoom,
    events::TimelineEventType,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use vatra_store::{Direction, MemoryEngine, Options, Store};

use crate::{
    clock::ManualClock,
    event::{build::Draft, signer::Signer},
    federation::{Federation, transaction::Receive},
    flows::{create_room::create_room, join::Join},
    ids::Ids,
    random::SystemRandom,
    remote::{ByteStream, Keys, Parts, Remote, Transport, TransportError, keys, transport::ready},
    rooms::{CacheSizes, Event, Rooms, receive::Receiver},
    schema,
    users::{NewAccount, Requester, Users},
};

/// Who is there, and who does not reach whom.
#[derive(Default, Clone)]
pub(super) struct Net {
    servers: Arc<Mutex<HashMap<OwnedServerName, Server>>>,
    cut: Arc<Mutex<BTreeSet<(String, String)>>>,
    /// Requests with this in their path are done, but their answers are lost.
    lost: Arc<Mutex<&'static [&'static str]>>,
    /// Answers to requests with this in their path are changed on their way.
    forged: Arc<Mutex<Option<Forged>>>,
    /// A request with this in its path waits.
    held: Arc<Mutex<Option<Held>>>,
    /// What was asked, as `server method path`.
    asked: Arc<Mutex<Vec<String>>>,
}

/// In the path of which request, who waits for it, and what it waits for.
type Held = (&'static str, Arc<Notify>, Arc<Notify>);

/// In the path of which requests, and what becomes of their answers.
type Forged = (&'static str, fn(&mut Value));

/// The network as one server sees it.
struct Wire {
    net: Net,
    from: OwnedServerName,
}

/// A whole server.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) name: OwnedServerName,
    pub(super) store: Store,
    pub(super) clock: Arc<ManualClock>,
    pub(super) users: Users,
    pub(super) rooms: Rooms,
    pub(super) receiver: Receiver,
    pub(super) federation: Federation,
    pub(super) keys: Keys,
}

impl Net {
    pub(super) async fn server(&self, name: &str) -> Server {
        let name = ServerName::parse(name).unwrap();
        let store = Store::open(
            Arc::new(MemoryEngine::new()),
            Options::default(),
            schema::migrations(),
        )
        .await
        .unwrap();
        let document = Signer::generate();
        let signer = Arc::new(Signer::from_der(name.clone(), &document, "k".to_owned()).unwrap());
        let clock = ManualClock::new(1_700_000_000_000);
        let random = Arc::new(SystemRandom);
        let wire = Wire {
            net: self.clone(),
            from: name.clone(),
        };
        let remote = Remote::new(Parts {
            store: store.clone(),
            clock: clock.clone(),
            random: random.clone(),
            signer: signer.clone(),
            transport: Arc::new(wire),
        });
        let keys = Keys::open(keys::Parts {
            store: store.clone(),
            clock: clock.clone(),
            signer: signer.clone(),
            remote: remote.clone(),
            notaries: Vec::new(),
        })
        .await
        .unwrap();
        let ids = Ids::new(store.clone(), 1_000);
        let sizes = CacheSizes::default();
        let rooms = Rooms::new(store.clone(), ids.clone(), clock.clone(), signer, sizes);
        let users = Users::new(store.clone(), ids, clock.clone(), random, name.clone());
        let receiver = Receiver::new(rooms.clone(), remote, keys.clone());
        let server = Server {
            federation: Federation::new(receiver.clone(), users.clone()),
            name: name.clone(),
            store,
            clock,
            users,
            rooms,
            receiver,
            keys,
        };
        self.servers.lock().unwrap().insert(name, server.clone());
        server
    }

    /// Nothing goes between two servers from now on.
    pub(super) fn cut(&self, one: &Server, other: &Server) {
        let mut cut = self.cut.lock().unwrap();
        cut.insert((one.name.to_string(), other.name.to_string()));
        cut.insert((other.name.to_string(), one.name.to_string()));
    }

    pub(super) fn heal(&self) {
        self.cut.lock().unwrap().clear();
        *self.lost.lock().unwrap() = &[];
        *self.forged.lock().unwrap() = None;
    }

    /// The answers to some requests are forged from now on.
    pub(super) fn forge(&self, what: &'static str, how: fn(&mut Value)) {
        *self.forged.lock().unwrap() = Some((what, how));
    }

    /// The answers to some requests are lost from now on.
    pub(super) fn lose(&self, what: &'static [&'static str]) {
        *self.lost.lock().unwrap() = what;
    }

    /// The next request whose path has this in it waits: the first of the two tells when it is there, the second lets it go on.
    pub(super) fn hold(&self, what: &'static str) -> (Arc<Notify>, Arc<Notify>) {
        let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        *self.held.lock().unwrap() = Some((what, Arc::clone(&reached), Arc::clone(&go)));
        (reached, go)
    }

    /// How often something was asked whose path has this in it.
    pub(super) fn asked(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|line| line.contains(what)).count()
    }
}

#[async_trait]
impl Transport for Wire {
    async fn send(
        &self,
        destination: &ServerName,
        request: Request<Bytes>,
    ) -> Result<Response<ByteStream>, TransportError> {
        let way = (self.from.to_string(), destination.to_string());
        let server = self.net.servers.lock().unwrap().get(destination).cloned();
        let server = server.filter(|_| !self.net.cut.lock().unwrap().contains(&way));
        let server = server.ok_or_else(|| TransportError::NoConnection("cut".to_owned()))?;
        let line = format!("{destination} {} {}", request.method(), request.uri());
        self.net.asked.lock().unwrap().push(line);
        let held = {
            let mut held = self.net.held.lock().unwrap();
            held.take_if(|(what, ..)| request.uri().path().contains(*what))
        };
        if let Some((_, reached, go)) = held {
            reached.notify_one();
            go.notified().await;
        }
        let (status, mut body) = match server.answer(&self.from, &request).await {
            Ok(body) => (200, body),
            Err((status, body)) => (status, body),
        };
        let lost = *self.net.lost.lock().unwrap();
        if lost.iter().any(|lost| request.uri().path().contains(lost)) {
            return Err(TransportError::NoConnection("lost".to_owned()));
        }
        let forged = *self.net.forged.lock().unwrap();
        if let Some((what, how)) = forged
            && request.uri().path().contains(what)
        {
            how(&mut body);
        }
        let response = Response::builder().status(status);
        let response = response.header("content-type", "application/json");
        let body = Bytes::from(body.to_string());
        Ok(response.body(ready(body)).unwrap())
    }

    async fn fetch(&self, _: &http::Uri) -> Result<Response<ByteStream>, TransportError> {
        Err(TransportError::NoConnection("no web".to_owned()))
    }
}

impl Server {
    pub(super) async fn user(&self, name: &str) -> Requester {
        let new = NewAccount {
            name: Some(name.to_owned()),
            ..NewAccount::default()
        };
        let (user, sid) = self.users.register(new).await.unwrap();
        Requester {
            user,
            sid,
            device: Some("D".into()),
            admin: false,
            service: None,
            suspended: false,
            guest: false,
        }
    }

    /// A public room.
    pub(super) async fn room(&self, creator: &Requester, version: &str) -> OwnedRoomId {
        self.room_with(
            creator,
            json!({ "preset": "public_chat", "room_version": version }),
        )
        .await
    }

    pub(super) async fn room_with(&self, creator: &Requester, body: Value) -> OwnedRoomId {
        use ruma::api::IncomingRequestExt as _;
        let request = http::Request::post("/_matrix/client/v3/createRoom")
            .body(body.to_string().into_bytes())
            .unwrap();
        let request = request.map(|body| &*Box::leak(body.into_boxed_slice()));
        let no_args: &[&str] = &[];
        let request = CreateRoom::try_from_http_request(request, no_args).unwrap();
        create_room(
            &self.users,
            &self.receiver,
            creator,
            request,
            &RoomVersionId::V12,
        )
        .await
        .unwrap()
    }

    pub(super) async fn join(
        &self,
        user: &Requester,
        room: &RoomId,
        via: &Server,
    ) -> Result<(), super::super::FlowError> {
        let join = Join {
            users: &self.users,
            receiver: &self.receiver,
            by: user,
            reason: None,
            more: CanonicalJsonObject::new(),
        };
        join.join(room, vec![via.name.clone()]).await
    }

    /// Sends something; time passes.
    pub(super) async fn send(
        &self,
        by: &Requester,
        room: &RoomId,
        kind: &str,
        key: Option<&str>,
        content: Value,
    ) -> OwnedEventId {
        self.try_send(by, room, kind, key, content).await.unwrap()
    }

    pub(super) async fn try_send(
        &self,
        by: &Requester,
        room: &RoomId,
        kind: &str,
        key: Option<&str>,
        content: Value,
    ) -> Result<OwnedEventId, crate::rooms::RoomError> {
        self.clock.advance(10);
        let content: CanonicalJsonObject = serde_json::from_value(content).unwrap();
        let redacts = content.get("redacts").and_then(|id| id.as_str());
        let redacts = redacts.map(|id| OwnedEventId::try_from(id).unwrap());
        let draft = Draft {
            sender: by.user.clone(),
            kind: TimelineEventType::from(kind),
            state_key: key.map(str::to_owned),
            redacts,
            content,
        };
        self.rooms.send_one(room, draft, None).await
    }

    pub(super) async fn say(&self, by: &Requester, room: &RoomId, text: &str) -> OwnedEventId {
        let content = json!({ "msgtype": "m.text", "body": text });
        self.send(by, room, "m.room.message", None, content).await
    }

    /// Hands events of one server to another, in that order.
    pub(super) async fn tell(
        &self,
        other: &Server,
        room: &RoomId,
        events: &[OwnedEventId],
    ) -> Vec<Result<(), String>> {
        let reader = self.rooms.reader();
        let known = reader.room(room).await.unwrap().unwrap();
        let mut raw = Vec::new();
        for id in events {
            let event = reader.event(known.sid, id).await.unwrap().unwrap();
            raw.push(serde_json::from_slice(event.pdu.bytes()).unwrap());
        }
        let results = other.federation.receive(&self.name, room, raw).await;
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// The current state, from the flat index: (type, key) to event.
    pub(super) async fn state(&self, room: &RoomId) -> BTreeMap<(String, String), OwnedEventId> {
        let reader = self.rooms.reader();
        let known = reader.room(room).await.unwrap().unwrap();
        let state = reader.current_state(known.sid).await.unwrap();
        let index: BTreeMap<_, _> = state.iter().map(|event| entry(event)).collect();
        let root = reader.root_at(known.sid, reader.watermark()).await.unwrap();
        let tree = reader.state_events_at(root).await.unwrap();
        let tree: BTreeMap<_, _> = tree.iter().map(|event| entry(event)).collect();
        assert_eq!(index, tree, "the index is the newest delta's state");
        index
    }

    pub(super) async fn extremities(&self, room: &RoomId) -> BTreeSet<OwnedEventId> {
        let extremities = self.rooms.extremities(room).await.unwrap();
        extremities.into_iter().collect()
    }

    /// The bodies of the messages that clients see, in room order.
    pub(super) async fn heard(&self, room: &RoomId) -> Vec<String> {
        let events = self.timeline(room).await;
        let bodies = events.iter().filter_map(|event| {
            let content: Value = event.pdu.content_as().unwrap();
            Some(content.get("body")?.as_str()?.to_owned())
        });
        bodies.collect()
    }

    pub(super) async fn timeline(&self, room: &RoomId) -> Vec<Arc<Event>> {
        use std::ops::Bound::Unbounded;
        let reader = self.rooms.reader();
        let known = reader.room(room).await.unwrap().unwrap();
        reader
            .timeline(known.sid, Unbounded, Unbounded, Direction::Forward, 10_000)
            .await
            .unwrap()
    }

    pub(super) async fn event(&self, room: &RoomId, id: &OwnedEventId) -> Option<Arc<Event>> {
        let reader = self.rooms.reader();
        let known = reader.room(room).await.unwrap().unwrap();
        reader.event(known.sid, id).await.unwrap()
    }

    /// Everything that `vatra check` looks at agrees.
    pub(super) async fn is_sound(&self) {
        let mut problems = Vec::new();
        self.rooms
            .check(false, |problem| problems.push(problem))
            .await
            .unwrap();
        assert_eq!(problems, [], "{}", self.name);
    }
}

fn entry(event: &Event) -> ((String, String), OwnedEventId) {
    let key = event.pdu.state_key.clone().unwrap();
    (
        (event.pdu.kind.to_string(), key),
        event.pdu.event_id.clone(),
    )
}
