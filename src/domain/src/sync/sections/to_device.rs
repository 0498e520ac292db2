//! What is a device's own: messages to it, and what is left of its one-time and fallback keys.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync>

use std::collections::BTreeMap;

use vatra_store::Position;

use super::{
    super::{SyncError, response::Events},
    Providers,
};
use crate::rooms::{Reader, visible::Viewer};

/// How many messages to a device an answer has at most.
pub(in crate::sync) const MESSAGES: usize = 100;
/// Always counted: clients take an algorithm that is not listed for one of which they know nothing.
const ALWAYS_COUNTED: &str = "signed_curve25519";

/// Messages to a device, and where to read on.
#[derive(Debug)]
pub(in crate::sync) struct ToDevice {
    pub(in crate::sync) messages: Events,
    /// Everything up to here is in the messages or was before them.
    pub(in crate::sync) upto: Position,
}

/// What is left of a device's keys.
#[derive(Debug, Default)]
pub(in crate::sync) struct KeyCounts {
    /// How many one-time keys, by algorithm.
    pub(in crate::sync) one_time: BTreeMap<String, u64>,
    /// Algorithms whose fallback key was not handed out.
    pub(in crate::sync) unused_fallback: Vec<String>,
    /// That changed since.
    pub(in crate::sync) changed: bool,
}

impl Providers {
    /// The messages to the viewer's device after `after`, up to `upto` or as many as an answer takes.
    pub(in crate::sync) async fn to_device(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        after: Option<Position>,
        upto: Position,
        limit: usize,
    ) -> Result<ToDevice, SyncError> {
        let Some(device) = device(viewer) else {
            let messages = Events::default();
            return Ok(ToDevice { messages, upto });
        };
        let span = (after.unwrap_or(Position::ZERO), upto);
        let waiting = self
            .e2ee
            .waiting(reader.view(), viewer.sid, device, span, limit)
            .await?;
        Ok(ToDevice {
            messages: Events {
                events: waiting.events,
            },
            upto: waiting.upto,
        })
    }

    /// What the viewer's device has left of its keys.
    pub(in crate::sync) async fn key_counts(
        &self,
        reader: &Reader,
        viewer: &Viewer,
        since: Option<Position>,
    ) -> Result<KeyCounts, SyncError> {
        let Some(device) = device(viewer) else {
            return Ok(KeyCounts::default());
        };
        let state = self
            .e2ee
            .key_state(reader.view(), viewer.sid, device)
            .await?;
        let mut one_time = BTreeMap::from([(ALWAYS_COUNTED.to_owned(), 0)]);
        one_time.extend(state.one_time.iter().cloned());
        Ok(KeyCounts {
            one_time,
            unused_fallback: state.unused_fallback.clone(),
            changed: since.is_some_and(|since| state.changed > since),
        })
    }
}

fn device(viewer: &Viewer) -> Option<&str> {
    viewer.device.as_ref().map(|device| device.as_str())
}
