//! Rooms of a space that this server is not in: servers that are in them are asked what they look like.
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, ServerName,
    api::federation::space::get_hierarchy::v1 as get_hierarchy,
    room::{RoomSummary, RoomType},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    super::{FlowError, template::candidates},
    CHILDREN, Child, in_order,
    known::may_know_told,
};
use crate::{
    remote::Bounds,
    rooms::{Reader, receive::Receiver},
    schema::UserSid,
};

/// How many requests one walk makes.
const REQUESTS: usize = 30;
/// How many servers are asked for one room.
const SERVERS: usize = 3;
/// How long someone waits for all of them.
const PATIENCE: Duration = Duration::from_secs(20);

/// What other servers tell during one walk.
pub(super) struct Elsewhere<'a> {
    receiver: &'a Receiver,
    deadline: Instant,
    requests: usize,
    told: HashMap<OwnedRoomId, RoomSummary>,
    /// What no user of this server can have, as the servers say.
    closed: HashSet<OwnedRoomId>,
}

impl<'a> Elsewhere<'a> {
    pub(super) fn new(receiver: &'a Receiver) -> Self {
        Self {
            receiver,
            deadline: Instant::now() + PATIENCE,
            requests: 0,
            told: HashMap::new(),
            closed: HashSet::new(),
        }
    }

    /// What a room looks like, and its children, if the viewer may know.
    pub(super) async fn visit(
        &mut self,
        reader: &Reader,
        viewer: UserSid,
        id: &RoomId,
        via: Vec<OwnedServerName>,
        suggested_only: bool,
    ) -> Result<Option<(Map<String, Value>, Vec<Child>)>, FlowError> {
        if self.closed.contains(id) {
            return Ok(None);
        }
        let leaf = self
            .told
            .get(id)
            .filter(|told| told.room_type != Some(RoomType::Space));
        let (told, children) = match leaf {
            Some(leaf) => (leaf.clone(), Vec::new()),
            None => match self.ask(id, via, suggested_only).await {
                Some(answer) => answer,
                None => return Ok(None),
            },
        };
        if !may_know_told(reader, viewer, &told).await? {
            return Ok(None);
        }
        let Ok(Value::Object(looks)) = serde_json::to_value(&told) else {
            return Ok(None);
        };
        Ok(Some((looks, in_order(children, suggested_only))))
    }

    async fn ask(
        &mut self,
        id: &RoomId,
        via: Vec<OwnedServerName>,
        suggested_only: bool,
    ) -> Option<(RoomSummary, Vec<Child>)> {
        let servers = candidates(self.receiver.rooms(), id, via);
        for server in servers.into_iter().take(SERVERS) {
            if self.requests >= REQUESTS {
                return None;
            }
            self.requests += 1;
            let asked = self.ask_one(&server, id, suggested_only);
            match tokio::time::timeout_at(self.deadline, asked).await {
                Ok(Some(answer)) => {
                    let told = answer.children.into_iter().take(CHILDREN);
                    self.told
                        .extend(told.map(|told| (told.room_id.clone(), told)));
                    let closed = answer.inaccessible_children.into_iter();
                    self.closed.extend(closed.take(CHILDREN));
                    let links = answer.room.children_state.into_iter().take(CHILDREN);
                    let links = links.filter_map(|link| read_link(link.json().get()));
                    return Some((answer.room.summary, links.collect()));
                }
                Ok(None) => {}
                Err(_) => return None,
            }
        }
        None
    }

    async fn ask_one(
        &self,
        server: &ServerName,
        id: &RoomId,
        suggested_only: bool,
    ) -> Option<get_hierarchy::Response> {
        let mut request = get_hierarchy::Request::new(id.to_owned());
        request.suggested_only = suggested_only;
        let remote = self.receiver.remote();
        match remote.call_within(server, request, Bounds::urgent()).await {
            Ok(answer) if answer.room.summary.room_id == id => Some(answer),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%server, room = %id, %error, "a space cannot be asked for");
                None
            }
        }
    }
}

fn read_link(json: &str) -> Option<Child> {
    #[derive(Deserialize)]
    struct Link {
        state_key: String,
        sender: ruma::OwnedUserId,
        origin_server_ts: ruma::UInt,
        content: Map<String, Value>,
    }
    let link: Link = serde_json::from_str(json).ok()?;
    let sent = link.origin_server_ts.into();
    Child::read(&link.state_key, link.sender.as_str(), sent, link.content)
}
