//! The handlers of the client-server API, one file per section of the spec. To add an endpoint: its handler in the
//! section's file, its line here; the paths come from ruma.

mod account;
mod account_data;
mod admin;
mod appservices;
mod backup;
mod dehydrated;
mod devices;
mod directory;
mod discovery;
mod email_page;
mod emails;
mod ephemeral;
mod fallback;
mod keys;
mod legacy_media;
mod media;
mod membership;
mod messages;
mod networks;
mod old_sync;
mod openid;
mod pages;
mod people;
mod profile;
mod push;
mod push_rules;
mod quarantine;
mod relations;
mod rooms;
mod search;
mod server_notices;
mod session;
mod spaces;
mod sso;
mod sync;
mod to_device;
mod unsubscribe_page;
mod url_preview;
mod voip;

use ruma::api::client::{
    account as ruma_account, backup as ruma_backup, context as ruma_context,
    dehydrated_device as ruma_dehydrated, device as ruma_device, directory as ruma_directory,
    discovery as ruma_discovery, keys as ruma_keys, knock as ruma_knock,
    membership as ruma_membership, message as ruma_message, presence as ruma_presence,
    profile as ruma_profile, push as ruma_push, read_marker as ruma_marker,
    receipt as ruma_receipt, relations as ruma_relations, room as ruma_room, search as ruma_search,
    session as ruma_session, space as ruma_space, state as ruma_state, sync as ruma_sync,
    threads as ruma_threads, typing as ruma_typing,
};

pub(crate) use self::media::wanted as media_wanted;
use super::endpoint::Routes;

/// All of them.
pub(crate) fn routes() -> Routes {
    let routes = Routes::new()
        .add(discovery::versions)
        .add(discovery::well_known_client)
        .add(discovery::well_known_support)
        .add(discovery::well_known_server)
        .json::<ruma_discovery::get_capabilities::v3::Request, _, _, _>(discovery::capabilities)
        .json::<ruma_session::get_login_types::v3::Request, _, _, _>(session::flows)
        .json::<ruma_session::login::v3::Request, _, _, _>(session::login)
        .add(session::login_token)
        .add(session::refresh)
        .add(session::logout)
        .add(session::logout_all)
        .json::<ruma_account::register::v3::Request, _, _, _>(account::register)
        .json::<ruma_account::get_username_availability::v3::Request, _, _, _>(account::available)
        .json::<ruma_account::check_registration_token_validity::v1::Request, _, _, _>(
            account::token_validity,
        )
        .add(account::whoami)
        .json::<ruma_account::change_password::v3::Request, _, _, _>(account::change_password)
        .add(account::deactivate)
        .add(openid::token)
        .add(voip::turn_server)
        .add(devices::list)
        .add(devices::get)
        .json::<ruma_device::update_device::v3::Request, _, _, _>(devices::rename)
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
    let routes = room_routes(routes);
    let routes = push_rule_routes(routes);
    let routes = backup_routes(key_routes(routes));
    let routes = routes
        .add(appservices::ping)
        .add(appservices::set_visibility);
    let routes = quarantine::routes(media::routes(routes));
    let routes = networks::routes(url_preview::routes(routes));
    let routes = server_notices::routes(old_sync::routes(admin::routes(routes)));
    let routes = legacy_media::routes(email_page::routes(emails::routes(routes)));
    let routes = account_data::unstable_routes(fallback::routes(sso::routes(routes)));
    account::shared_secret_routes(unsubscribe_page::routes(routes))
}

fn room_routes(routes: Routes) -> Routes {
    routes
        .json::<ruma_relations::get_relating_events::v1::Request, _, _, _>(relations::relations)
        .json::<ruma_relations::get_relating_events_with_rel_type::v1::Request, _, _, _>(
            relations::relations,
        )
        .json::<ruma_relations::get_relating_events_with_rel_type_and_event_type::v1::Request, _, _, _>(
            relations::relations,
        )
        .add(relations::at_time)
        .json::<ruma_threads::get_threads::v1::Request, _, _, _>(relations::threads)
        .json::<ruma_space::get_hierarchy::v1::Request, _, _, _>(spaces::hierarchy)
        .json::<ruma_room::get_summary::v1::Request, _, _, _>(spaces::summary)
        .add(people::search)
        .add(people::mutual_rooms)
        .add(people::whois)
        .add(people::report_event)
        .add(people::report_room)
        .add(people::report_user)
        .add(directory::create)
        .add(directory::get)
        .add(directory::delete)
        .add(directory::of_room)
        .add(directory::visibility)
        .add(directory::set_visibility)
        .json::<ruma_directory::get_public_rooms::v3::Request, _, _, _>(directory::list)
        .json::<ruma_directory::get_public_rooms_filtered::v3::Request, _, _, _>(directory::search)
        .add(rooms::create)
        .add(rooms::upgrade)
        .json::<ruma_message::send_message_event::v3::Request, _, _, _>(rooms::send)
        .add(rooms::redact)
        .json::<ruma_state::send_state_event::v3::Request, _, _, _>(rooms::set_state)
        .json::<ruma_state::get_state_event_for_key::v3::Request, _, _, _>(rooms::get_state_event)
        .json::<ruma_state::get_state_events::v3::Request, _, _, _>(rooms::get_state)
        .json::<ruma_room::get_room_event::v3::Request, _, _, _>(rooms::get_event)
        .json::<ruma_membership::join_room_by_id::v3::Request, _, _, _>(membership::join)
        .json::<ruma_membership::join_room_by_id_or_alias::v3::Request, _, _, _>(membership::join)
        .json::<ruma_knock::knock_room::v3::Request, _, _, _>(membership::knock)
        .json::<ruma_membership::invite_user::v3::Request, _, _, _>(membership::invite)
        .add(membership::leave)
        .add(membership::forget)
        .add(membership::kick)
        .add(membership::ban)
        .add(membership::unban)
        .add(membership::joined)
        .json::<ruma_membership::get_member_events::v3::Request, _, _, _>(membership::members)
        .json::<ruma_membership::joined_members::v3::Request, _, _, _>(membership::joined_members)
        .json::<ruma_message::get_message_events::v3::Request, _, _, _>(messages::messages)
        .json::<ruma_context::get_context::v3::Request, _, _, _>(messages::context)
        .json::<ruma_search::search_events::v3::Request, _, _, _>(search::search)
        .json::<ruma_typing::create_typing_event::v3::Request, _, _, _>(ephemeral::typing)
        .json::<ruma_receipt::create_receipt::v3::Request, _, _, _>(ephemeral::receipt)
        .json::<ruma_marker::set_read_marker::v3::Request, _, _, _>(ephemeral::read_markers)
        .json::<ruma_presence::get_presence::v3::Request, _, _, _>(ephemeral::get_presence)
        .json::<ruma_presence::set_presence::v3::Request, _, _, _>(ephemeral::set_presence)
        .json::<ruma_sync::sync_events::v3::Request, _, _, _>(sync::sync)
}

fn key_routes(routes: Routes) -> Routes {
    routes
        .json::<ruma_keys::upload_keys::v3::Request, _, _, _>(keys::upload)
        .json::<ruma_keys::get_keys::v3::Request, _, _, _>(keys::query)
        .add(keys::claim)
        .add(keys::changes)
        .add(keys::upload_signing_keys)
        .json::<ruma_keys::upload_signatures::v3::Request, _, _, _>(keys::upload_signatures)
        .add(to_device::send)
        .json::<ruma_dehydrated::put_dehydrated_device::unstable::Request, _, _, _>(dehydrated::put)
        .add(dehydrated::get)
        .add(dehydrated::delete)
        .add(dehydrated::messages)
}

fn backup_routes(routes: Routes) -> Routes {
    use ruma_backup::{
        add_backup_keys, add_backup_keys_for_room, add_backup_keys_for_session,
        create_backup_version, delete_backup_keys, delete_backup_keys_for_room,
        delete_backup_keys_for_session, delete_backup_version, get_backup_info, get_backup_keys,
        get_backup_keys_for_room, get_backup_keys_for_session, get_latest_backup_info,
        update_backup_version,
    };
    routes
        .json::<create_backup_version::v3::Request, _, _, _>(backup::create)
        .json::<get_latest_backup_info::v3::Request, _, _, _>(backup::latest)
        .json::<get_backup_info::v3::Request, _, _, _>(backup::get)
        .json::<update_backup_version::v3::Request, _, _, _>(backup::update)
        .json::<delete_backup_version::v3::Request, _, _, _>(backup::delete)
        .json::<add_backup_keys::v3::Request, _, _, _>(backup::put_all)
        .json::<add_backup_keys_for_room::v3::Request, _, _, _>(backup::put_room)
        .json::<add_backup_keys_for_session::v3::Request, _, _, _>(backup::put_session)
        .json::<get_backup_keys::v3::Request, _, _, _>(backup::get_all)
        .json::<get_backup_keys_for_room::v3::Request, _, _, _>(backup::get_room)
        .json::<get_backup_keys_for_session::v3::Request, _, _, _>(backup::get_session)
        .json::<delete_backup_keys::v3::Request, _, _, _>(backup::delete_all)
        .json::<delete_backup_keys_for_room::v3::Request, _, _, _>(backup::delete_room)
        .json::<delete_backup_keys_for_session::v3::Request, _, _, _>(backup::delete_session)
}

fn push_rule_routes(routes: Routes) -> Routes {
    routes
        .add(push_rules::all)
        .add(push_rules::global)
        .add(push_rules::get)
        .add(push_rules::actions)
        .add(push_rules::enabled)
        .add(push_rules::set)
        .add(push_rules::delete)
        .add(push_rules::change_actions)
        .add(push_rules::enable)
        .json::<ruma_push::get_pushers::v3::Request, _, _, _>(push::pushers)
        .json::<ruma_push::set_pusher::v3::Request, _, _, _>(push::set)
        .json::<ruma_push::get_notifications::v3::Request, _, _, _>(push::notifications)
}
