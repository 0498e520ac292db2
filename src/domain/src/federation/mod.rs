//! What other servers send and ask: the inbound half of federation.
//!
//! | module | what |
//! |---|---|
//! | [`acl`] | which servers a room lets in |
//! | [`transaction`] | what a server tells: taken once, room by room |
//! | [`unshared`] | what becomes of its events while no room is shared |
//! | [`edus`] | what passes: typing, receipts, presence |
//!
//! Called by the handlers of the server-server API, which have proven who asks. Invariants: nothing that a server says about
//! another server's users is believed; one slow or hostile server holds up nobody else.

pub mod acl;
pub mod edus;
#[cfg(test)]
mod tests;
pub mod transaction;
pub mod unshared;
