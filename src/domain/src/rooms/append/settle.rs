//! What happens in memory when an event's batch is visible, or has failed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use vatra_store::Batch;

use super::{
    super::{Event, Inner},
    PendingMembership,
};
use crate::schema::{NodeId, RoomSid, UserSid};

pub(super) struct Settle {
    pub(super) inner: Arc<Inner>,
    pub(super) event: Arc<Event>,
    pub(super) redacted: Option<Arc<Event>>,
    pub(super) nodes: Vec<NodeId>,
    pub(super) members: Vec<((UserSid, RoomSid), PendingMembership)>,
    pub(super) poison: Arc<AtomicBool>,
}

impl Settle {
    pub(super) fn attach(self, batch: &mut Batch) {
        let done = Arc::new(self);
        let failed = Arc::clone(&done);
        batch.then(move |position| {
            done.settled();
            done.inner.events.visible(Arc::new(done.event.at(position)));
            if let Some(redacted) = &done.redacted {
                done.inner.events.visible(Arc::clone(redacted));
            }
        });
        batch.on_failure(move || {
            failed.poison.store(true, Ordering::Release);
            failed.settled();
            failed.inner.events.failed(failed.event.sid);
        });
    }

    fn settled(&self) {
        self.inner.trees.settled(&self.nodes);
        for (key, row) in &self.members {
            self.inner.memberships.remove_if(key, |_, newest| {
                Arc::ptr_eq(&newest.position, &row.position)
            });
        }
    }
}
