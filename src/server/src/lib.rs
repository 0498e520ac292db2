//! vatra: a federated Matrix homeserver. This crate is HTTP, settings, wiring and the command; what Matrix means is in
//! `vatra-domain`, and how it is stored in `vatra-store`.

pub mod captcha;
pub mod config;
mod folders;
pub mod http;
pub mod jwt;
pub mod listen;
pub mod mail;
pub mod operate;
mod outbound;
pub mod server;
mod sso;
pub mod web_client;
pub mod wiring;
