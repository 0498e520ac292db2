//! What a registration file says, as plain values, and what of it is refused.
//! <https://spec.matrix.org/v1.19/application-service-api/#registration>

use http::Uri;
use ruma::{ServerName, UserId};
use sha2::{Digest, Sha256};

use super::{Service, hash, namespace::Namespace};

/// The longest id, token, URL and name of a network, in bytes.
pub const MAX_TEXT: usize = 1_000;
/// The longest id, which keys of the store begin with, in bytes.
pub const MAX_ID: usize = 255;
/// The most networks of one service.
pub const MAX_PROTOCOLS: usize = 100;
/// The shortest token, in bytes: whoever has one speaks for every user of the service.
pub const MIN_TOKEN: usize = 16;

/// A registration as it stands in its file.
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// The service's id.
    pub id: String,
    /// Where it is; none if it wants to hear nothing.
    pub url: Option<String>,
    /// What it shows this server.
    pub as_token: String,
    /// What this server shows it.
    pub hs_token: String,
    /// The part of its own user's id before the colon.
    pub sender_localpart: String,
    /// Whether it wants to hear of typing, receipts and presence.
    pub receive_ephemeral: bool,
    /// Whether its users have limits on their requests; they have unless it says no.
    pub rate_limited: Option<bool>,
    /// Networks that it bridges to.
    pub protocols: Vec<String>,
    /// Users that it cares for.
    pub users: Vec<Rule>,
    /// Aliases that it cares for.
    pub aliases: Vec<Rule>,
    /// Rooms that it cares for.
    pub rooms: Vec<Rule>,
}

/// One expression of a namespace.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// The expression.
    pub regex: String,
    /// Whether nobody else may take such names.
    pub exclusive: bool,
}

/// A key of a registration that cannot be, and what to write there instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {remedy}")]
pub struct Fault {
    /// The key.
    pub key: String,
    /// What to write.
    pub remedy: String,
}

impl Fault {
    /// A key and a remedy.
    pub fn new(key: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            remedy: remedy.into(),
        }
    }
}

impl Registration {
    /// The service that this registers with a server.
    ///
    /// # Errors
    /// The first key that makes no sense.
    pub fn register(self, server: &ServerName) -> Result<Service, Fault> {
        if self.id.is_empty() || self.id.len() > MAX_ID {
            return Err(Fault::new("id", format!("write 1 to {MAX_ID} bytes")));
        }
        for (key, token) in [("as_token", &self.as_token), ("hs_token", &self.hs_token)] {
            check_token(key, token)?;
        }
        if self.as_token == self.hs_token {
            let remedy = "write another token than as_token: who has one must not know the other";
            return Err(Fault::new("hs_token", remedy));
        }
        let grammar = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte)
        };
        let local = &self.sender_localpart;
        let sender = UserId::parse(format!("@{local}:{server}"))
            .ok()
            .filter(|user| {
                !local.is_empty() && local.bytes().all(grammar) && user.as_str().len() <= 255
            })
            .ok_or_else(|| {
                let remedy =
                    "write the part of a user id before the colon, of a-z, 0-9 and . _ = - / +";
                Fault::new("sender_localpart", remedy)
            })?;
        if self.protocols.len() > MAX_PROTOCOLS
            || self
                .protocols
                .iter()
                .any(|it| it.is_empty() || it.len() > MAX_ID)
        {
            let remedy = format!("write at most {MAX_PROTOCOLS} names of 1 to {MAX_ID} bytes");
            return Err(Fault::new("protocols", remedy));
        }
        let mut known = Sha256::new();
        for text in [sender.as_str()]
            .into_iter()
            .chain(self.users.iter().map(|rule| &*rule.regex))
        {
            known.update(text);
            known.update([0]);
        }
        Ok(Service {
            url: self.url.map(|url| checked_url(&url)).transpose()?,
            users: compiled("users", &self.users)?,
            aliases: compiled("aliases", &self.aliases)?,
            rooms: compiled("rooms", &self.rooms)?,
            as_token: hash(&self.as_token),
            hs_token: self.hs_token,
            rate_limited: self.rate_limited.unwrap_or(true),
            receive_ephemeral: self.receive_ephemeral,
            protocols: self.protocols,
            fingerprint: known.finalize().into(),
            id: self.id,
            sender,
        })
    }
}

fn check_token(key: &str, token: &str) -> Result<(), Fault> {
    let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if plain && (MIN_TOKEN..=MAX_TEXT).contains(&token.len()) {
        return Ok(());
    }
    let remedy = format!(
        "write a secret of {MIN_TOKEN} to {MAX_TEXT} letters, digits and signs, such as `openssl rand -hex 32` makes"
    );
    Err(Fault::new(key, remedy))
}

/// An address that can be asked, without the slash at its end.
fn checked_url(url: &str) -> Result<String, Fault> {
    let uri = url.parse::<Uri>().ok().filter(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.host().is_some_and(|host| !host.is_empty());
        let user = uri.authority().is_some_and(|it| it.as_str().contains('@'));
        scheme && host && !user && uri.query().is_none() && !url.contains('#')
    });
    if uri.is_none() || url.len() > MAX_TEXT {
        let remedy =
            "write a URL such as http://127.0.0.1:9000, or null if it is to be told nothing";
        return Err(Fault::new("url", remedy));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn compiled(kind: &str, rules: &[Rule]) -> Result<Namespace, Fault> {
    let mut namespace = Namespace::default();
    for (place, rule) in rules.iter().enumerate() {
        namespace.add(&rule.regex, rule.exclusive).map_err(|reason| {
            let key = format!("namespaces.{kind}[{place}].regex");
            let remedy = format!(
                "{reason}. Write a regular expression that matches in linear time, without look-around and back-references"
            );
            Fault::new(key, remedy)
        })?;
    }
    Ok(namespace)
}
