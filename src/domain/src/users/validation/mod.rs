//! How someone shows that an e-mail address is theirs: a letter with a link, a page with a button, and a session that remembers it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information>. A session has an id, which is known to
//! who asked, a secret that the client made, and a token that only the letter holds (of the last two the store has hashes). A session
//! serves one purpose, once, for a day; a link an hour, or until there is a newer one. Whether an address has an account is told to its
//! owner only, by letter: the answer is the same.

mod link;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use sha2::{Digest, Sha256};
use vatra_store::{Batch, CommitError, Direction, Range};

pub use self::link::origin;
use super::{Users, UsersError};
use crate::{
    clock::Millis,
    mail::{
        Delivery, Letter, Mailer, Urgency,
        address::canonical,
        templates::{Templates, context},
    },
    random,
    schema::{self, EmailPurpose, EmailSessionRow, UserSid},
};

/// How long a session lives, in milliseconds.
const SESSION_MS: Millis = 24 * 3_600_000;
/// How long a link works, in hours.
const LINK_HOURS: u64 = 1;
/// How long a link works, in milliseconds.
const LINK_MS: Millis = LINK_HOURS * 3_600_000;
/// How many sessions that have ended are removed when one is made.
const SWEPT: usize = 100;
/// The characters of a token: 43 hold 256 bits.
const TOKEN_CHARACTERS: usize = 43;
/// The longest secret that a client makes, in bytes.
const LONGEST_SECRET: usize = 255;

/// The page to which letters lead, on this server.
pub const PAGE: &str = "/_matrix/client/unstable/vatra.email/submit_token";

/// A request for a letter.
#[derive(Debug, Clone)]
pub struct Ask {
    /// For what.
    pub purpose: EmailPurpose,
    /// The address, as someone wrote it.
    pub address: String,
    /// The client's secret.
    pub secret: String,
    /// The client's count of letters that it asks for.
    pub attempt: u64,
    /// Where the browser goes once the address is validated.
    pub next_link: Option<String>,
    /// The languages of the person, as in `Accept-Language`.
    pub languages: String,
}

/// Letters that let people show that addresses are theirs.
#[derive(Clone)]
pub struct Validations {
    users: Users,
    mailer: Mailer,
    templates: Arc<Templates>,
    base_url: String,
}

/// A session whose address was validated, as it was read: what it is used for uses it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedEmail {
    key: (u64, String),
    row: EmailSessionRow,
    languages: String,
}

impl ValidatedEmail {
    /// The address, canonical.
    pub fn address(&self) -> &str {
        &self.row.address
    }

    /// The languages of who has shown it, as in `Accept-Language`: those of letters to it.
    #[must_use]
    pub fn speaking(self, languages: &str) -> Self {
        Self {
            languages: languages.to_owned(),
            ..self
        }
    }

    pub(super) fn languages(&self) -> &str {
        &self.languages
    }

    pub(super) fn validated(&self) -> Millis {
        self.row.validated.unwrap_or_default()
    }

    /// The session can be used by no other batch.
    pub(super) fn use_up(&self, batch: &mut Batch) {
        batch.assert_equals(&schema::EMAIL_SESSIONS, &self.key, &self.row);
        batch.delete(&schema::EMAIL_SESSIONS, &self.key);
        batch.delete(&schema::EMAIL_SESSIONS_ASKED, &self.row.asked);
    }
}

impl Validations {
    /// Letters whose links begin with `base_url`, the URL that clients reach this server at.
    pub fn new(users: Users, mailer: Mailer, templates: Arc<Templates>, base_url: &str) -> Self {
        Self {
            users,
            mailer,
            templates,
            base_url: base_url.trim_end_matches('/').to_owned(),
        }
    }

    /// The templates of letters and pages.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Sends a letter, unless this attempt has had one, and gives the session's id. Durable when it returns.
    ///
    /// # Errors
    /// [`UsersError::BadEmail`], [`UsersError::BadValidation`], the store's.
    pub async fn request(&self, ask: Ask) -> Result<String, UsersError> {
        let address = canonical(&ask.address).ok_or(UsersError::BadEmail)?;
        if !is_secret(&ask.secret) {
            return Err(UsersError::BadValidation(
                "client_secret has 1 to 255 of the characters 0-9 a-z A-Z . = _ -",
            ));
        }
        if ask
            .next_link
            .as_deref()
            .is_some_and(|link| origin(link).is_none())
        {
            return Err(UsersError::BadValidation(
                "next_link is no http or https URL",
            ));
        }
        loop {
            match self.try_request(&ask, &address).await {
                // The same client has asked twice at once.
                Err(UsersError::Commit(CommitError::AssertFailed)) => {}
                other => return other,
            }
        }
    }

    async fn try_request(&self, ask: &Ask, address: &str) -> Result<String, UsersError> {
        let inner = &self.users.inner;
        let (now, view) = (self.users.now(), inner.store.view());
        let asked = asked(ask.purpose, &ask.secret, address);
        let mut batch = Batch::new();
        // Of two requests at once the second finds the session of the first.
        let known = match view.get(&schema::EMAIL_SESSIONS_ASKED, &asked).await? {
            Some(sid) => {
                batch.assert_equals(&schema::EMAIL_SESSIONS_ASKED, &asked, &sid);
                self.users.email_session(&sid).await?
            }
            None => {
                batch.assert_absent(&schema::EMAIL_SESSIONS_ASKED, &asked);
                None
            }
        };
        let key = match &known {
            Some((key, row)) => {
                if ask.attempt <= row.attempt || row.validated.is_some() {
                    return Ok(key.1.clone());
                }
                batch.assert_equals(&schema::EMAIL_SESSIONS, key, row);
                key.clone()
            }
            None => {
                let expires = now.saturating_add(SESSION_MS);
                let unique = random::token(&*inner.random, 22);
                (expires, format!("{expires}.{unique}"))
            }
        };
        let owner = view.get(&schema::EMAIL_OWNERS, &address.to_owned()).await?;
        let token = random::token(&*inner.random, TOKEN_CHARACTERS);
        let kind = kind(ask.purpose, owner);
        let row = EmailSessionRow {
            purpose: ask.purpose,
            address: address.to_owned(),
            asked,
            secret: hash(&ask.secret),
            attempt: ask.attempt,
            token: kind.filter(|kind| kind.holds_token).map(|_| hash(&token)),
            token_until: now.saturating_add(LINK_MS),
            validated: None,
            next_link: ask.next_link.clone(),
        };
        batch.put(&schema::EMAIL_SESSIONS, &key, &row);
        batch.put(&schema::EMAIL_SESSIONS_ASKED, &asked, &key.1);
        if let Some(kind) = kind {
            let link = format!("{}{PAGE}?sid={}&token={token}", self.base_url, key.1);
            self.write_letter(&mut batch, kind.letter, address, &link, &ask.languages)?;
        }
        self.sweep(&mut batch, now).await?;
        inner.store.write(batch).await?;
        Ok(key.1)
    }

    fn write_letter(
        &self,
        batch: &mut Batch,
        name: &str,
        address: &str,
        link: &str,
        languages: &str,
    ) -> Result<(), UsersError> {
        let language = self.templates.language(languages);
        let values = context! {
            server => self.users.server_name().as_str(), address => address, link => link,
            hours => LINK_HOURS, language => language,
        };
        let content = self.templates.letter(language, name, values)?;
        let letter = Letter::new(self.mailer.message_id(), address.to_owned(), content);
        let now = self.users.now();
        let delivery = Delivery {
            urgency: Urgency::Urgent,
            due: now,
            give_up: now.saturating_add(LINK_MS),
        };
        self.mailer.queue(batch, &letter, delivery);
        Ok(())
    }

    /// Removes sessions that have ended.
    async fn sweep(&self, batch: &mut Batch, now: Millis) -> Result<(), UsersError> {
        let range = Range::all().before(&(now, String::new()));
        let view = self.users.inner.store.view();
        let ended = view
            .range(&schema::EMAIL_SESSIONS, range, Direction::Forward, SWEPT)
            .await?;
        for (key, row) in ended {
            batch.delete(&schema::EMAIL_SESSIONS, &key);
            let newer = view.get(&schema::EMAIL_SESSIONS_ASKED, &row.asked).await?;
            if newer.is_some_and(|sid| sid == key.1) {
                batch.delete(&schema::EMAIL_SESSIONS_ASKED, &row.asked);
            }
        }
        Ok(())
    }
}

/// A kind of letter.
#[derive(Debug, Clone, Copy)]
struct Kind {
    letter: &'static str,
    holds_token: bool,
}

/// What the owner of an address is written; nothing if someone asks for a new password of an account that is not there.
fn kind(purpose: EmailPurpose, owner: Option<UserSid>) -> Option<Kind> {
    let with_token = |letter| Kind {
        letter,
        holds_token: true,
    };
    match (purpose, owner) {
        (EmailPurpose::Register, None) => Some(with_token("register")),
        (EmailPurpose::Add, None) => Some(with_token("add_address")),
        (EmailPurpose::Password, Some(_)) => Some(with_token("reset_password")),
        (EmailPurpose::Register | EmailPurpose::Add, Some(_)) => Some(Kind {
            letter: "address_taken",
            holds_token: false,
        }),
        (EmailPurpose::Password, None) => None,
    }
}

/// The grammar of <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registeremailrequesttoken>.
fn is_secret(secret: &str) -> bool {
    (1..=LONGEST_SECRET).contains(&secret.len())
        && secret
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".=_-".contains(&byte))
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// No secret and no address holds a line's end.
fn asked(purpose: EmailPurpose, secret: &str, address: &str) -> [u8; 32] {
    hash(&format!("{purpose:?}\n{secret}\n{address}"))
}
