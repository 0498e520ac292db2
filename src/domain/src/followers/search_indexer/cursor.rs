//! How far the index is.

use std::ops::Bound;

use vatra_store::{Direction, Position, Range, StoreError};

use crate::{
    rooms::Reader,
    schema::{self, EventSid},
};

/// The form of the note, and of what is put into the index: another number makes indexes of before be made anew.
const FORM: u64 = 1;

/// Up to where the log, and the list of events that stand in no log, were dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The last position of the log.
    pub(super) log: Position,
    /// The last row of [`schema::PAST`].
    past: (Position, EventSid),
}

impl Cursor {
    /// Nothing was dealt with.
    pub(super) const START: Self = Self {
        log: Position::ZERO,
        past: (Position::ZERO, EventSid(0)),
    };

    /// What is written down in the index, which belongs to an epoch of the store.
    pub(super) fn note(&self, epoch: u64) -> String {
        let (at, sid) = self.past;
        format!("{FORM} {epoch} {} {} {}", self.log.0, at.0, sid.0)
    }

    /// Reads a note; `None` if it is of another form or epoch.
    pub(super) fn read(note: &str, epoch: u64) -> Option<Self> {
        let numbers: Vec<u64> = note
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        match numbers.as_slice() {
            [FORM, of, log, at, sid] if *of == epoch => Some(Self {
                log: Position(*log),
                past: (Position(*at), EventSid(*sid)),
            }),
            _ => None,
        }
    }

    /// Moves on by some events, and gives them: those of the log first. None are left if it gives none.
    pub(super) async fn advance(
        &mut self,
        reader: &Reader,
        limit: usize,
    ) -> Result<Vec<EventSid>, StoreError> {
        let view = reader.view();
        let range = Range::between(
            Bound::Excluded(&self.log),
            Bound::Included(&view.watermark()),
        );
        let rows = view
            .range(&schema::LOG, range, Direction::Forward, limit)
            .await?;
        if let Some((last, _)) = rows.last() {
            self.log = *last;
            return Ok(rows.into_iter().map(|(_, row)| row.event).collect());
        }
        let range = Range::all().after(&self.past);
        let rows = view
            .range(&schema::PAST, range, Direction::Forward, limit)
            .await?;
        if let Some((last, ())) = rows.last() {
            self.past = *last;
        }
        Ok(rows.into_iter().map(|((_, sid), ())| sid).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_of_another_epoch_it_is_none() {
        let cursor = Cursor {
            log: Position(7),
            past: (Position(3), EventSid(9)),
        };
        assert_eq!(Cursor::read(&cursor.note(5), 5), Some(cursor));
        for (note, epoch) in [
            (cursor.note(5).as_str(), 6),
            ("", 5),
            ("1 5 7 3", 5),
            ("2 5 7 3 9", 5),
            ("1 5 x 3 9", 5),
        ] {
            assert_eq!(Cursor::read(note, epoch), None, "{note}");
        }
    }
}
