//! Letters that wait.

use std::sync::atomic::Ordering;

use vatra_store::{Batch, Direction, Position, Range};

use super::{Letter, MailError, Mailer};
use crate::{
    clock::Millis,
    random,
    schema::{self, MailRow},
};

/// The longest text and the longest HTML of a letter, in bytes: rows are small.
const LONGEST_PART: usize = 48 << 10;

/// How many letters [`Mailer::lag_ms`] looks at: those that were put off stand behind newer ones.
const LOOKED_AT: usize = 100;

/// Whether someone waits for a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Someone looks into their mailbox: sent before all others, and still when the others have used up the hour.
    Urgent,
    /// Nobody waits.
    Other,
}

impl Urgency {
    pub(super) fn key(self) -> u64 {
        match self {
            Self::Urgent => 0,
            Self::Other => 1,
        }
    }
}

/// How a letter is to be delivered.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// Whether someone waits for it.
    pub urgency: Urgency,
    /// Not before this time.
    pub due: Millis,
    /// Not after this time: what it says is no longer of use.
    pub give_up: Millis,
}

impl Mailer {
    /// A new Message-ID.
    pub fn message_id(&self) -> String {
        let parts = &self.inner.parts;
        let unique = random::token(&*parts.random, 24);
        format!("<{unique}@{}>", parts.server_name.host())
    }

    /// Queues a letter, if the batch is written. Its task is woken then.
    pub fn queue(&self, batch: &mut Batch, letter: &Letter, delivery: Delivery) {
        let row = MailRow {
            to: letter.to.clone(),
            subject: letter.subject.clone(),
            text: shortened(&letter.text),
            html: if letter.html.len() > LONGEST_PART {
                // Half an element is no HTML.
                String::new()
            } else {
                letter.html.clone()
            },
            follows: letter.follows.clone(),
            list: letter.list_row(),
            since: delivery.due.max(self.now()),
            give_up: delivery.give_up,
            attempts: 0,
        };
        let key = (delivery.urgency.key(), delivery.due, letter.id.clone());
        batch.put(&schema::MAIL_QUEUE, &key, &row);
        let mailer = self.clone();
        batch.then(move |position| {
            mailer.inner.counts.queued.fetch_add(1, Ordering::Relaxed);
            let bell = mailer.bell(delivery.urgency);
            bell.newest.fetch_max(position.0, Ordering::AcqRel);
            bell.notify.notify_one();
        });
    }

    /// Returns when all can be read for which the bell has rung: it rings a moment before that.
    pub(super) async fn visible(&self, urgency: Urgency) {
        let newest = Position(self.bell(urgency).newest.load(Ordering::Acquire));
        let mut watermark = self.inner.parts.store.subscribe_watermark();
        // An error means that the store is gone: then the shutdown comes.
        let _ = watermark.wait_for(|now| *now >= newest).await;
    }

    /// By how much the letter that waits longest is late, in milliseconds.
    ///
    /// # Errors
    /// The store's.
    pub async fn lag_ms(&self) -> Result<Millis, MailError> {
        let view = self.inner.parts.store.view();
        let mut lag = 0;
        for urgency in [Urgency::Urgent, Urgency::Other] {
            let range = Range::prefix(&(urgency.key(),));
            let first = view
                .range(&schema::MAIL_QUEUE, range, Direction::Forward, LOOKED_AT)
                .await?;
            for (_, row) in first {
                lag = lag.max(self.now().saturating_sub(row.since));
            }
        }
        Ok(lag)
    }
}

fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST_PART);
    text.get(..end).unwrap_or_default().to_owned()
}
