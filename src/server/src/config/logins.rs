//! Settings of how people log in, and of what they show before they register.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A service that says whether who registers is a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recaptcha {
    /// What clients show the puzzle with; empty: nobody is asked.
    pub site_key: String,
    /// What answers are judged with.
    pub secret: String,
    /// Where answers are judged.
    pub verify_url: String,
}

impl Default for Recaptcha {
    fn default() -> Self {
        Self {
            site_key: String::new(),
            secret: String::new(),
            verify_url: "https://www.google.com/recaptcha/api/siteverify".to_owned(),
        }
    }
}

/// A document that whoever registers must accept, in one language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// Which document.
    pub id: String,
    /// Which version of it.
    pub version: String,
    /// In which language, such as `en`.
    pub language: String,
    /// What it is called in that language.
    pub name: String,
    /// Where it is.
    pub url: String,
}

/// Logins by JSON web tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// The secret that tokens are signed with; empty for none.
    pub secret: String,
    /// The public key (PEM) of who signs them; empty for none. Without either nobody logs in so.
    pub public_key_file: PathBuf,
    /// The algorithm, by the name that tokens have for it.
    pub algorithm: String,
    /// What tokens say in `iss`; empty: anything.
    pub issuer: String,
    /// One of these must be in `aud`; empty: tokens have no `aud`.
    pub audiences: Vec<String>,
    /// The claim that holds the local part of the user id.
    pub subject_claim: String,
    /// Whether who has no account yet gets one.
    pub create_accounts: bool,
}

/// Single sign-on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sso {
    /// URLs of clients that get their token without that anyone is asked.
    pub trusted_clients: Vec<String>,
    /// Connects to identity providers on this machine too, also without TLS.
    pub allow_loopback: bool,
    /// Networks that identity providers may be in although they are not public.
    pub allowed_networks: Vec<String>,
    /// Certificates of authorities (PEM) that are trusted beside the public ones; empty for none.
    pub trusted_ca: PathBuf,
    /// The identity providers.
    pub providers: Vec<SsoProvider>,
}

/// An identity provider that speaks OpenID Connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SsoProvider {
    /// What this server knows it by. Accounts belong to it: it never changes.
    pub id: String,
    /// The name that people know it by.
    pub name: String,
    /// Its issuer URL.
    pub issuer: String,
    /// What it knows this server by.
    pub client_id: String,
    /// The secret that it shares with this server; empty for none.
    pub client_secret: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The `mxc://` URI of a picture; empty for none.
    pub icon: String,
    /// The brand, by which clients may know how it looks; empty for none.
    pub brand: String,
    /// The name of new accounts, from what the provider says; empty: their owners choose.
    pub localpart: String,
    /// Whether who has no account yet gets one.
    pub create_accounts: bool,
}

impl Default for SsoProvider {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            issuer: String::new(),
            client_id: String::new(),
            client_secret: String::new(),
            scopes: vec!["profile".to_owned()],
            icon: String::new(),
            brand: String::new(),
            localpart: String::new(),
            create_accounts: true,
        }
    }
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret: String::new(),
            public_key_file: PathBuf::new(),
            algorithm: "HS256".to_owned(),
            issuer: String::new(),
            audiences: Vec::new(),
            subject_claim: "sub".to_owned(),
            create_accounts: true,
        }
    }
}
