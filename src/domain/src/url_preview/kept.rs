//! What was found, kept in memory for a while; and what is being looked for, once however many wait.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use quick_cache::{Weighter, sync::Cache};
use url::Url;

use super::{Preview, PreviewError};
use crate::clock::{Millis, SharedClock};

/// How much memory the kept previews take, in bytes.
const MAX_BYTES: u64 = 8 << 20;
/// How many that are of usual size.
const USUAL: usize = 8_000;
/// For how long it is kept that there is no preview, in milliseconds.
const KEEP_FAILURE_MS: Millis = 60_000;

type Outcome = Result<Preview, PreviewError>;
type Flight = Shared<BoxFuture<'static, Outcome>>;
type Flights = Arc<Mutex<HashMap<Url, Flight>>>;

/// An outcome, and until when it holds.
type Until = (Outcome, Millis);

pub(super) struct Kept {
    clock: SharedClock,
    keep_ms: Millis,
    cache: Arc<Cache<Url, Until, Weight>>,
    flights: Flights,
}

impl Kept {
    pub(super) fn new(clock: SharedClock, keep_ms: Millis) -> Self {
        Self {
            clock,
            keep_ms,
            cache: Arc::new(Cache::with_weighter(USUAL, MAX_BYTES, Weight)),
            flights: Flights::default(),
        }
    }

    /// What is kept of a URL; else what `make` finds, whoever asks first.
    pub(super) async fn get<F>(&self, url: Url, make: impl FnOnce(Url) -> F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let now = self.clock.now();
        if let Some((outcome, _)) = self.cache.get(&url).filter(|(_, until)| now < *until) {
            return outcome;
        }
        let flight = {
            let mut flights = lock(&self.flights);
            match flights.get(&url) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.begin(url.clone(), make(url.clone()));
                    flights.insert(url, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    /// A task of its own: it goes on when the asker goes away, since the next one will want to know.
    fn begin(&self, url: Url, work: impl Future<Output = Outcome> + Send + 'static) -> Flight {
        let landing = Landing {
            flights: self.flights.clone(),
            url,
        };
        let (cache, clock, keep_ms) = (self.cache.clone(), self.clock.clone(), self.keep_ms);
        let task = tokio::spawn(async move {
            let outcome = work.await;
            let keep_ms = match &outcome {
                Ok(_) => keep_ms,
                Err(error) if error.is_ours() => 0,
                Err(_) => KEEP_FAILURE_MS.min(keep_ms),
            };
            let until = clock.now().saturating_add(keep_ms);
            cache.insert(landing.url.clone(), (outcome.clone(), until));
            outcome
        });
        let failed = PreviewError::Unreadable("it cannot be looked at");
        let flight = task.map(|done| done.unwrap_or(Err(failed)));
        flight.boxed().shared()
    }
}

fn lock(flights: &Flights) -> MutexGuard<'_, HashMap<Url, Flight>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a flight off the list when it ends, however it ends.
struct Landing {
    flights: Flights,
    url: Url,
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.flights).remove(&self.url);
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Url, Until> for Weight {
    fn weight(&self, url: &Url, (outcome, _): &Until) -> u64 {
        let json = outcome.as_ref().map_or(0, |preview| preview.get().len());
        let bytes = url.as_str().len().saturating_add(json);
        200_u64.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}
