//! Messages to devices, kept until the device says that it has them.
//!
//! A message has the position of its batch; a device reads on from a position and, by asking with it, says that it has
//! everything up to there. <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use std::collections::BTreeMap;

use ruma::{OwnedUserId, UserId};
use serde::Serialize;
use serde_json::value::RawValue;
use vatra_store::{Batch, CommitError, Direction, Position, Range, StoreError, View};

use super::{E2ee, E2eeError, MAX_MESSAGE, MAX_RECIPIENTS, parse::short};
use crate::schema::{self, TxnRow, UserSid, topic};

/// One of a user's devices, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipient {
    /// All devices that are not named beside.
    All,
    /// This one.
    Device(String),
}

/// What is sent: the content by user and device.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<Recipient, Box<RawValue>>>;

/// The transaction of a client: whose, of which device, and its id.
#[derive(Debug, Clone, Copy)]
pub struct SenderTxn<'a> {
    /// Whose.
    pub sid: UserSid,
    /// Of which device.
    pub device: &'a str,
    /// Its id.
    pub id: &'a str,
}

/// Messages that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The events, oldest first.
    pub events: Vec<Box<RawValue>>,
    /// Up to where they reach: the position to ask from next.
    pub upto: Position,
}

/// How large the batches of a large sending are, in bytes.
const BATCH_BYTES: usize = 2 << 20;

#[derive(Serialize)]
struct Event<'a> {
    content: &'a RawValue,
    sender: &'a UserId,
    #[serde(rename = "type")]
    kind: &'a str,
}

impl E2ee {
    /// Sends messages of one type to devices of local users. A repeated transaction sends nothing. Users and devices that do not exist are
    /// passed over. Durable when it returns.
    ///
    /// # Errors
    /// [`E2eeError::BadJson`] for a content that is no object; [`E2eeError::TooLarge`] for one larger than [`MAX_MESSAGE`] or
    /// for more than [`MAX_RECIPIENTS`] devices.
    pub async fn send(
        &self,
        sender: &UserId,
        txn: Option<SenderTxn<'_>>,
        kind: &str,
        messages: &Messages,
    ) -> Result<(), E2eeError> {
        short("an event type", kind)?;
        let txn = match txn {
            Some(txn) => {
                short("a transaction id", txn.id)?;
                let endpoint = format!("sendToDevice/{kind}");
                Some((txn.sid, txn.device.to_owned(), endpoint, txn.id.to_owned()))
            }
            None => None,
        };
        let view = self.store().view();
        if let Some(key) = &txn
            && view.contains(&schema::TRANSACTIONS, key).await?
        {
            return Ok(());
        }
        let rows = self.address(&view, sender, kind, messages).await?;
        let mut batches = vec![Batch::new()];
        let mut size = 0;
        for (user, device, event) in rows {
            if size > BATCH_BYTES {
                batches.push(Batch::new());
                size = 0;
            }
            size += event.len();
            if let Some(batch) = batches.last_mut() {
                batch.wake(topic::devices(user));
                batch.put_at_position(&schema::INBOX, move |position| {
                    ((user, device, position), event)
                });
            }
        }
        if let Some(key) = &txn {
            // Of a large sending the last batch carries the transaction: one that was cut short is sent again, not lost.
            for batch in &mut batches {
                batch.assert_absent(&schema::TRANSACTIONS, key);
            }
            if let Some(last) = batches.last_mut() {
                let row = TxnRow {
                    event_id: String::new(),
                };
                last.put(&schema::TRANSACTIONS, key, &row);
            }
        }
        let tickets: Vec<_> = batches
            .into_iter()
            .map(|batch| self.store().submit(batch))
            .collect();
        for ticket in tickets {
            match ticket.committed().await {
                // The same transaction was quicker.
                Ok(_) | Err(CommitError::AssertFailed) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The rows to write: user, device and event.
    async fn address(
        &self,
        view: &View,
        sender: &UserId,
        kind: &str,
        messages: &Messages,
    ) -> Result<Vec<(UserSid, String, String)>, E2eeError> {
        let mut rows = Vec::new();
        for (user, contents) in messages {
            let mut events = BTreeMap::new();
            for (recipient, content) in contents {
                events.insert(recipient, event(sender, kind, content)?);
            }
            let Some(sid) = self.inner.ids.user(user).await? else {
                continue;
            };
            let devices = view
                .range(
                    &schema::DEVICES,
                    Range::prefix(&(sid,)),
                    Direction::Forward,
                    usize::MAX,
                )
                .await?;
            for ((_, device), _) in devices {
                let named = events.get(&Recipient::Device(device.clone()));
                if let Some(event) = named.or_else(|| events.get(&Recipient::All)) {
                    rows.push((sid, device, event.clone()));
                }
            }
            if rows.len() > MAX_RECIPIENTS {
                let message = format!("a request sends to {MAX_RECIPIENTS} devices at most");
                return Err(E2eeError::TooLarge(message));
            }
        }
        Ok(rows)
    }

    /// What waits for a device after one position, up to another: at most `limit` messages. No read when nothing waits.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn waiting(
        &self,
        view: &View,
        user: UserSid,
        device: &str,
        (after, upto): (Position, Position),
        limit: usize,
    ) -> Result<Waiting, StoreError> {
        let key = (user, device.to_owned());
        if self.nothing_waits(&key) {
            return Ok(Waiting {
                events: Vec::new(),
                upto,
            });
        }
        let range = Range::prefix(&key)
            .after(&(user, device.to_owned(), after))
            .until(&(user, device.to_owned(), upto));
        let mut rows = view
            .range(
                &schema::INBOX,
                range,
                Direction::Forward,
                limit.saturating_add(1),
            )
            .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let upto = match rows.last() {
            Some(((_, _, last), _)) if more => *last,
            _ => upto,
        };
        let events = rows
            .into_iter()
            .map(|(_, event)| RawValue::from_string(event));
        let events = events
            .collect::<Result<_, _>>()
            .map_err(|_| StoreError::corrupt("a message to a device is no JSON"))?;
        Ok(Waiting { events, upto })
    }

    /// A device has everything up to a position: it is deleted. Not waited for: what a crash brings back lies before the
    /// position that the device asks from next, and goes with the next acknowledgement. No read when nothing waits.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn acknowledge(
        &self,
        user: UserSid,
        device: &str,
        upto: Position,
    ) -> Result<(), StoreError> {
        let key = (user, device.to_owned());
        if self.nothing_waits(&key) {
            return Ok(());
        }
        let view = self.store().view();
        let range = Range::prefix(&key);
        let first = view
            .first(&schema::INBOX, range.clone(), Direction::Forward)
            .await?;
        match first {
            None => self.inner.nothing_waits.insert(key, view.watermark()),
            Some(((_, _, position), _)) if position <= upto => {
                let mut batch = Batch::new();
                batch.delete_range(
                    &schema::INBOX,
                    range.until(&(user, device.to_owned(), upto)),
                );
                drop(self.store().submit(batch));
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn nothing_waits(&self, key: &(UserSid, String)) -> bool {
        let checked = self.inner.nothing_waits.get(key);
        checked.is_some_and(|checked| !self.store().changed_since(topic::devices(key.0), checked))
    }
}

fn event(sender: &UserId, kind: &str, content: &RawValue) -> Result<String, E2eeError> {
    if !content.get().starts_with('{') {
        let message = "the content of a message to a device is an object";
        return Err(E2eeError::BadJson(message.to_owned()));
    }
    if content.get().len() > MAX_MESSAGE {
        let message = format!("a message to a device is larger than {MAX_MESSAGE} bytes");
        return Err(E2eeError::TooLarge(message));
    }
    let event = Event {
        content,
        sender,
        kind,
    };
    serde_json::to_string(&event).map_err(|error| E2eeError::BadJson(error.to_string()))
}
