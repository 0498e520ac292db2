//! Events as such: parse, build, hash, sign, check, authorise, redact, show. Pure: no I/O and no clock.
//!
//! | module | what |
//! |---|---|
//! | [`pdu`] | an event as the bytes that were signed, with its header read |
//! | [`build`] | a draft becomes a hashed and signed event |
//! | [`signer`] | this server's key |
//! | [`auth`] | the auth rules |
//! | [`check`] | a received event's form, limits, signatures and hash |
//! | [`resolve`] | one state out of several |
//! | [`redact`] | an event emptied |
//! | [`sound`] | whether a stored event still is what was signed |
//! | [`client`] | an event as clients see it |
//! | [`policy`] | whether a room's policy server recommends an event |
//! | [`relation`] | what an event relates to |
//! | [`filter`] | whether an event passes a client's filter |
//!
//! Called by `rooms` and everything above. To support a new room version: ruma's `RoomVersionRules` carries what differs;
//! what a rule means for the form of an event is read in [`pdu`], [`build`] and [`client`] only.

pub mod auth;
pub mod build;
pub mod check;
pub mod client;
pub mod filter;
pub mod pdu;
pub mod policy;
pub mod redact;
pub mod relation;
pub mod resolve;
pub mod signer;
pub mod sound;
#[cfg(test)]
mod tests;
