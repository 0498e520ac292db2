//! An event as push rules look at it: its values by dotted path.

use std::{borrow::Cow, sync::Arc};

use ruma::push::ScalarJsonValue;
use serde_json::Value;

use crate::event::pdu::Pdu;

/// An event whose content is read once, however many rulesets it is held against.
#[derive(Debug)]
pub struct Subject<'a> {
    pdu: &'a Pdu,
    /// Most rules ask for it.
    kind: String,
    content: Arc<Value>,
}

impl<'a> Subject<'a> {
    /// Reads an event. Content that is nested too deeply to read has no values.
    pub fn new(pdu: &'a Pdu) -> Self {
        Self::read_before(pdu, Arc::new(pdu.content_as().unwrap_or_default()))
    }

    /// An event whose content was read before.
    pub fn read_before(pdu: &'a Pdu, content: Arc<Value>) -> Self {
        Self {
            pdu,
            kind: pdu.kind.to_string(),
            content,
        }
    }

    /// The event.
    pub fn pdu(&self) -> &Pdu {
        self.pdu
    }

    /// Whether the event says whom it mentions: then the older rules that guess from the text are off.
    pub(super) fn has_mentions(&self) -> bool {
        self.content.get("m.mentions").is_some()
    }

    /// The string at a path. <https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths>
    pub(super) fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        match path {
            "type" => Some(Cow::Borrowed(self.kind.as_str())),
            "sender" => Some(Cow::Borrowed(self.pdu.sender.as_str())),
            "room_id" => Some(Cow::Borrowed(self.pdu.room_id.as_str())),
            "event_id" => Some(Cow::Borrowed(self.pdu.event_id.as_str())),
            "state_key" => self.pdu.state_key.as_deref().map(Cow::Borrowed),
            "redacts" => self
                .pdu
                .redacts
                .as_ref()
                .map(|id| Cow::Borrowed(id.as_str())),
            _ => self.content_at(path)?.as_str().map(Cow::Borrowed),
        }
    }

    /// Whether the value at a path is this scalar.
    pub(super) fn is(&self, path: &str, wanted: &ScalarJsonValue) -> bool {
        match self.content_at(path) {
            Some(value) => equals(value, wanted),
            None => wanted
                .as_str()
                .is_some_and(|wanted| self.text(path).is_some_and(|text| text == wanted)),
        }
    }

    /// Whether the array at a path has this scalar.
    pub(super) fn contains(&self, path: &str, wanted: &ScalarJsonValue) -> bool {
        let array = self.content_at(path).and_then(Value::as_array);
        array.is_some_and(|values| values.iter().any(|value| equals(value, wanted)))
    }

    fn content_at(&self, path: &str) -> Option<&Value> {
        let path = path.strip_prefix("content.")?;
        if !path.contains('\\') {
            // Most paths, and nothing to be copied.
            let mut names = path.split('.');
            return names.try_fold(&*self.content, |value, name| value.get(name));
        }
        split(path)
            .iter()
            .try_fold(&*self.content, |value, name| value.get(name.as_str()))
    }
}

/// Names of a path; a backslash keeps a dot or a backslash in a name.
fn split(path: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        let kept = match character {
            '.' => {
                names.push(String::new());
                continue;
            }
            '\\' => characters
                .next_if(|next| matches!(next, '.' | '\\'))
                .unwrap_or('\\'),
            other => other,
        };
        if let Some(name) = names.last_mut() {
            name.push(kept);
        }
    }
    names
}

fn equals(value: &Value, wanted: &ScalarJsonValue) -> bool {
    match value {
        Value::Null => matches!(wanted, ScalarJsonValue::Null),
        Value::Bool(value) => wanted.as_bool() == Some(*value),
        Value::Number(value) => wanted
            .as_integer()
            .is_some_and(|wanted| value.as_i64() == Some(wanted.into())),
        Value::String(value) => wanted.as_str() == Some(value.as_str()),
        Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn dots_and_backslashes_can_be_escaped() {
        let cases: [(&str, &[&str]); 5] = [
            ("body", &["body"]),
            ("a.b", &["a", "b"]),
            (r"m\.mentions.user_ids", &["m.mentions", "user_ids"]),
            (r"a\\b", &[r"a\b"]),
            (r"a\xb", &[r"a\xb"]),
        ];
        for (path, names) in cases {
            assert_eq!(split(path), names, "{path}");
        }
    }
}
