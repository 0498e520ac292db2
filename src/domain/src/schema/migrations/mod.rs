//! The way up from older stores. Each step may be killed at any point and then runs again from its start.

mod media_bytes;
mod past;
mod related;
mod times;

use vatra_store::Migration;

/// All of them, in order.
pub(super) const ALL: &[Migration] = &[
    Migration {
        version: 2,
        name: "list the events that others relate to",
        run: related::list_related,
    },
    Migration {
        version: 3,
        name: "the times of events, and the replies in threads",
        run: times::times_and_threads,
    },
    Migration {
        version: 4,
        name: "list the events that stand in no log",
        run: past::list_past,
    },
    Migration {
        version: 5,
        name: "count the bytes of each user's media",
        run: media_bytes::count_bytes,
    },
];
