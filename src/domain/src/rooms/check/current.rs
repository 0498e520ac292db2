//! The current state by name against the trees that the heads name.

use vatra_store::View;

use super::trees::{Found, Trees};
use crate::{
    audit::{Audit, AuditError, PAGE, Pages},
    schema::{
        CURRENT_STATE, EVENTS, EventSid, HeadRow, NodeRow, ROOM_HEADS, RoomSid, STATE_KEY_SIDS,
        STATE_KEYS, StateKeySid,
    },
};

pub(super) async fn check(audit: &mut Audit<'_>, trees: &mut Trees) -> Result<(), AuditError> {
    let view = audit.view();
    let mut heads = Pages::new(&ROOM_HEADS, PAGE);
    while let Some(page) = heads.next(&view, audit).await? {
        for (room, head) in page {
            if trees.is_whole(room) {
                by_tree(audit, &view, trees, room, &head).await?;
            }
        }
    }
    by_name(audit, trees).await
}

/// Each entry of the tree has its row, its name and its event.
async fn by_tree(
    audit: &mut Audit<'_>,
    view: &View,
    trees: &mut Trees,
    room: RoomSid,
    head: &HeadRow,
) -> Result<(), AuditError> {
    let mut rest: Vec<_> = head.root.into_iter().collect();
    while let Some(id) = rest.pop() {
        // What is missing was reported when the trees were walked.
        let Some(node) = trees.node(view, id).await? else {
            continue;
        };
        match &*node {
            NodeRow::Branch(children) => rest.extend(children.iter().flatten()),
            NodeRow::Leaf(entries) => check_leaf(audit, view, room, entries).await?,
        }
    }
    Ok(())
}

async fn check_leaf(
    audit: &mut Audit<'_>,
    view: &View,
    room: RoomSid,
    entries: &[(StateKeySid, EventSid)],
) -> Result<(), AuditError> {
    let (keys, events): (Vec<_>, Vec<_>) = entries.iter().copied().unzip();
    let names = Audit::read_many(view, &STATE_KEYS, &keys).await?;
    let rows = Audit::read_many(view, &EVENTS, &events).await?;
    let mut wanted = Vec::with_capacity(entries.len());
    for (((key, event), name), row) in entries.iter().zip(names).zip(rows) {
        if row.is_none() {
            audit.damaged(
                &EVENTS,
                event,
                format!("no event, though it is in the state of {room:?}"),
            );
        }
        match name {
            Some((kind, state_key)) => wanted.push(((room, kind, state_key), *event)),
            None => audit.damaged(
                &STATE_KEYS,
                key,
                format!("no name, though {room:?} has such state"),
            ),
        }
    }
    audit.rows_are(view, &CURRENT_STATE, wanted).await
}

/// Each row is an entry of the tree.
async fn by_name(audit: &mut Audit<'_>, trees: &mut Trees) -> Result<(), AuditError> {
    let view = audit.view();
    let mut head: Option<(RoomSid, Option<HeadRow>)> = None;
    let mut rows = Pages::new(&CURRENT_STATE, PAGE);
    while let Some(page) = rows.next(&view, audit).await? {
        let names: Vec<_> = page
            .iter()
            .map(|((_, kind, key), _)| (kind.clone(), key.clone()))
            .collect();
        let keys = Audit::read_many(&view, &STATE_KEY_SIDS, &names).await?;
        for ((row, event), key) in page.into_iter().zip(keys) {
            let room = row.0;
            if head.as_ref().is_none_or(|(of, _)| *of != room) {
                let read = Audit::read(&view, &ROOM_HEADS, &room).await?;
                if read.is_none() {
                    audit.damaged(&ROOM_HEADS, &room, "no head, though the room has a state");
                }
                head = Some((room, read));
            }
            // Without a head nobody knows what the state is.
            let Some((_, Some(head))) = &head else {
                continue;
            };
            if !trees.is_whole(room) {
                continue;
            }
            let found = match key {
                Some(key) => trees.find(&view, head.root, key).await?,
                None => Found::Event(None),
            };
            // Another event than the tree's was reported from the tree's side.
            if found == Found::Event(None) {
                audit.row_is(&CURRENT_STATE, &row, Some(&event), None);
            }
        }
    }
    Ok(())
}
