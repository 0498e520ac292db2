//! Bodies that the API takes, whole enough that spoiling one field spoils that field alone.

use serde_json::{Value, json};

/// Bodies that are taken, by the end of their route.
pub(super) fn bodies() -> Vec<(&'static str, Value)> {
    let auth = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
        "password": "wrong", "session": "unknown" });
    let filter = json!({
        "limit": 5, "types": ["a"], "not_types": ["b"], "rooms": ["!a:b"], "not_rooms": ["!a:b"], "senders": ["@a:b"], "not_senders": ["@a:b"],
        "contains_url": true, "lazy_load_members": true, "include_redundant_members": true, "unread_thread_notifications": true,
    });
    let letter = json!({ "client_secret": "s", "email": "a@b.c", "send_attempt": 1, "next_link": "https://a/", "id_server": "a",
        "id_access_token": "t" });
    vec![
        (
            "/login",
            json!({
                "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" }, "user": "alice",
                "password": "wrong", "device_id": "D", "initial_device_display_name": "d", "refresh_token": true, "token": "t",
                "medium": "email", "address": "a@b",
            }),
        ),
        (
            "/register",
            json!({
                "username": "newcomer", "password": "short", "device_id": "D", "initial_device_display_name": "d", "inhibit_login": true,
                "refresh_token": true, "type": "m.login.password",
                "auth": { "type": "m.login.registration_token", "token": "t", "session": "s", "response": "r",
                    "threepid_creds": { "sid": "1.x", "client_secret": "s", "id_server": "a", "id_access_token": "t" } },
            }),
        ),
        ("/refresh", json!({ "refresh_token": "unknown" })),
        (
            "/account/password",
            json!({ "new_password": "another long one", "logout_devices": false, "auth": auth }),
        ),
        ("/email/requestToken", letter.clone()),
        (
            "/msisdn/requestToken",
            json!({ "client_secret": "s", "country": "RO", "phone_number": "07", "send_attempt": 1, "next_link": "https://a/" }),
        ),
        (
            "/account/3pid",
            json!({ "three_pid_creds": { "sid": "1.x", "client_secret": "s", "id_server": "a", "id_access_token": "t" } }),
        ),
        (
            "/3pid/add",
            json!({ "sid": "1.x", "client_secret": "s", "auth": auth }),
        ),
        (
            "/3pid/bind",
            json!({ "sid": "1.x", "client_secret": "s", "id_server": "a", "id_access_token": "t" }),
        ),
        (
            "/3pid/delete",
            json!({ "medium": "email", "address": "a@b.c", "id_server": "a" }),
        ),
        (
            "/3pid/unbind",
            json!({ "medium": "email", "address": "a@b.c", "id_server": "a" }),
        ),
        (
            "/vatra.email/submit_token",
            json!({ "sid": "1.x", "client_secret": "s", "token": "t" }),
        ),
        (
            "/devices/{p5}",
            json!({ "display_name": "d", "auth": auth }),
        ),
        ("/delete_devices", json!({ "devices": ["D"], "auth": auth })),
        (
            "/profile/{p5}/{p6}",
            json!({ "displayname": "Alice", "avatar_url": "mxc://a/b", "argument": { "a": 1 } }),
        ),
        ("/account_data/{p7}", json!({ "a": { "b": [1] } })),
        ("/account_data/{p9}", json!({ "a": { "b": [1] } })),
        (
            "/filter",
            json!({
                "event_fields": ["content.body"], "event_format": "client", "presence": filter, "account_data": filter,
                "room": {
                    "rooms": ["!a:b"], "not_rooms": ["!a:b"], "include_leave": true, "ephemeral": filter, "state": filter, "timeline": filter,
                    "account_data": filter,
                },
            }),
        ),
        ("/tags/{p9}", json!({ "order": 0.5 })),
        (
            "/createRoom",
            json!({
                "visibility": "private", "room_alias_name": "argument", "name": "n", "topic": "t", "invite": ["@alice:localhost"],
                "invite_3pid": [{ "id_server": "a", "id_access_token": "b", "medium": "email", "address": "a@b" }],
                "room_version": "12", "creation_content": { "m.federate": false, "type": "m.space", "additional_creators": ["@b:localhost"],
                    "predecessor": { "room_id": "!a", "event_id": "$b" } },
                "initial_state": [{ "type": "m.room.topic", "state_key": "", "content": { "topic": "t" } }], "preset": "private_chat",
                "is_direct": true,
                "power_level_content_override": {
                    "ban": 50, "events": { "m.room.name": 50 }, "events_default": 0, "invite": 0, "kick": 50, "notifications": { "room": 50 },
                    "redact": 50, "state_default": 50, "users": { "@b:localhost": 50 }, "users_default": 0,
                },
            }),
        ),
        (
            "/directory/room/{p6}",
            json!({ "room_id": "!a:b", "servers": ["a"] }),
        ),
        (
            "/directory/list/room/{p7}",
            json!({ "visibility": "public" }),
        ),
        (
            "/publicRooms",
            json!({
                "limit": 5, "since": "s", "filter": { "generic_search_term": "a", "room_types": ["m.space", null] },
                "include_all_networks": true, "third_party_instance_id": "i",
            }),
        ),
        (
            "/send/{p7}/{p8}",
            json!({ "msgtype": "m.text", "body": "b", "m.relates_to": {
            "rel_type": "m.thread", "event_id": "$a", "key": "k", "is_falling_back": true, "m.in_reply_to": { "event_id": "$b" } },
            "m.mentions": { "user_ids": ["@a:b"], "room": true } }),
        ),
        ("/redact/{p7}/{p8}", json!({ "reason": "r" })),
        ("/state/{p7}", json!({ "a": { "b": [1] } })),
        ("/state/{p7}/{p8}", json!({ "a": { "b": [1] } })),
        (
            "/join",
            json!({ "reason": "r", "third_party_signed": { "sender": "@a:b", "mxid": "@a:b", "token": "t",
            "signatures": { "a": { "ed25519:1": "s" } } } }),
        ),
        (
            "/join/{p5}",
            json!({ "reason": "r", "third_party_signed": {} }),
        ),
        ("/knock/{p5}", json!({ "reason": "r" })),
        (
            "/invite",
            json!({ "user_id": "@b:localhost", "reason": "r", "id_server": "a", "id_access_token": "b", "medium": "email",
            "address": "a@b" }),
        ),
        ("/leave", json!({ "reason": "r" })),
        ("/forget", json!({})),
        ("/kick", json!({ "user_id": "@b:localhost", "reason": "r" })),
        ("/ban", json!({ "user_id": "@b:localhost", "reason": "r" })),
        (
            "/unban",
            json!({ "user_id": "@b:localhost", "reason": "r" }),
        ),
        ("/typing/{p7}", json!({ "typing": true, "timeout": 5 })),
        ("/receipt/{p7}/{p8}", json!({ "thread_id": "main" })),
        (
            "/read_markers",
            json!({ "m.fully_read": "$a", "m.read": "$a", "m.read.private": "$a" }),
        ),
        (
            "/presence/{p5}/status",
            json!({ "presence": "online", "status_msg": "s" }),
        ),
        (
            "/pushrules/global/{p6}/{p7}",
            json!({ "pattern": "p", "actions": ["notify", { "set_tweak": "sound", "value": "s" }],
            "conditions": [{ "kind": "event_match", "key": "k", "pattern": "p", "is": "2", "value": 1 }] }),
        ),
        (
            "/pushers/set",
            json!({ "kind": "http", "app_id": "a", "pushkey": "p", "app_display_name": "a", "device_display_name": "d",
            "profile_tag": "t", "lang": "en", "append": false,
            "data": { "url": "https://a.example/_matrix/push/v1/notify", "format": "event_id_only", "own": [1] } }),
        ),
        ("/enabled", json!({ "enabled": true })),
        ("/actions", json!({ "actions": ["notify"] })),
        (
            "/keys/upload",
            json!({
                "device_keys": { "user_id": "@alice:localhost", "device_id": "D", "algorithms": ["a"], "keys": { "ed25519:D": "k" },
                    "signatures": { "@alice:localhost": { "ed25519:D": "s" } } },
                "one_time_keys": { "signed_curve25519:A": { "key": "k", "signatures": { "@a:b": { "ed25519:D": "s" } } } },
                "fallback_keys": { "signed_curve25519:A": { "key": "k", "fallback": true, "signatures": {} } },
            }),
        ),
        (
            "/keys/query",
            json!({ "timeout": 5, "device_keys": { "@alice:localhost": ["D"] } }),
        ),
        (
            "/keys/claim",
            json!({ "timeout": 5, "one_time_keys": { "@alice:localhost": { "D": "signed_curve25519" } } }),
        ),
        (
            "/keys/device_signing/upload",
            json!({ "master_key": { "user_id": "@alice:localhost", "usage": ["master"], "keys": { "ed25519:k": "k" } },
            "self_signing_key": {}, "user_signing_key": {}, "auth": auth }),
        ),
        (
            "/keys/signatures/upload",
            json!({ "@alice:localhost": { "D": { "user_id": "@alice:localhost", "device_id": "D", "keys": { "ed25519:D": "k" },
            "signatures": { "@alice:localhost": { "ed25519:k": "s" } } } } }),
        ),
        (
            "/sendToDevice/{p5}/{p6}",
            json!({ "messages": { "@alice:localhost": { "*": { "a": 1 } } } }),
        ),
        (
            "/room_keys/version",
            json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "k", "signatures": {} } }),
        ),
        (
            "/room_keys/keys",
            json!({ "rooms": { "!a:b": { "sessions": { "s": { "first_message_index": 1, "forwarded_count": 0, "is_verified": false,
            "session_data": { "a": 1 } } } } } }),
        ),
        (
            "/upgrade",
            json!({ "new_version": "no such version", "additional_creators": ["@b:localhost"] }),
        ),
        ("/report/{p7}", json!({ "reason": "r", "score": -1 })),
        ("/report", json!({ "reason": "r" })),
        (
            "/v3/search",
            json!({ "search_categories": { "room_events": {
                "search_term": "hello", "keys": ["content.body"], "filter": filter, "order_by": "recent",
                "event_context": { "before_limit": 1, "after_limit": 1, "include_profile": true }, "include_state": true,
                "groupings": { "group_by": [{ "key": "room_id" }, { "key": "sender" }] },
            } } }),
        ),
        (
            "/user_directory/search",
            json!({ "search_term": "a", "limit": 5 }),
        ),
        (
            "/_synapse/admin/v1/register",
            json!({ "nonce": "n", "username": "u", "password": "p", "admin": true, "user_type": "u",
            "displayname": "d", "mac": "m" }),
        ),
    ]
}
