//! The handlers of the client-server API, one file per section of the spec. To add an endpoint: its handler in the
//! section's file, its line here; the paths come from ruma.

mod account;
mod account_data;
mod devices;
mod discovery;
mod legacy_media;
mod media;
mod profile;
mod session;

use ruma::api::client::{
    account as ruma_account, profile as ruma_profile, session as ruma_session,
};

use super::endpoint::Routes;

/// All of them.
pub(crate) fn routes() -> Routes {
    let routes = Routes::new()
        .add(discovery::versions)
        .add(discovery::well_known_client)
        .add(discovery::well_known_support)
        .add(discovery::well_known_server)
        .add(discovery::capabilities)
        .add(session::flows)
        .json::<ruma_session::login::v3::Request, _, _, _>(session::login)
        .add(session::refresh)
        .add(session::logout)
        .add(session::logout_all)
        .json::<ruma_account::register::v3::Request, _, _, _>(account::register)
        .add(account::available)
        .add(account::token_validity)
        .add(account::whoami)
        .add(account::change_password)
        .add(account::deactivate)
        .add(account::third_party_ids)
        .add(devices::list)
        .add(devices::get)
        .add(devices::rename)
        .add(devices::delete)
        .add(devices::delete_many)
        .json::<ruma_profile::get_profile::v3::Request, _, _, _>(profile::get)
        .json::<ruma_profile::get_profile_field::v3::Request, _, _, _>(profile::get_field)
        .json::<ruma_profile::set_profile_field::v3::Request, _, _, _>(profile::set_field)
        .json::<ruma_profile::delete_profile_field::v3::Request, _, _, _>(profile::delete_field)
        .add(account_data::get_global)
        .add(account_data::set_global)
        .add(account_data::get_room)
        .add(account_data::set_room)
        .add(account_data::create_filter)
        .add(account_data::get_filter)
        .add(account_data::tags)
        .add(account_data::set_tag)
        .add(account_data::delete_tag);
    let routes = media::routes(routes);
    let routes = legacy_media::routes(routes);
    account::shared_secret_routes(routes)
}
