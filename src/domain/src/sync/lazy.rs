//! Which members a device has been sent, so that a client that loads members lazily is not sent them with every message.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members>. In memory and bounded: what is forgotten is sent once more.
//! A member event counts as known only when the client comes back with the token of the answer that had it: an answer
//! may be lost, and its request repeated. Each filter of a device has a memory of its own, since a client may have several
//! polls under way.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quick_cache::{Weighter, sync::Cache};
use ruma::api::client::filter::FilterDefinition;
use vatra_store::Position;

use crate::{
    rooms::visible::Viewer,
    schema::{EventSid, UserSid},
};

/// How many members are remembered of a device and filter; then it starts afresh.
const PER_DEVICE: usize = 10_000;

/// A user's device, and a hash of the filter it polls with.
type Device = (UserSid, String, u64);

/// What devices have been sent.
pub(super) struct Lazy {
    devices: Cache<Device, Arc<Sent>, Weight>,
}

/// What a device has been sent.
#[derive(Default)]
struct Sent {
    /// The token that the device has last come with.
    at: Option<Position>,
    /// The member events that it had been sent by then.
    known: Arc<HashSet<EventSid>>,
    /// The token of the newest answer, and the member events in it.
    pending: Option<(Position, Vec<EventSid>)>,
}

impl Lazy {
    /// A memory of at most `bytes` for all devices.
    pub(super) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / 256).unwrap_or(usize::MAX).max(64);
        Self {
            devices: Cache::with_weighter(items, bytes, Weight),
        }
    }

    /// A request begins: `since` says what the device has received. Costs next to nothing unless the filter asks for lazy loading.
    pub(super) fn begin(
        &self,
        viewer: &Viewer,
        filter: &FilterDefinition,
        since: Option<Position>,
    ) -> Round {
        let lazy = !filter.room.state.lazy_load_options.is_disabled();
        let device = viewer.device.as_ref().filter(|_| lazy);
        let device = device.map(|device| (viewer.sid, device.to_string(), hash(filter)));
        let sent = device.as_ref().and_then(|device| self.devices.get(device));
        let known = match (sent, since) {
            (Some(sent), Some(since)) => sent.known_at(since),
            _ => Arc::default(),
        };
        Round {
            device,
            since,
            known,
            sent: Mutex::default(),
        }
    }

    /// An answer goes out, with the token `upto`.
    pub(super) fn end(&self, round: &Round, upto: Position) {
        let Some(device) = &round.device else { return };
        let sent = std::mem::take(&mut *round.lock());
        let row = Sent {
            at: round.since,
            known: Arc::clone(&round.known),
            pending: Some((upto, sent)),
        };
        self.devices.insert(device.clone(), Arc::new(row));
    }
}

fn hash(filter: &FilterDefinition) -> u64 {
    let mut hasher = DefaultHasher::new();
    // A filter that cannot be written shares a memory with others that cannot.
    serde_json::to_string(filter)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

impl Sent {
    /// What the device knows, now that it comes with a token.
    fn known_at(&self, since: Position) -> Arc<HashSet<EventSid>> {
        match &self.pending {
            Some((upto, sent)) if *upto == since => {
                if sent.is_empty() {
                    return Arc::clone(&self.known);
                }
                if self.known.len() + sent.len() > PER_DEVICE {
                    return Arc::new(sent.iter().copied().collect());
                }
                let mut known = HashSet::clone(&self.known);
                known.extend(sent);
                Arc::new(known)
            }
            // The answer was lost: it knows what it knew.
            _ if self.at == Some(since) => Arc::clone(&self.known),
            // An older token, or one of another request: nobody knows what it has.
            _ => Arc::default(),
        }
    }
}

/// One request of a device.
#[derive(Debug)]
pub(super) struct Round {
    device: Option<Device>,
    since: Option<Position>,
    known: Arc<HashSet<EventSid>>,
    sent: Mutex<Vec<EventSid>>,
}

impl Round {
    /// Whether the device has this member event.
    pub(super) fn knows(&self, event: EventSid) -> bool {
        self.known.contains(&event)
    }

    /// The answer has these member events.
    pub(super) fn sends(&self, events: impl Iterator<Item = EventSid>) {
        let mut sent = self.lock();
        let free = PER_DEVICE.saturating_sub(sent.len());
        sent.extend(
            events
                .filter(|event| !self.known.contains(event))
                .take(free),
        );
    }

    /// The answer is made again.
    pub(super) fn again(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<EventSid>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Device, Arc<Sent>> for Weight {
    fn weight(&self, _: &Device, sent: &Arc<Sent>) -> u64 {
        let pending = sent.pending.as_ref().map_or(0, |(_, sent)| sent.len());
        let events = sent.known.len().saturating_add(pending);
        256 + 16 * u64::try_from(events).unwrap_or(u64::MAX / 32)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const A: EventSid = EventSid(1);
    const B: EventSid = EventSid(2);

    fn viewer(device: &str) -> Viewer {
        Viewer {
            user: ruma::owned_user_id!("@a:test"),
            sid: UserSid(1),
            device: Some(device.into()),
        }
    }

    fn lazily() -> FilterDefinition {
        serde_json::from_str(r#"{"room":{"state":{"lazy_load_members":true}}}"#).unwrap()
    }

    /// One request and its answer; gives which of the two events the device was known to have.
    fn round(lazy: &Lazy, since: Option<u64>, upto: u64, sends: &[EventSid]) -> [bool; 2] {
        let round = lazy.begin(&viewer("D"), &lazily(), since.map(Position));
        let knew = [round.knows(A), round.knows(B)];
        round.sends(sends.iter().copied());
        lazy.end(&round, Position(upto));
        knew
    }

    #[test]
    fn what_was_received_is_known() {
        let lazy = Lazy::new(16 << 20);
        assert_eq!(round(&lazy, None, 5, &[A]), [false, false]);
        assert_eq!(round(&lazy, Some(5), 6, &[B]), [true, false]);
        assert_eq!(round(&lazy, Some(6), 7, &[]), [true, true]);
        assert_eq!(round(&lazy, Some(7), 7, &[]), [true, true]);
        let other = lazy.begin(&viewer("E"), &lazily(), Some(Position(7)));
        assert!(!other.knows(A), "another device was sent nothing");
        let mut filter = lazily();
        filter.room.include_leave = true;
        let other = lazy.begin(&viewer("D"), &filter, Some(Position(7)));
        assert!(!other.knows(A), "nor was it with another filter");
    }

    #[test]
    fn an_answer_that_was_lost_counts_for_nothing() {
        let lazy = Lazy::new(16 << 20);
        round(&lazy, None, 5, &[A]);
        round(&lazy, Some(5), 6, &[B]);
        assert_eq!(round(&lazy, Some(5), 8, &[]), [true, false], "6 never came");
        assert_eq!(round(&lazy, Some(8), 9, &[]), [true, false]);
    }

    #[test]
    fn a_client_that_begins_anew_or_goes_back_knows_nothing() {
        let lazy = Lazy::new(16 << 20);
        round(&lazy, None, 5, &[A]);
        round(&lazy, Some(5), 6, &[B]);
        round(&lazy, Some(6), 7, &[]);
        assert_eq!(round(&lazy, Some(5), 7, &[]), [false, false]);
        round(&lazy, None, 8, &[A]);
        assert_eq!(round(&lazy, None, 8, &[]), [false, false]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let lazy = Lazy::new(16 << 20);
        let many: Vec<EventSid> = (0..30_000).map(EventSid).collect();
        let mut since = None;
        for upto in 1..20 {
            round(&lazy, since, upto, &many);
            since = Some(upto);
        }
        let device = (UserSid(1), "D".to_owned(), hash(&lazily()));
        let sent = lazy.devices.get(&device).unwrap();
        assert!(sent.known.len() <= PER_DEVICE);
    }
}
