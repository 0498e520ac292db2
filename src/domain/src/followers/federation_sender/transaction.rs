//! What is sent to one server: fixed and stored before the first attempt, the same until it is taken.
//! <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid>

use std::time::Duration;

use ruma::{
    OwnedTransactionId, ServerName,
    api::federation::transactions::{edu::Edu, send_transaction_message::v1 as send},
    serde::Raw,
};
use serde_json::value::RawValue as RawJsonValue;
use tracing::{debug, warn};
use vatra_store::Batch;

use super::{
    super::FollowError,
    choice::{Chosen, choose, kept_units},
    destinations::Pending,
    passing::Gathered,
};
use crate::{
    clock::{Millis, SharedClock, to_ruma},
    remote::{Bounds, Remote, RemoteError},
    rooms::Rooms,
    schema::{self, DestinationRow, OutTransactionRow, Status},
};

/// The most events of a transaction.
pub(super) const MAX_EVENTS: usize = 50;
/// The most ephemeral units, and the most bytes of them.
pub(super) const MAX_EDUS: usize = 100;
pub(super) const MAX_EDU_BYTES: usize = 60 << 10;
/// The answers that speak of what a transaction holds.
const BAD_CONTENT: [u16; 3] = [400, 413, 422];
/// How often a server may refuse what a transaction holds before it is set aside.
const MAX_REFUSALS: u32 = 5;
/// Whoever was away for longer than this, in milliseconds, and has missed more than a transaction, is told the newest event of each
/// room, and asks for the rest.
pub(super) const LONG_AWAY_MS: Millis = 3_600_000;

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// A transaction was taken; there may be more.
    Delivered,
    /// There is nothing to be told.
    Nothing,
    /// The server did not answer: not before this time again.
    Wait(Millis),
}

/// A turn and what it leaves.
pub(super) struct Outcome {
    pub(super) turn: Turn,
    /// What passes and has not found room.
    pub(super) leftover: Option<Gathered>,
    /// What is pending must be read from the store again.
    pub(super) reload: bool,
}

/// Makes and sends transactions.
pub(super) struct Maker {
    rooms: Rooms,
    remote: Remote,
    clock: SharedClock,
}

impl Maker {
    pub(super) fn new(rooms: Rooms, remote: Remote, clock: SharedClock) -> Self {
        Self {
            rooms,
            remote,
            clock,
        }
    }

    /// Sends the transaction that is stored, or makes one of what is pending and passing.
    pub(super) async fn turn(
        &self,
        server: &ServerName,
        pending: &mut Pending,
        passing: Gathered,
    ) -> Result<Outcome, FollowError> {
        let reader = self.rooms.reader();
        let view = reader.view();
        let name = server.to_string();
        let row = view
            .get(&schema::DESTINATIONS, &name)
            .await?
            .unwrap_or_default();
        if let Some(fixed) = view.get(&schema::OUT_TRANSACTIONS, &name).await? {
            let turn = self.attempt(server, row, fixed).await?;
            return Ok(Outcome {
                turn,
                leftover: Some(passing),
                // What it carried may be pending still in memory: it is judged again.
                reload: false,
            });
        }
        let chosen = choose(self.clock.now(), &reader, server, &row, pending).await?;
        let (kept, mut edus) = kept_units(view, &name).await?;
        let bytes: usize = edus.iter().map(String::len).sum();
        let room = MAX_EDU_BYTES.saturating_sub(bytes);
        let (more, leftover) = passing.split(MAX_EDUS.saturating_sub(edus.len()), room);
        edus.extend(more);
        if chosen.events.is_empty() && edus.is_empty() {
            if chosen.sent > row.sent || chosen.catch_up != row.catch_up {
                // Nothing of it is for the server: it is passed over.
                self.passed_over(&name, row, &chosen).await?;
            }
            for room in &chosen.done {
                pending.rooms.remove(room);
            }
            let turn = if chosen.reload || !pending.rooms.is_empty() {
                Turn::Delivered
            } else {
                Turn::Nothing
            };
            return Ok(Outcome {
                turn,
                leftover: None,
                reload: chosen.reload,
            });
        }
        let number = self.rooms.store().fresh_id()?;
        let fixed = OutTransactionRow {
            id: format!("{}.{number}", self.rooms.store().epoch()),
            made: self.clock.now(),
            events: chosen.events,
            edus,
            sent: chosen.sent,
            catch_up: chosen.catch_up,
            refusals: 0,
        };
        let mut batch = Batch::new();
        batch.put(&schema::OUT_TRANSACTIONS, &name, &fixed);
        for key in kept {
            batch.delete(&schema::EDU_OUTBOX, &key);
        }
        self.rooms.store().write(batch).await?;
        for room in &chosen.done {
            pending.rooms.remove(room);
        }
        let turn = self.attempt(server, row, fixed).await?;
        Ok(Outcome {
            turn,
            leftover: Some(leftover),
            reload: chosen.reload && turn == Turn::Delivered,
        })
    }

    async fn passed_over(
        &self,
        name: &String,
        row: DestinationRow,
        chosen: &Chosen,
    ) -> Result<(), FollowError> {
        let row = DestinationRow {
            sent: chosen.sent.max(row.sent),
            catch_up: chosen.catch_up,
            ..row
        };
        let mut batch = Batch::new();
        batch.put(&schema::DESTINATIONS, name, &row);
        self.rooms.store().write(batch).await?;
        Ok(())
    }

    async fn attempt(
        &self,
        server: &ServerName,
        row: DestinationRow,
        fixed: OutTransactionRow,
    ) -> Result<Turn, FollowError> {
        let started = self.clock.now();
        let request = self.request(&fixed).await?;
        let bounds = Bounds {
            timeout: Duration::from_secs(90),
            ..Bounds::default()
        };
        let answer = self.remote.call_within(server, request, bounds).await;
        let error = match answer {
            Ok(answer) => {
                // For the log only: an event that was not taken there is not sent again.
                for (event, result) in &answer.pdus {
                    if let Err(reason) = result {
                        debug!(%server, %event, reason, "an event was not taken");
                    }
                }
                None
            }
            // It was taken, if in strange words.
            Err(RemoteError::Unreadable(_)) => None,
            Err(RemoteError::BackingOff { retry_at }) => return Ok(Turn::Wait(retry_at)),
            Err(error) => Some(error),
        };
        let Some(error) = error else {
            let now = self.clock.now();
            // What was fixed before a long outage says nothing of what was missed in it.
            let after_outage = now.saturating_sub(fixed.made) > LONG_AWAY_MS;
            let success = if after_outage { row.success } else { now };
            return self
                .taken(
                    server,
                    DestinationRow {
                        success,
                        error: None,
                        ..taken(row, &fixed)
                    },
                )
                .await;
        };
        match error.refusal() {
            Some(refusal) if refusal.status.is_client_error() && refusal.status != 429 => {
                let reason = format!("it refuses a transaction: {refusal}");
                if BAD_CONTENT.contains(&refusal.status.as_u16()) {
                    return self.refused(server, row, fixed, reason, started).await;
                }
                // It does not know our key yet, or does not let us in: another transaction would fare no better.
                self.remote.failed(server, started, &reason).await;
                Ok(Turn::Wait(self.wait_of(server).await))
            }
            _ => {
                debug!(%server, %error, "a transaction was not taken");
                Ok(Turn::Wait(self.wait_of(server).await))
            }
        }
    }

    /// The server answers, but says no: it is tried again a few times, then the transaction is set aside.
    async fn refused(
        &self,
        server: &ServerName,
        row: DestinationRow,
        fixed: OutTransactionRow,
        reason: String,
        started: Millis,
    ) -> Result<Turn, FollowError> {
        let refusals = fixed.refusals.saturating_add(1);
        if refusals >= MAX_REFUSALS {
            warn!(%server, txn = fixed.id, reason, "a transaction is set aside");
            let given_up = DestinationRow {
                set_aside: row.set_aside.saturating_add(1),
                error: Some(reason),
                ..taken(row, &fixed)
            };
            return self.taken(server, given_up).await;
        }
        let mut batch = Batch::new();
        let tried = OutTransactionRow { refusals, ..fixed };
        batch.put(&schema::OUT_TRANSACTIONS, &server.to_string(), &tried);
        self.rooms.store().write(batch).await?;
        self.remote.failed(server, started, &reason).await;
        Ok(Turn::Wait(self.wait_of(server).await))
    }

    async fn taken(&self, server: &ServerName, row: DestinationRow) -> Result<Turn, FollowError> {
        let name = server.to_string();
        let mut batch = Batch::new();
        batch.put(&schema::DESTINATIONS, &name, &row);
        batch.delete(&schema::OUT_TRANSACTIONS, &name);
        self.rooms.store().write(batch).await?;
        Ok(Turn::Delivered)
    }

    async fn wait_of(&self, server: &ServerName) -> Millis {
        let backoff = self.remote.backoff(server).await;
        backoff.map_or_else(|| self.clock.now().saturating_add(1000), |row| row.retry_at)
    }

    async fn request(&self, fixed: &OutTransactionRow) -> Result<send::Request, FollowError> {
        let events = self.rooms.reader().events(&fixed.events).await?;
        let visible = events
            .into_iter()
            .flatten()
            .filter(|event| event.status == Status::Visible);
        let pdus = visible.filter_map(|event| {
            let text = std::str::from_utf8(event.pdu.bytes()).ok()?.to_owned();
            RawJsonValue::from_string(text).ok()
        });
        let edus = fixed.edus.iter().filter_map(|edu| {
            let raw: Box<RawJsonValue> = RawJsonValue::from_string(edu.clone()).ok()?;
            Some(Raw::<Edu>::from_json(raw))
        });
        Ok(send::Request {
            transaction_id: OwnedTransactionId::from(fixed.id.as_str()),
            origin: self.rooms.server_name(),
            origin_server_ts: to_ruma(fixed.made),
            pdus: pdus.collect(),
            edus: edus.collect(),
        })
    }
}

/// A destination once a transaction needs no more attempts.
fn taken(row: DestinationRow, fixed: &OutTransactionRow) -> DestinationRow {
    DestinationRow {
        sent: fixed.sent.max(row.sent),
        catch_up: fixed.catch_up,
        ..row
    }
}
