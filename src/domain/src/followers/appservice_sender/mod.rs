//! Tells application services what happens in their rooms and to their users.
//!
//! Each service has a task and a cursor of its own, and reads the log itself: one that is down holds up nobody, and what it has missed is
//! the log after its cursor. Nothing is written for a service when something is said.
//!
//! - `members`: which of a service's users are in which room, position by position; kept in step with the cursor
//! - `interest`: whether an event is for a service
//! - `passing`: typing, receipts and presence, for services that want to hear of them
//! - `transaction`: what is sent, fixed and stored before the first attempt, the same until it is taken
//!
//! An item of the log is looked at in one step with what comes of it: the batch that moves the cursor over an event of interest
//! holds the transaction with it. While a transaction waits, the cursor stands.
//! <https://spec.matrix.org/v1.19/application-service-api/#pushing-events>

mod interest;
mod members;
mod passing;
#[cfg(test)]
mod tests;
mod transaction;

use std::{ops::Bound, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vatra_store::{Batch, Direction, Position, Range};

use self::{interest::Interest, members::Book, passing::Passing};
use super::{FollowError, Status};
use crate::{
    appservice::{Service, Services, line::Asking},
    clock::{Millis, SharedClock},
    random::SharedRandom,
    rooms::{Reader, Rooms, ephemeral::Ephemeral},
    schema::{self, EventSid, FollowerRow, RoomSid, ServiceRow, ServiceTransactionRow},
};

/// Its name among the followers, before the service's.
pub const NAME: &str = "appservice_sender";
/// The most events of a transaction.
const MAX_EVENTS: usize = 100;
/// How many rows of the log are read at a time.
const PAGE: usize = 200;
/// How far a cursor in memory may be ahead of the stored one, in positions: so much is looked at again after a restart.
const UNSTORED: u64 = 1_000;
/// How often a wait is looked at.
const TICK: Duration = Duration::from_millis(200);
/// The wait after a failure of this server's own.
const OWN_FAILURE: Duration = Duration::from_secs(5);

/// What the sender is made of.
pub struct Parts {
    /// The rooms.
    pub rooms: Rooms,
    /// What passes.
    pub ephemeral: Ephemeral,
    /// The registered services.
    pub services: Services,
    /// How they are reached.
    pub asking: Asking,
    /// The time.
    pub clock: SharedClock,
    /// For waits that are not all alike.
    pub random: SharedRandom,
}

/// Tells services. Cheap to clone.
#[derive(Clone)]
pub struct AppserviceSender {
    parts: Arc<Parts>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There may be more to do.
    More,
    /// Everything was read.
    Idle,
    /// The service did not take its transaction: not before this time again.
    Wait(Millis),
}

impl AppserviceSender {
    /// A sender that tells nobody anything yet.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
        }
    }

    /// Forgets how far services were told that are registered no more, or want to hear nothing: when they come back, they begin anew.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_others(&self) -> Result<(), FollowError> {
        let store = self.parts.rooms.store();
        let view = store.view();
        let rows = view
            .range(
                &schema::SERVICES,
                Range::all(),
                Direction::Forward,
                usize::MAX,
            )
            .await?;
        let told = |id: &String| {
            let mut all = self.parts.services.all().iter();
            all.any(|service| service.id == *id && service.url.is_some())
        };
        for (id, _) in rows.into_iter().filter(|(id, _)| !told(id)) {
            let mut batch = Batch::new();
            batch.delete_range(&schema::SERVICE_MEMBERS, Range::prefix(&(id.clone(),)));
            batch.delete(&schema::SERVICE_TRANSACTIONS, &id);
            batch.delete(&schema::SERVICES, &id);
            store.write(batch).await?;
            info!(
                service = id,
                "an application service that is registered no more is forgotten"
            );
        }
        Ok(())
    }

    /// Tells one service everything that is of interest to it, until the shutdown. It must have a URL.
    pub async fn run(
        self,
        service: Arc<Service>,
        status: Arc<Status>,
        shutdown: CancellationToken,
    ) {
        let mut telling = Telling {
            parts: self.parts,
            service,
            status,
            begun: None,
            passing: Arc::default(),
        };
        let (parts, service) = (telling.parts.clone(), telling.service.clone());
        let status = telling.status.clone();
        let passing = telling.passing.clone();
        let gathering = async {
            if service.receive_ephemeral {
                passing::gather(&parts, &service, &status, &passing).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = gathering => {}
            () = telling.run(&shutdown) => {}
        }
    }
}

/// One service's task.
struct Telling {
    parts: Arc<Parts>,
    service: Arc<Service>,
    status: Arc<Status>,
    begun: Option<Begun>,
    passing: Arc<Passing>,
}

impl Telling {
    async fn run(&mut self, shutdown: &CancellationToken) {
        let mut watermark = self.parts.rooms.store().subscribe_watermark();
        loop {
            // Seen before the log is read: what comes later wakes.
            watermark.borrow_and_update();
            let step = tokio::select! {
                () = shutdown.cancelled() => return,
                step = self.step() => step,
            };
            let pause = async {
                match step {
                    Ok(Step::More) => {}
                    // An error means that the store is gone: then the shutdown comes.
                    Ok(Step::Idle) => {
                        tokio::select! {
                            _ = watermark.changed() => {}
                            () = self.passing.news.notified() => {}
                        }
                    }
                    Ok(Step::Wait(until)) => self.until(until).await,
                    Err(error) => {
                        let service = &self.service.id;
                        warn!(service, %error, "what an application service is to be told cannot be read or written");
                        self.status.note(Some(error.to_string()));
                        tokio::time::sleep(OWN_FAILURE).await;
                    }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = pause => {}
            }
        }
    }
}

/// What the store has of the service.
struct Begun {
    row: ServiceRow,
    /// Up to here the log was read; maybe more than is stored.
    read: Position,
    waiting: Option<ServiceTransactionRow>,
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
struct Item {
    at: Position,
    room: RoomSid,
    event: EventSid,
    /// This server is not in the room.
    outside: bool,
}

impl Telling {
    async fn step(&mut self) -> Result<Step, FollowError> {
        let Some(begun) = &mut self.begun else {
            let begun = begin(&self.parts, &self.service).await?;
            let retry_at = begun.row.retry_at;
            let waits = begun.waiting.is_some() && retry_at > self.parts.clock.now();
            self.status.note(begun.row.error.clone());
            self.begun = Some(begun);
            return Ok(if waits {
                Step::Wait(retry_at)
            } else {
                Step::More
            });
        };
        if begun.waiting.is_some() {
            let failed_before = begun.row.failures > 0;
            let step = transaction::attempt(&self.parts, &self.service, begun).await?;
            if failed_before || begun.row.failures > 0 {
                // Who typed then is no news.
                self.passing.forget();
            }
            self.status.note(begun.row.error.clone());
            return Ok(step);
        }
        let reader = self.parts.rooms.reader();
        let step = gather(&self.parts, (&self.service, &self.passing), &reader, begun).await?;
        self.status.moved(&FollowerRow {
            cursor: begun.read,
            set_aside: begun.row.set_aside,
        });
        Ok(step)
    }

    async fn until(&self, until: Millis) {
        while self.parts.clock.now() < until {
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Reads how far the service is. A new one hears of what happens from now on.
async fn begin(parts: &Parts, service: &Service) -> Result<Begun, FollowError> {
    let store = parts.rooms.store();
    let view = store.view();
    let known = view.get(&schema::SERVICES, &service.id).await?;
    let row = match known {
        Some(row) if row.fingerprint == *service.fingerprint() => row,
        known => {
            // What happens while the members are read is read once more: each change says who is there, not how many.
            let mut row = known.unwrap_or_else(|| ServiceRow {
                cursor: view.watermark(),
                ..ServiceRow::default()
            });
            row.fingerprint = *service.fingerprint();
            members::write_all(&parts.rooms, service).await?;
            let mut batch = Batch::new();
            batch.put(&schema::SERVICES, &service.id, &row);
            store.write(batch).await?;
            row
        }
    };
    let waiting = view.get(&schema::SERVICE_TRANSACTIONS, &service.id).await?;
    Ok(Begun {
        read: row.cursor,
        row,
        waiting,
    })
}

/// Reads on in the log, and makes a transaction of what is of interest.
async fn gather(
    parts: &Parts,
    (service, passing): (&Service, &Passing),
    reader: &Reader,
    begun: &mut Begun,
) -> Result<Step, FollowError> {
    let page = page(reader, begun.read).await?;
    let Some(end) = page.last().map(|item| item.at) else {
        begun.read = reader.watermark();
        return only_passing(parts, (service, passing), begun).await;
    };
    let mut interest = Interest::new(service, reader, Book::open(service, reader));
    let (mut events, mut failed) = (Vec::new(), Vec::new());
    let mut read = end;
    for item in page {
        match interest.takes(item).await {
            Ok(true) => events.push(item.event),
            Ok(false) => {}
            Err(error) if error.passes() => return Err(error),
            Err(error) => failed.push((item.at, error)),
        }
        if events.len() >= MAX_EVENTS {
            read = item.at;
            break;
        }
    }
    let mut batch = Batch::new();
    interest.close(&mut batch);
    let mut set_aside = begun.row.set_aside;
    for (at, error) in failed {
        set_aside = set_aside.saturating_add(1);
        error!(service = service.id, position = at.0, %error, "an item of the log is set aside");
        let key = (format!("{NAME}:{}", service.id), at);
        batch.put(&schema::SET_ASIDE, &key, &error.to_string());
    }
    let waiting = (!events.is_empty()).then(|| transaction::fixed(parts, events, passing.take()));
    let waiting = waiting.transpose()?;
    if let Some(waiting) = &waiting {
        batch.put(&schema::SERVICE_TRANSACTIONS, &service.id, waiting);
    }
    let unstored = read.0.saturating_sub(begun.row.cursor.0);
    if !batch.is_empty() || unstored > UNSTORED {
        let row = ServiceRow {
            cursor: read,
            set_aside,
            ..begun.row.clone()
        };
        batch.put(&schema::SERVICES, &service.id, &row);
        parts.rooms.store().write(batch).await?;
        begun.row = row;
    }
    begun.read = read;
    begun.waiting = waiting;
    Ok(Step::More)
}

/// Makes a transaction of what passes, if there is any.
async fn only_passing(
    parts: &Parts,
    (service, passing): (&Service, &Passing),
    begun: &mut Begun,
) -> Result<Step, FollowError> {
    let units = passing.take();
    if units.is_empty() {
        return Ok(Step::Idle);
    }
    let waiting = transaction::fixed(parts, Vec::new(), units)?;
    let mut batch = Batch::new();
    batch.put(&schema::SERVICE_TRANSACTIONS, &service.id, &waiting);
    parts.rooms.store().write(batch).await?;
    begun.waiting = Some(waiting);
    Ok(Step::More)
}

/// What happened after a position, in order.
async fn page(reader: &Reader, after: Position) -> Result<Vec<Item>, FollowError> {
    let view = reader.view();
    let range = || {
        let upto = view.watermark();
        Range::between(Bound::Excluded(&after), Bound::Included(&upto))
    };
    let log = view
        .range(&schema::LOG, range(), Direction::Forward, PAGE)
        .await?;
    let outside = view
        .range(&schema::OUTSIDE_LOG, range(), Direction::Forward, PAGE)
        .await?;
    // Behind the end of a full page there is more, which must not be passed over.
    let full = |length: usize, last: Option<Position>| last.filter(|_| length == PAGE);
    let ends = [
        full(log.len(), log.last().map(|(at, _)| *at)),
        full(outside.len(), outside.last().map(|(at, _)| *at)),
    ];
    let end = ends.into_iter().flatten().min();
    let log = log.into_iter().map(|(at, row)| Item {
        at,
        room: row.room,
        event: row.event,
        outside: false,
    });
    let outside = outside.into_iter().map(|(at, row)| Item {
        at,
        room: row.room,
        event: row.event,
        outside: true,
    });
    let mut items: Vec<_> = log.chain(outside).collect();
    items.retain(|item| end.is_none_or(|end| item.at <= end));
    items.sort_by_key(|item| item.at);
    Ok(items)
}
