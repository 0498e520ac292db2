//! Transactions of other servers: each is taken once, whatever is repeated, and its rooms do not wait for each other.
//! <https://spec.matrix.org/v1.19/server-server-api/#transactions>

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use dashmap::DashMap;
use futures::{StreamExt, stream};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName,
    api::federation::transactions::edu::Edu, serde::Raw,
};
use serde::Deserialize;
use serde_json::value::RawValue as RawJsonValue;
use tokio::sync::Mutex;
use tracing::debug;
use vatra_store::{Batch, CommitError, Range, Store, StoreError};

use super::edus::Edus;
use crate::{clock::SharedClock, schema};

/// The most events and ephemeral units of a transaction.
pub const MAX_EVENTS: usize = 50;
/// See [`MAX_EVENTS`].
pub const MAX_EDUS: usize = 100;
/// The longest transaction id, in bytes.
const MAX_ID: usize = 255;
/// How many transactions of one server may wait for the one that is being taken.
const MAX_WAITING: usize = 8;
/// How many rooms of a transaction are dealt with side by side.
const SIDE_BY_SIDE: usize = 8;
/// A transaction is known for one to two of these, in milliseconds.
const REMEMBERED_MS: u64 = 24 * 3_600_000;

/// What became of an event: its id if it could be made out, and why it was not taken.
pub type Received = (Option<OwnedEventId>, Result<(), String>);

/// Takes the events of a room that a server tells of, in their order. Errors are results of single events.
#[async_trait]
pub trait Receive: Send + Sync + 'static {
    /// Takes events.
    async fn receive(
        &self,
        origin: &ServerName,
        room: &RoomId,
        events: Vec<Box<RawJsonValue>>,
    ) -> Vec<Received>;
}

/// Why a transaction is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// It is larger than a transaction may be, or says that it comes from someone else.
    #[error("{0}")]
    Refused(&'static str),
    /// The server sends faster than its transactions can be taken.
    #[error("too many transactions at a time")]
    TooMany,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take that it was taken: it will come again.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A transaction as it came.
#[derive(Debug)]
pub struct Transaction {
    /// Who sends it, proven.
    pub origin: OwnedServerName,
    /// Who it says has sent it.
    pub said_origin: OwnedServerName,
    /// Its id.
    pub id: String,
    /// Events.
    pub events: Vec<Box<RawJsonValue>>,
    /// What passes.
    pub edus: Vec<Raw<Edu>>,
}

/// What became of the events whose ids could be made out.
pub type Results = BTreeMap<OwnedEventId, Result<(), String>>;

/// Takes transactions. Cheap to clone.
#[derive(Clone)]
pub struct Transactions {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: SharedClock,
    edus: Edus,
    receive: Arc<dyn Receive>,
    /// One transaction of a server at a time, in the order in which they came.
    turns: DashMap<OwnedServerName, Arc<Turn>>,
}

#[derive(Default)]
struct Turn {
    waiting: AtomicUsize,
    mine: Mutex<()>,
}

impl Transactions {
    /// With `receive` for the events.
    pub fn new(store: Store, clock: SharedClock, edus: Edus, receive: Arc<dyn Receive>) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                clock,
                edus,
                receive,
                turns: DashMap::new(),
            }),
        }
    }

    /// Takes a transaction; one that was taken before is answered as it was then.
    ///
    /// # Errors
    /// A transaction that ends in an error may be sent again under the same id.
    pub async fn take(&self, transaction: Transaction) -> Result<Results, TransactionError> {
        let refused = |reason| Err(TransactionError::Refused(reason));
        if transaction.origin != transaction.said_origin {
            return refused("the transaction says that it comes from another server");
        }
        if transaction.events.len() > MAX_EVENTS || transaction.edus.len() > MAX_EDUS {
            return refused("a transaction has at most 50 events and 100 ephemeral units");
        }
        if transaction.id.len() > MAX_ID {
            return refused("the transaction id is too long");
        }
        let place = Place::of(&self.inner.turns, &transaction.origin);
        if place.before > MAX_WAITING {
            return Err(TransactionError::TooMany);
        }
        let _mine = place.turn.mine.lock().await;
        self.take_in_turn(transaction).await
    }

    async fn take_in_turn(&self, transaction: Transaction) -> Result<Results, TransactionError> {
        let inner = &*self.inner;
        let day = inner.clock.now() / REMEMBERED_MS;
        let key = |day| (day, transaction.origin.to_string(), transaction.id.clone());
        let known = inner
            .store
            .view()
            .get_many(
                &schema::IN_TRANSACTIONS,
                &[key(day), key(day.saturating_sub(1))],
            )
            .await?;
        if let Some(answer) = known.into_iter().flatten().next() {
            return Ok(answer.into_iter().filter_map(read_back).collect());
        }
        let key = key(day);
        inner
            .edus
            .take(&transaction.origin, &transaction.edus)
            .await;
        let results = self.events(&transaction.origin, transaction.events).await;
        let answer: Vec<(String, Option<String>)> = results
            .iter()
            .map(|(id, result)| (id.to_string(), result.clone().err()))
            .collect();
        let mut batch = Batch::new();
        let forgotten = (day.saturating_sub(1), String::new(), String::new());
        batch.delete_range(&schema::IN_TRANSACTIONS, Range::all().before(&forgotten));
        batch.put(&schema::IN_TRANSACTIONS, &key, &answer);
        inner.store.write(batch).await?;
        Ok(results)
    }

    /// Hands the events over, room by room.
    async fn events(&self, origin: &OwnedServerName, events: Vec<Box<RawJsonValue>>) -> Results {
        #[derive(Deserialize)]
        struct Where {
            room_id: OwnedRoomId,
        }
        let mut rooms: BTreeMap<OwnedRoomId, Vec<Box<RawJsonValue>>> = BTreeMap::new();
        for event in events {
            match serde_json::from_str::<Where>(event.get()) {
                Ok(Where { room_id }) => rooms.entry(room_id).or_default().push(event),
                Err(error) => debug!(%origin, %error, "an event of no room is dropped"),
            }
        }
        let receiving = rooms.into_iter().map(|(room, events)| {
            let (receive, origin) = (self.inner.receive.clone(), origin.clone());
            async move { receive.receive(&origin, &room, events).await }
        });
        let received = stream::iter(receiving).buffer_unordered(SIDE_BY_SIDE);
        let received: Vec<Vec<Received>> = received.collect().await;
        let named = received.into_iter().flatten();
        named
            .filter_map(|(id, result)| Some((id?, result)))
            .collect()
    }
}

/// A place in the queue of a server's transactions; whoever goes away, also in the middle, leaves nothing behind.
struct Place<'a> {
    turns: &'a DashMap<OwnedServerName, Arc<Turn>>,
    origin: OwnedServerName,
    turn: Arc<Turn>,
    /// How many were there before.
    before: usize,
}

impl<'a> Place<'a> {
    fn of(turns: &'a DashMap<OwnedServerName, Arc<Turn>>, origin: &OwnedServerName) -> Self {
        let turn = turns.entry(origin.clone()).or_default().clone();
        Self {
            before: turn.waiting.fetch_add(1, Ordering::AcqRel),
            origin: origin.clone(),
            turns,
            turn,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turn.waiting.fetch_sub(1, Ordering::AcqRel);
        // Two holders: the map and this place. Whoever waits holds a third.
        self.turns
            .remove_if(&self.origin, |_, held| Arc::strong_count(held) <= 2);
    }
}

fn read_back((id, error): (String, Option<String>)) -> Option<(OwnedEventId, Result<(), String>)> {
    let id = OwnedEventId::try_from(id).ok()?;
    Some((id, error.map_or(Ok(()), Err)))
}
