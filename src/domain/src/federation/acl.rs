//! Which servers a room lets in. <https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls>

use ruma::{ServerName, events::StateEventType};
use serde_json::{Map, Value};

use crate::{
    push::glob,
    rooms::{Reader, RoomError},
    schema::RoomSid,
};

/// The most patterns of a list that are looked at; an event has no room for many more.
const MAX_PATTERNS: usize = 10_000;

/// Whether the room's current state lets a server in. Costs one read, and the length of the list times that of the name.
pub async fn allows(
    reader: &Reader,
    room: RoomSid,
    server: &ServerName,
) -> Result<bool, RoomError> {
    let event = reader
        .state_event(room, &StateEventType::RoomServerAcl, "")
        .await?;
    let Some(event) = event else { return Ok(true) };
    Ok(event
        .pdu
        .content_as()
        .is_ok_and(|content| lets_in(&content, server)))
}

/// Whether a list lets a server in: it is not denied, and it is allowed. Ports do not matter, nor does case.
pub fn lets_in(content: &Map<String, Value>, server: &ServerName) -> bool {
    let literals = content.get("allow_ip_literals").and_then(Value::as_bool);
    if server.is_ip_literal() && literals == Some(false) {
        return false;
    }
    let any = |name: &str| {
        let patterns = content
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        patterns
            .take(MAX_PATTERNS)
            .filter_map(Value::as_str)
            .any(|pattern| glob::matches(pattern, server.host()))
    };
    !any("deny") && any("allow")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn lets(list: Value, server: &str) -> bool {
        let content = list.as_object().unwrap();
        lets_in(content, &ServerName::parse(server).unwrap())
    }

    #[test]
    fn a_list_is_read_as_the_spec_has_it() {
        let all = |deny: &str| json!({ "allow": ["*"], "deny": [deny] });
        assert!(lets(all("evil.example"), "good.example"));
        assert!(!lets(all("evil.example"), "EVIL.example:8448"));
        assert!(!lets(all("*.Evil.example"), "a.evil.example"));
        assert!(lets(all("*.evil.example"), "evil.example"));
        assert!(!lets(all("?vil.example"), "evil.example"));
        assert!(!lets(json!({}), "good.example"), "nobody is allowed");
        assert!(!lets(json!({ "allow": "*" }), "good.example"), "no list");
        assert!(lets(json!({ "allow": ["*"] }), "1.2.3.4"));
        assert!(!lets(
            json!({ "allow": ["*"], "allow_ip_literals": false }),
            "1.2.3.4:5"
        ));
        assert!(!lets(
            json!({ "allow": ["*"], "allow_ip_literals": false }),
            "[::1]"
        ));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it is about real time")]
    fn a_hostile_list_costs_no_more_than_its_length() {
        let pattern = format!("{}b", "a*".repeat(250));
        let list = json!({ "allow": ["*"], "deny": vec![pattern; 120] });
        let name = format!("{}.example", "a".repeat(200));
        let start = std::time::Instant::now();
        assert!(lets(list, &name));
        assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
    }
}
