//! The server from outside: a real one on port 0, spoken to over HTTP. Each test runs on both engines.
//!
//! To add tests: a file here with sentences as names, each `both_engines!(name)` over an `async fn name(server: Server)`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod account_data;
mod appservices;
mod bad_fields;
mod bad_input;
mod captcha;
mod chat;
mod coming_and_going;
mod directory;
mod encryption;
mod ephemeral;
mod erasure;
mod federation;
mod guests;
mod harness;
mod invite_blocking;
mod jwt;
mod large_room;
mod lazy;
mod limits;
mod mail;
mod many_away;
mod media;
mod moderation;
mod old_sync;
mod operate;
mod people;
mod power_cut;
mod process;
mod push;
mod races;
mod registration;
mod restore;
mod retention;
mod rooms;
mod routing;
mod search;
mod server;
mod server_notices;
mod services;
mod sessions;
mod shared_rooms;
mod spaces;
mod sso;
mod threads;
mod upgrade;
mod url_preview;
mod web_client;
