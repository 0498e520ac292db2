//! What guests may ask: the spec's list, and no other request that is anyone's.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#guest-access>

use http::Method;

use crate::http::error::Error;

/// Methods and paths after `/_matrix/client/{version}`; `*` is one part of a path. A list, not a property of handlers, so that it can be held
/// against the spec's, and so that what is added later is not for guests.
const ALLOWED: &[(&str, &str)] = &[
    ("GET", "/rooms/*/state"),
    ("GET", "/rooms/*/context/*"),
    ("GET", "/rooms/*/event/*"),
    ("GET", "/rooms/*/state/*/*"),
    ("GET", "/rooms/*/state/*"),
    ("GET", "/rooms/*/messages"),
    ("GET", "/rooms/*/members"),
    ("GET", "/rooms/*/initialSync"),
    ("GET", "/sync"),
    ("GET", "/events"),
    ("GET", "/media/download/*/*"),
    ("GET", "/media/download/*/*/*"),
    ("GET", "/media/thumbnail/*/*"),
    ("POST", "/rooms/*/join"),
    ("POST", "/rooms/*/leave"),
    ("PUT", "/rooms/*/send/*/*"),
    ("PUT", "/rooms/*/state/*/*"),
    ("PUT", "/rooms/*/state/*"),
    ("PUT", "/sendToDevice/*/*"),
    ("PUT", "/profile/*/displayname"),
    ("DELETE", "/profile/*/displayname"),
    ("GET", "/devices"),
    ("GET", "/devices/*"),
    ("PUT", "/devices/*"),
    ("GET", "/account/whoami"),
    ("POST", "/keys/upload"),
    ("POST", "/keys/upload/*"),
    ("POST", "/keys/query"),
    ("POST", "/keys/claim"),
    // What needs no token is for guests as well.
    ("GET", "/versions"),
    ("GET", "/room_summary/*"),
];

/// Whether a request is one that guests may make. The path is as it was sent.
///
/// # Errors
/// `M_GUEST_ACCESS_FORBIDDEN`.
pub(super) fn may_ask(method: &Method, path: &str) -> Result<(), Error> {
    let asked = path.strip_prefix("/_matrix/client/").unwrap_or_default();
    // Without a version: /versions.
    let without = format!("/{asked}");
    let with = asked.split_once('/').map(|(_, rest)| format!("/{rest}"));
    let allowed = ALLOWED.iter().any(|(of, pattern)| {
        *of == method.as_str()
            && (fits(pattern, &without) || with.as_ref().is_some_and(|with| fits(pattern, with)))
    });
    if allowed {
        Ok(())
    } else {
        Err(Error::no_guests(
            "guests may not do that: register to do it",
        ))
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    let (mut wanted, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), parts.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(part)) if wanted == part => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_ask_what_the_list_has_in_every_version_and_nothing_near_it() {
        let put = Method::PUT;
        for path in [
            "/_matrix/client/v3/rooms/!a/state/m.room.name/",
            "/_matrix/client/r0/rooms/!a/state/m.room.name",
            "/_matrix/client/v3/profile/@a:b/displayname",
        ] {
            assert!(may_ask(&put, path).is_ok(), "{path}");
        }
        assert!(may_ask(&Method::GET, "/_matrix/client/versions").is_ok());
        for path in [
            "/_matrix/client/v3/profile/@a:b/avatar_url",
            "/_matrix/client/v3/rooms/!a/redact/$b/c",
            "/_matrix/client/v3/rooms/!a/send/b",
            "/_matrix/client/v3/pushrules/global/room/displayname",
            "/_synapse/admin/v1/sync",
            "/sync",
        ] {
            assert!(may_ask(&put, path).is_err(), "{path}");
        }
        assert!(may_ask(&Method::POST, "/_matrix/client/v3/sync").is_err());
    }
}
