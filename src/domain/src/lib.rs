//! Matrix without HTTP serving: events, rooms, accounts, sync, media.
//!
//! The crate is built in floors (see `ARCHITECTURE.md`): a module calls lower floors freely, its own
//! floor sparingly and higher floors never; `tests/floors.rs` reads the `use crate::` lines and checks it.
//!
//! | floor | modules |
//! |---|---|
//! | 0 | [`schema`], [`clock`], [`random`], [`ids`], [`event`], [`audit`] |
//! | 1 | [`remote`], [`mail`] |
//! | 2 | [`appservice`], [`users`], [`e2ee`], [`push`] |
//! | 3 | [`rooms`] |
//! | 4 | [`sync`], [`federation`], [`media`], [`search`], [`url_preview`] |
//! | 5 | [`flows`], [`followers`] |

pub mod appservice;
pub mod audit;
pub mod clock;
pub mod e2ee;
pub mod event;
pub mod federation;
pub mod flows;
pub mod followers;
pub mod ids;
pub mod mail;
pub mod media;
pub mod push;
pub mod random;
pub mod remote;
pub mod rooms;
pub mod schema;
pub mod search;
pub mod sync;
pub mod url_preview;
pub mod users;
