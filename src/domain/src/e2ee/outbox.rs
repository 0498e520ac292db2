//! Messages to devices of other servers: units that wait for the federation sender.
//! <https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging>

use std::collections::BTreeMap;

use ruma::{OwnedServerName, UserId};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use vatra_store::Batch;

use super::{E2ee, E2eeError, MAX_MESSAGE, MAX_RECIPIENTS, Messages, Recipient, SenderTxn};
use crate::schema::{self, topic};

/// About how large the messages of one unit are together, in bytes.
const UNIT_BYTES: usize = 48 << 10;
/// About how large a batch is, in bytes.
const BATCH_BYTES: usize = 2 << 20;

/// The contents of one unit, by user and device.
type Contents<'a> = BTreeMap<&'a UserId, BTreeMap<&'a str, &'a RawValue>>;

#[derive(Serialize)]
struct Unit<'a> {
    edu_type: &'static str,
    content: Content<'a>,
}

#[derive(Serialize)]
struct Content<'a> {
    sender: &'a UserId,
    #[serde(rename = "type")]
    kind: &'a str,
    message_id: String,
    messages: &'a Contents<'a>,
}

impl E2ee {
    /// Queues messages for devices of other servers. Durable when it returns. A repeated transaction may queue them again, under the same
    /// message ids, by which their servers know them.
    ///
    /// # Errors
    /// [`E2eeError::BadJson`] for a content that is no object; [`E2eeError::TooLarge`] for one larger than [`MAX_MESSAGE`] or
    /// for more than [`MAX_RECIPIENTS`] devices.
    pub async fn send_elsewhere(
        &self,
        sender: &UserId,
        txn: SenderTxn<'_>,
        kind: &str,
        messages: &BTreeMap<OwnedServerName, Messages>,
    ) -> Result<(), E2eeError> {
        let mut batches = vec![Batch::new()];
        let (mut bytes, mut number) = (0, 0_u64);
        for (server, messages) in messages {
            for contents in units(messages)? {
                let unit = Unit {
                    edu_type: "m.direct_to_device",
                    content: Content {
                        sender,
                        kind,
                        message_id: message_id(sender, txn, kind, number),
                        messages: &contents,
                    },
                };
                let json = serde_json::to_string(&unit)
                    .map_err(|error| E2eeError::BadJson(error.to_string()))?;
                if bytes > BATCH_BYTES {
                    batches.push(Batch::new());
                    bytes = 0;
                }
                bytes += json.len();
                if let Some(batch) = batches.last_mut() {
                    let (server, place) = (server.to_string(), number);
                    batch.put_at_position(&schema::EDU_OUTBOX, move |position| {
                        ((server, position, place), json)
                    });
                }
                number += 1;
            }
        }
        let mut tickets = Vec::new();
        for mut batch in batches {
            batch.wake(topic::elsewhere());
            tickets.push(self.store().submit(batch));
        }
        for ticket in tickets {
            ticket.committed().await?;
        }
        Ok(())
    }
}

/// The messages for one server, in units that fit into a transaction.
fn units(messages: &Messages) -> Result<Vec<Contents<'_>>, E2eeError> {
    let (mut units, mut bytes, mut devices) = (Vec::new(), 0, 0);
    let mut unit = Contents::new();
    for (user, contents) in messages {
        for (recipient, content) in contents {
            check(content)?;
            devices += 1;
            if devices > MAX_RECIPIENTS {
                let message = format!("a request sends to {MAX_RECIPIENTS} devices at most");
                return Err(E2eeError::TooLarge(message));
            }
            if bytes > 0 && bytes + content.get().len() > UNIT_BYTES {
                units.push(std::mem::take(&mut unit));
                bytes = 0;
            }
            bytes += content.get().len();
            let device = match recipient {
                Recipient::All => "*",
                Recipient::Device(device) => device.as_str(),
            };
            let of_user = unit.entry(user).or_default();
            of_user.insert(device, content);
        }
    }
    if !unit.is_empty() {
        units.push(unit);
    }
    Ok(units)
}

/// Whether something may be the content of a message to a device.
pub(super) fn check(content: &RawValue) -> Result<(), E2eeError> {
    if !content.get().starts_with('{') {
        let message = "the content of a message to a device is an object";
        return Err(E2eeError::BadJson(message.to_owned()));
    }
    if content.get().len() > MAX_MESSAGE {
        let message = format!("a message to a device is larger than {MAX_MESSAGE} bytes");
        return Err(E2eeError::TooLarge(message));
    }
    Ok(())
}

/// The same for a repeated request, another for any other. 32 characters, as the spec has it at most.
fn message_id(sender: &UserId, txn: SenderTxn<'_>, kind: &str, number: u64) -> String {
    let mut hash = Sha256::new();
    for part in [sender.as_str(), txn.device, kind, txn.id] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(number.to_be_bytes());
    hash.finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
