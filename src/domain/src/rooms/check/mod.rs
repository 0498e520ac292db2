//! What `vatra check` asks of rooms: is every event what was signed, does every state stand, and do indexes agree with the
//! rows they are made from, both ways.
//!
//! | step | reads | against |
//! |---|---|---|
//! | `names` | users, rooms, state keys | their numbers |
//! | `events` | every event | its id, hash, signature; its rows in both orders, the log, the list of what the log does not tell, the times, the relations and threads; and back |
//! | `trees` | heads, deltas, the states before events | the nodes of the trees |
//! | `current` | the current states' trees | the current state by name, and back |
//! | `members` | member events of the current state | memberships, members by room, counts; and back |
//! | `servers` | joined members of other servers | how many each server has in a room; and back |
//! | `gaps` | gaps of the room order | the events they end in, and the missing ones; and back |
//! | `edges` | aliases, receipts, servers by room | their second rows; and back |
//!
//! Each step reads one view, a page at a time. Memory: a page (at most 20 MB of events), and 16 bytes for each of the last
//! million state nodes. Time: each event is read about six times and verified once (100 microseconds). Events, tree nodes, heads,
//! deltas, aliases and receipts are primary; everything else is derived and mended by `--repair`.

mod current;
mod edges;
mod events;
mod gaps;
mod members;
mod names;
mod past;
mod servers;
#[cfg(test)]
mod tests;
mod trees;

use super::Rooms;
use crate::audit::{Audit, AuditError, Problem};

/// What was looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CheckSummary {
    /// Events.
    pub events: u64,
    /// Memberships.
    pub memberships: u64,
    /// Problems reported.
    pub problems: u64,
}

impl Rooms {
    /// Reads everything about rooms and reports what does not agree; `repair` writes derived rows anew.
    ///
    /// # Errors
    /// If the store cannot be read, or does not take a repair.
    pub async fn check(
        &self,
        repair: bool,
        mut report: impl FnMut(Problem) + Send,
    ) -> Result<CheckSummary, AuditError> {
        let mut audit = Audit::new(self.store().clone(), repair, &mut report);
        names::check(&mut audit).await?;
        let mut trees = trees::Trees::default();
        let events = events::check(&mut audit, &self.inner.signer, &mut trees).await?;
        trees.check(&mut audit).await?;
        current::check(&mut audit, &mut trees).await?;
        let memberships = members::check(&mut audit, &mut trees).await?;
        servers::check(&mut audit, &self.server_name()).await?;
        gaps::check(&mut audit).await?;
        edges::check(&mut audit).await?;
        Ok(CheckSummary {
            events,
            memberships,
            problems: audit.problems(),
        })
    }
}
