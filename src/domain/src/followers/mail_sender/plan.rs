//! When a letter is due. Pure.

use std::collections::BTreeMap;

use vatra_store::Position;

use super::super::notices::Notice;
use crate::{
    clock::Millis,
    schema::{RoomSid, ToldRoom},
    users::pushers::{MailWishes, Mode},
};

const HOUR_MS: Millis = 3_600_000;
/// The least and the longest rest of a room, in milliseconds.
const LEAST_REST_MS: Millis = 60_000;
const LONGEST_REST_MS: Millis = 24 * HOUR_MS;

/// What decides.
pub(super) struct Plan<'a> {
    /// What is to be told, oldest first; not empty.
    pub(super) pending: &'a [&'a Notice],
    /// All that is unread, oldest first.
    pub(super) unread: &'a [Notice],
    /// What was told before.
    pub(super) told: &'a [ToldRoom],
    pub(super) wishes: &'a MailWishes,
    pub(super) delay_ms: Millis,
    /// When the person was last there.
    pub(super) there: Option<Millis>,
    /// When the mail server is tried again.
    pub(super) retry_at: Millis,
}

impl Plan<'_> {
    /// When the letter is due; in the past if it is.
    pub(super) fn due(&self) -> Millis {
        let wanted = match self.wishes.mode {
            Mode::Instant | Mode::Mentions => self.first_room(),
            Mode::Hourly => self.oldest(HOUR_MS),
            Mode::Daily => self.oldest(24 * HOUR_MS),
        };
        let away = self.there.map(|at| at.saturating_add(self.delay_ms));
        let due = wanted.max(away.unwrap_or(0)).max(self.retry_at);
        match &self.wishes.quiet {
            Some(quiet) => quiet.after(due),
            None => due,
        }
    }

    /// A while after the oldest.
    fn oldest(&self, while_ms: Millis) -> Millis {
        let oldest = self.pending.iter().map(|(_, row)| row.ts).min();
        oldest
            .unwrap_or(0)
            .saturating_add(while_ms.max(self.delay_ms))
    }

    /// When the first of the rooms is due that have something.
    fn first_room(&self) -> Millis {
        let mut rooms: BTreeMap<RoomSid, Millis> = BTreeMap::new();
        for (_, row) in self.pending {
            let at = row.ts.saturating_add(self.delay_ms);
            let due = rooms.entry(row.room).or_insert(at);
            *due = at.min(*due);
        }
        let rooms = rooms.into_iter().map(|(room, due)| {
            let rested = self.resting(room).map(|it| it.at.saturating_add(it.rest));
            due.max(rested.unwrap_or(0))
        });
        rooms.min().unwrap_or(0)
    }

    /// What was told of a room, while nobody has read it.
    fn resting(&self, room: RoomSid) -> Option<&ToldRoom> {
        let told = self.told.iter().find(|it| it.room == room);
        told.filter(|told| self.is_unread(told.upto))
    }

    fn is_unread(&self, at: Position) -> bool {
        self.unread
            .binary_search_by_key(&at, |(position, _)| *position)
            .is_ok()
    }

    /// What has been told once a letter was sent: its rooms rest, longer each time; those that were read are forgotten.
    pub(super) fn told(&self, now: Millis) -> Vec<ToldRoom> {
        let mut rooms: BTreeMap<RoomSid, ToldRoom> = BTreeMap::new();
        for told in self.told.iter().filter(|it| self.is_unread(it.upto)) {
            rooms.insert(told.room, told.clone());
        }
        let mut newest: BTreeMap<RoomSid, Position> = BTreeMap::new();
        for (at, row) in self.pending {
            newest.insert(row.room, *at);
        }
        for (room, upto) in newest {
            let before = rooms.get(&room).map_or(self.delay_ms, |it| it.rest);
            let rest = before.max(LEAST_REST_MS).saturating_mul(2);
            let told = ToldRoom {
                room,
                upto,
                at: now,
                rest: rest.min(LONGEST_REST_MS),
            };
            rooms.insert(room, told);
        }
        rooms.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::schema::{EventSid, NoticeRow, RoomOrder};

    const MINUTE: Millis = 60_000;

    fn notice(at: u64, room: u64, ts: Millis) -> Notice {
        let row = NoticeRow {
            room: RoomSid(room),
            event: EventSid(at),
            order: RoomOrder(1),
            thread: None,
            invite: false,
            highlight: false,
            tweaks: "{}".to_owned(),
            ts,
        };
        (Position(at), row)
    }

    struct Case {
        unread: Vec<Notice>,
        told: Vec<ToldRoom>,
        wishes: MailWishes,
        there: Option<Millis>,
    }

    impl Case {
        fn plan<T>(&self, after: u64, ask: impl Fn(&Plan<'_>) -> T) -> T {
            let pending: Vec<_> = self.unread.iter().filter(|(at, _)| at.0 > after).collect();
            ask(&Plan {
                pending: &pending,
                unread: &self.unread,
                told: &self.told,
                wishes: &self.wishes,
                delay_ms: 10 * MINUTE,
                there: self.there,
                retry_at: 0,
            })
        }

        fn due(&self, after: u64) -> Millis {
            self.plan(after, |plan| plan.due())
        }
    }

    fn case(unread: Vec<Notice>) -> Case {
        Case {
            unread,
            told: Vec::new(),
            wishes: MailWishes::default(),
            there: None,
        }
    }

    #[test]
    fn a_letter_is_due_when_the_oldest_is_unread_for_the_delay_and_the_person_away_for_it() {
        let mut case = case(vec![notice(1, 1, MINUTE), notice(2, 2, 5 * MINUTE)]);
        assert_eq!(case.due(0), 11 * MINUTE);
        case.there = Some(8 * MINUTE);
        assert_eq!(case.due(0), 18 * MINUTE);
        case.there = Some(0);
        assert_eq!(case.due(0), 11 * MINUTE);
    }

    #[test]
    fn digests_come_an_hour_or_a_day_after_the_oldest() {
        let mut case = case(vec![notice(1, 1, MINUTE), notice(2, 2, 5 * MINUTE)]);
        for (mode, due) in [(Mode::Hourly, HOUR_MS), (Mode::Daily, 24 * HOUR_MS)] {
            case.wishes.mode = mode;
            assert_eq!(case.due(0), due + MINUTE);
        }
    }

    #[test]
    fn a_room_that_nobody_reads_rests_longer_each_time_and_no_longer_once_it_is_read() {
        let mut case = case(vec![notice(1, 1, 0)]);
        let mut now = 10 * MINUTE;
        let mut rests = Vec::new();
        for number in 1..10_u64 {
            case.told = case.plan(number - 1, |plan| plan.told(now));
            rests.push(case.told.first().unwrap().rest / MINUTE);
            case.unread.push(notice(number + 1, 1, now));
            let due = case.due(number);
            assert_eq!(due, now + rests.last().unwrap() * MINUTE);
            now = due;
        }
        assert_eq!(rests, [20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440]);
        // Another room does not rest.
        case.unread.push(notice(20, 2, now));
        assert_eq!(case.due(10), now + 10 * MINUTE);
        // It was read up to the last that was told.
        case.unread.retain(|(at, _)| at.0 == 10);
        assert_eq!(case.due(9), case.unread.first().unwrap().1.ts + 10 * MINUTE);
        let told = case.plan(9, |plan| plan.told(now));
        assert_eq!(told.first().unwrap().rest, 20 * MINUTE);
    }
}
