//! The handlers of the server-server API, one file per section of the spec. To add an endpoint: its handler in the section's
//! file, its line here; the paths come from ruma.
//!
//! A handler's caller is the [`Origin`] whose signature was checked, or `()` where the spec wants no signature.

mod history;
mod keys;
mod media;
mod membership;
mod openid;
pub(crate) mod origin;
mod query;
mod spaces;
mod transactions;
mod user_keys;

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
        .signed(user_keys::devices)
        .signed(user_keys::query)
        .signed(user_keys::claim)
        .signed(transactions::take)
        .signed(membership::make_join)
        .signed(membership::send_join)
        .signed(membership::make_leave)
        .signed(membership::send_leave)
        .signed(membership::make_knock)
        .signed(membership::send_knock)
        .signed(membership::invite)
        .signed(history::event)
        .signed(history::event_auth)
        .signed(history::state)
        .signed(history::state_ids)
        .signed(history::backfill)
        .signed(history::missing_events)
        .signed(history::at_time)
        .signed_raw(spaces::hierarchy);
    media::routes(membership::old(routes))
}
