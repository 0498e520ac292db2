//! The handlers of the server-server API, one file per section of the spec. To add an endpoint: its handler in the section's
//! file, its line here; the paths come from ruma.
//!
//! A handler's caller is the [`Origin`] whose signature was checked, or `()` where the spec wants no signature.

mod keys;
mod media;
mod openid;
pub(crate) mod origin;
mod query;
mod transactions;

pub(crate) use self::origin::Origin;
use super::endpoint::Routes;

/// All of them.
pub(crate) fn routes() -> Routes {
    let routes = Routes::new()
        .add(query::version)
        .add(keys::own)
        .add(keys::of_one)
        .add(keys::of_many)
        .add(openid::user)
        .signed(query::profile)
        .signed(query::directory)
        .signed(query::public_rooms)
        .signed(query::search_public_rooms)
        .signed(transactions::take);
    media::routes(routes)
}
