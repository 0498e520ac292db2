//! What was acknowledged survives: the end of the process at any moment, and a power cut at any moment.
//!
//! A child process (this test binary again, running [`writer::child`]) writes with several tasks and notes each
//! acknowledged row in a file. The tests end it, or cut its files back to what had been synced, and look for every row.
//! A small C library in front of the C library ([`shim`]) sees what is synced, and plays a full disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod full_disk;
mod kill;
mod power_cut;
mod shim;
mod writer;
