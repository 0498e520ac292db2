//! Bridges and bots: what they may do that others may not, and what they are told.

mod acting;
mod hearing;
mod service;
