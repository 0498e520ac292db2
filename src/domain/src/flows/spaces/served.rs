//! What another server is told of a space: the room, its children, and which of these its users cannot have.
//! <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid>

use ruma::{RoomId, ServerName};
use serde_json::{Value, json};

use super::{FlowError, Viewer, children, may_know, summary};
use crate::rooms::{Reader, RoomError};

/// How many children are told of.
const TOLD: usize = 200;

/// The answer to a server.
///
/// # Errors
/// [`RoomError::UnknownRoom`], also for a room of which that server may not know.
pub async fn for_server(
    reader: &Reader,
    server: &ServerName,
    room: &RoomId,
    suggested_only: bool,
) -> Result<Value, FlowError> {
    let viewer = Viewer::Server(server);
    let room = reader.room(room).await?.ok_or(RoomError::UnknownRoom)?;
    let here = reader.server_is_in(room.sid, None).await?;
    if !here || !may_know(reader, viewer, &room).await? {
        return Err(RoomError::UnknownRoom.into());
    }
    let links = children(reader, &room, suggested_only).await?;
    let (mut told, mut closed) = (Vec::new(), Vec::new());
    for link in links.iter().take(TOLD) {
        let Some(child) = reader.room(&link.id).await? else {
            continue;
        };
        if !reader.server_is_in(child.sid, None).await? {
            continue;
        }
        if may_know(reader, viewer, &child).await? {
            told.push(Value::Object(summary(reader, &child).await?));
        } else {
            closed.push(&link.id);
        }
    }
    let mut looks = summary(reader, &room).await?;
    let links: Vec<&Value> = links.iter().map(|link| &link.stripped).collect();
    looks.insert("children_state".to_owned(), json!(links));
    Ok(json!({ "room": looks, "children": told, "inaccessible_children": closed }))
}
