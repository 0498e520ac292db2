//! A letter as it is handed to the mail server.

use super::templates::Rendered;
use crate::schema::{MailListRow, MailRow};

/// The longest subject, in characters.
const SUBJECT_CHARACTERS: usize = 200;

/// A letter to one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its Message-ID, with angle brackets. The same each time it is sent.
    pub id: String,
    /// The address, canonical.
    pub to: String,
    /// The subject: one line without control characters.
    pub subject: String,
    /// The content as plain text.
    pub text: String,
    /// The content as HTML.
    pub html: String,
    /// The Message-ID of the letter that it follows: mail programs show them as one conversation.
    pub follows: Option<String>,
    /// The list that it belongs to.
    pub list: Option<List>,
}

/// A list of letters, which people can leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Its name, as in `notifications.example.org`: `List-Id`.
    pub id: String,
    /// The URL that takes one POST to leave it (RFC 8058): `List-Unsubscribe`.
    pub unsubscribe: String,
}

impl Letter {
    /// A letter from what a template gave.
    pub fn new(id: String, to: String, rendered: Rendered) -> Self {
        Self {
            id,
            to,
            subject: one_line(&rendered.subject),
            text: rendered.text,
            html: rendered.html,
            follows: None,
            list: None,
        }
    }

    pub(super) fn of_row(id: String, row: &MailRow) -> Self {
        Self {
            id,
            to: row.to.clone(),
            subject: row.subject.clone(),
            text: row.text.clone(),
            html: row.html.clone(),
            follows: row.follows.clone(),
            list: row.list.as_ref().map(|list| List {
                id: list.id.clone(),
                unsubscribe: list.unsubscribe.clone(),
            }),
        }
    }

    pub(super) fn list_row(&self) -> Option<MailListRow> {
        self.list.as_ref().map(|list| MailListRow {
            id: list.id.clone(),
            unsubscribe: list.unsubscribe.clone(),
        })
    }
}

/// What stands in a header is one line, whatever names people have given themselves and their rooms.
fn one_line(text: &str) -> String {
    let spaced = text.chars().map(|character| {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            ' '
        } else {
            character
        }
    });
    let spaced: String = spaced.take(SUBJECT_CHARACTERS).collect();
    spaced.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_line() {
        for (given, kept) in [
            ("Hello", "Hello"),
            (
                "Hi\r\nBcc: everyone@example.org",
                "Hi  Bcc: everyone@example.org",
            ),
            ("\n\u{2028}Hi\0there\u{85}", "Hi there"),
        ] {
            assert_eq!(one_line(given), kept);
        }
        assert_eq!(one_line(&"é".repeat(1_000)).chars().count(), 200);
    }
}
