//! Settings: defaults, then a file, then the environment (`VATRA__SECTION__KEY`).
//!
//! One struct per section; unknown keys are refused, and what is read is checked once, with messages that name the file,
//! the key and the remedy. `config/default.toml` lists every key with its default; a test holds the two equal.
//! To add a setting: a field here, a line there, a check in `check` if not every value makes sense.

pub(crate) mod appservices;
mod check;
mod logins;
mod read;
mod s3;
mod url_preview;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ruma::RoomVersionId;
use serde::{Deserialize, Deserializer, Serialize, de::IntoDeserializer};

pub use self::{
    logins::{Jwt, Recaptcha, Sso, SsoProvider, Terms},
    read::{ConfigError, Origin},
    s3::S3,
    url_preview::UrlPreview,
};

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The part of user ids after the colon. Never change it once users exist.
    pub server_name: String,
    /// Where the store and the signing key are.
    pub data_dir: PathBuf,
    /// Where pictures and files are.
    pub media_dir: PathBuf,
    /// The client-server API.
    pub client: Client,
    /// The server-server API.
    pub federation: Federation,
    /// Who may register.
    pub registration: Registration,
    /// Logins by JSON web tokens.
    pub jwt: Jwt,
    /// Single sign-on.
    pub sso: Sso,
    /// How rooms are made.
    pub rooms: Rooms,
    /// Limits on requests.
    pub rate_limits: RateLimits,
    /// Online, away, offline.
    pub presence: Presence,
    /// The store.
    pub storage: Storage,
    /// Pictures and files.
    pub media: Media,
    /// Previews of URLs.
    pub url_preview: UrlPreview,
    /// Push gateways.
    pub push: Push,
    /// The web client.
    pub web_client: WebClient,
    /// Full-text search.
    pub search: Search,
    /// How long messages are kept.
    pub retention: Retention,
    /// Voice and video calls.
    pub turn: Turn,
    /// The mail server that sends this server's mail.
    pub smtp: Smtp,
    /// What mail looks like.
    pub email: Email,
    /// What the server says to its users itself.
    pub server_notices: ServerNotices,
    /// Figures for operators.
    pub metrics: Metrics,
    /// What is logged.
    pub log: Log,
    /// Whom users can turn to.
    pub support: Support,
    /// Bridges and bots.
    pub appservices: Appservices,
    /// Where they come from, for messages.
    #[serde(skip)]
    pub origin: Origin,
}

/// The client-server API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The URL clients reach this server at, for `/.well-known/matrix/client`; empty: none is served.
    pub base_url: String,
    /// Addresses and networks of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    /// The largest request that is not an upload, in bytes.
    pub max_request_bytes: usize,
}

/// The server-server API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Federation {
    /// Whether this server speaks with others. Opens the second listener, which like the first serves every API, over TLS
    /// when a certificate is set.
    pub enabled: bool,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The certificate chain (PEM); empty for none.
    pub tls_cert: PathBuf,
    /// Its private key (PEM); empty for none.
    pub tls_key: PathBuf,
    /// Where other servers are told to connect, for `/.well-known/matrix/server`; empty: none is served.
    pub delegate: String,
    /// Certificates of authorities (PEM) that are trusted beside the public ones; empty for none.
    pub trusted_ca: PathBuf,
    /// Connects to other servers on this machine too.
    pub allow_loopback: bool,
    /// Networks that other servers may be in although they are not public.
    pub allowed_networks: Vec<String>,
    /// Servers that are asked for the keys of servers that cannot be reached. They are believed.
    pub trusted_key_servers: Vec<String>,
    /// Other servers are told what users call their devices.
    pub share_device_names: bool,
}

/// Who may register.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registration {
    /// Whether anyone may.
    pub open: bool,
    /// Who knows this may register anyone at `/_synapse/admin/v1/register`; empty: nobody.
    pub shared_secret: String,
    /// Whoever registers must know this; empty: nothing to know.
    pub token: String,
    /// Whoever registers must show that an e-mail address is theirs.
    pub require_email: bool,
    /// Whether people may look around without registering.
    pub guests: bool,
    /// A service that says whether who registers is a person.
    pub recaptcha: Recaptcha,
    /// What whoever registers must accept.
    pub terms: Vec<Terms>,
    /// Allows open registration without a token on an address that is not loopback.
    pub allow_open_on_public_address: bool,
}

/// How rooms are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rooms {
    /// The version of rooms whose makers ask for none.
    pub default_version: RoomVersionId,
}

/// Limits on requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Whether there are any.
    pub enabled: bool,
}

/// Presence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Presence {
    /// Whether people see who is online.
    pub enabled: bool,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// `synced`: what is acknowledged survives a power cut. `relaxed`: it survives the end of the process.
    #[serde(deserialize_with = "word")]
    pub durability: Durability,
    /// Memory for the block cache, memtables and the caches above, in bytes.
    pub memory_budget_bytes: u64,
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Once it survives a power cut.
    Synced,
    /// Once it survives the end of the process.
    Relaxed,
}

/// Pictures and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// The largest upload, in bytes.
    pub max_upload_bytes: u64,
    /// Serves media without a token at the old `/_matrix/media/v3` paths.
    pub legacy_unauthenticated: bool,
    /// How many bytes the media of one user may have. 0: any.
    pub max_bytes_per_user: u64,
    /// How long media of other servers is kept after it was last read, in seconds. 0: for good.
    pub remote_max_age_s: u64,
    /// How many bytes of it are kept; what was read last stays. 0: all.
    pub remote_max_bytes: u64,
    /// How long media of this server's users is kept after it was last read, in seconds. 0: for good.
    pub local_max_age_s: u64,
    /// How long media is kept of which all that has shown it is redacted or expired, in seconds. 0: for good.
    pub redacted_max_age_s: u64,
    /// How often that is looked for, in seconds.
    pub purge_interval_s: u64,
    /// Where they are kept.
    #[serde(deserialize_with = "word")]
    pub backend: MediaBackend,
    /// The service that keeps them, or that they can be moved to.
    pub s3: S3,
}

/// Where pictures and files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaBackend {
    /// In `media_dir`.
    Disk,
    /// In a bucket of a service with the interface of Amazon's S3.
    S3,
}

/// How push gateways are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Push {
    /// Connects to gateways on this machine too.
    pub allow_loopback: bool,
    /// Networks that gateways may be in although they are not public.
    pub allowed_networks: Vec<String>,
}

impl Push {
    /// Whether gateways may be in a network of the operator's own, where they need no TLS.
    pub fn reaches_own_networks(&self) -> bool {
        self.allow_loopback || !self.allowed_networks.is_empty()
    }
}

/// The web client at `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebClient {
    /// Whether one is served.
    pub enabled: bool,
    /// The folder of another client than the one that is part of this program; empty: that one.
    pub path: PathBuf,
}

/// Full-text search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    /// Whether people can search what was said in rooms that are not encrypted. The index is kept in `data_dir`.
    pub enabled: bool,
}

/// How long messages are kept: `m.room.retention` of rooms, within bounds of the server's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Whether messages that are too old are emptied.
    pub enabled: bool,
    /// How long messages are kept in rooms that say nothing of it, in seconds; 0: for good.
    pub default_max_lifetime_s: u64,
    /// How long they are kept at least, whatever a room says, in seconds; 0: no bound.
    pub allowed_min_lifetime_s: u64,
    /// How long they are kept at most in rooms with a policy, in seconds; 0: no bound.
    pub allowed_max_lifetime_s: u64,
    /// How often old messages are looked for, in seconds.
    pub interval_s: u64,
}

/// A TURN server, which relays calls between those who cannot reach each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// Its URIs; empty: there is none.
    pub uris: Vec<String>,
    /// The secret that it shares with this server, from which each user's credentials are made; empty: name and password.
    pub shared_secret: String,
    /// A name for everyone.
    pub username: String,
    /// A password for everyone.
    pub password: String,
    /// How long credentials hold, in seconds.
    pub ttl_s: u64,
}

/// The mail server that sends this server's mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Smtp {
    /// Its name or address; empty: no mail is sent.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name to log in with; empty: no login.
    pub username: String,
    /// The password.
    pub password: String,
    /// How the connection is secured.
    #[serde(deserialize_with = "word")]
    pub tls: SmtpTls,
    /// The sender, with a name or without.
    pub from: String,
    /// Certificates of authorities (PEM) that are trusted beside the public ones; empty for none.
    pub trusted_ca: PathBuf,
    /// The most letters sent within an hour.
    pub max_mails_per_hour: usize,
}

/// How a connection to a mail server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Not at all.
    None,
    /// By STARTTLS, without which nothing is sent.
    Starttls,
    /// From its first byte.
    Tls,
}

/// What mail looks like, and when people who are away get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Email {
    /// A folder with templates of your own; empty: none.
    pub templates_dir: PathBuf,
    /// How long something is unread, and its reader away, before they are written to, in seconds.
    pub notification_delay_s: u64,
    /// Whether the first address of an account is written to, unless its owner says otherwise.
    pub notify_new_accounts: bool,
}

/// What the server says to its users itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerNotices {
    /// The local part of the account that speaks; empty: there are none.
    pub localpart: String,
    /// What it, and the rooms it speaks in, are called.
    pub display_name: String,
}

/// Figures for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address and port of the metrics page; empty: none.
    pub listen: String,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Which lines, as in `info` or `info,vatra=debug`.
    pub filter: String,
    /// Lines as JSON.
    pub json: bool,
}

/// Bridges and bots: application services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Appservices {
    /// Their registrations (YAML).
    pub files: Vec<PathBuf>,
}

/// Whom users can turn to: `/.well-known/matrix/support`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Support {
    /// A Matrix user id; empty: none.
    pub admin_matrix_id: String,
    /// An e-mail address; empty: none.
    pub admin_email: String,
    /// A page; empty: none.
    pub page: String,
}

/// One of a few words, which an error lists.
fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(source)?.into_deserializer())
}

/// A path, unless it is empty, which stands for none.
pub(crate) fn set(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_name: "localhost".to_owned(),
            data_dir: "./data".into(),
            media_dir: "./data/media".into(),
            client: Client::default(),
            federation: Federation::default(),
            registration: Registration::default(),
            rate_limits: RateLimits { enabled: true },
            presence: Presence { enabled: true },
            jwt: Jwt::default(),
            sso: Sso::default(),
            rooms: Rooms {
                default_version: RoomVersionId::V12,
            },
            storage: Storage {
                durability: Durability::Synced,
                memory_budget_bytes: 256 << 20,
            },
            media: Media {
                max_upload_bytes: 50 << 20,
                legacy_unauthenticated: false,
                max_bytes_per_user: 0,
                remote_max_age_s: 0,
                remote_max_bytes: 0,
                local_max_age_s: 0,
                redacted_max_age_s: 604_800,
                purge_interval_s: 3_600,
                backend: MediaBackend::Disk,
                s3: S3::default(),
            },
            url_preview: UrlPreview::default(),
            push: Push::default(),
            web_client: WebClient {
                enabled: true,
                path: PathBuf::new(),
            },
            search: Search { enabled: true },
            retention: Retention {
                enabled: false,
                default_max_lifetime_s: 0,
                allowed_min_lifetime_s: 86_400,
                allowed_max_lifetime_s: 0,
                interval_s: 3_600,
            },
            turn: Turn {
                uris: Vec::new(),
                shared_secret: String::new(),
                username: String::new(),
                password: String::new(),
                ttl_s: 86_400,
            },
            smtp: Smtp {
                host: String::new(),
                port: 587,
                username: String::new(),
                password: String::new(),
                tls: SmtpTls::Starttls,
                from: String::new(),
                trusted_ca: PathBuf::new(),
                max_mails_per_hour: 1_000,
            },
            email: Email {
                templates_dir: PathBuf::new(),
                notification_delay_s: 600,
                notify_new_accounts: true,
            },
            server_notices: ServerNotices {
                localpart: String::new(),
                display_name: "Server notices".to_owned(),
            },
            metrics: Metrics {
                listen: String::new(),
            },
            log: Log {
                filter: "info,ruma_state_res=warn".to_owned(),
                json: false,
            },
            support: Support::default(),
            appservices: Appservices::default(),
            origin: Origin::default(),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8008)),
            base_url: String::new(),
            trusted_proxies: Vec::new(),
            max_request_bytes: 1 << 20,
        }
    }
}

impl Default for Federation {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: SocketAddr::from(([127, 0, 0, 1], 8448)),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            delegate: String::new(),
            trusted_ca: PathBuf::new(),
            allow_loopback: false,
            allowed_networks: Vec::new(),
            trusted_key_servers: Vec::new(),
            share_device_names: false,
        }
    }
}

macro_rules! default_section {
    ($($section:ident => $field:ident),* $(,)?) => {$(
        impl Default for $section {
            fn default() -> Self {
                Config::default().$field
            }
        }
    )*};
}
default_section!(RateLimits => rate_limits, Presence => presence, Rooms => rooms, Storage => storage, Media => media, WebClient => web_client, Search => search, Retention => retention, Turn => turn, Smtp => smtp, Email => email, ServerNotices => server_notices, Metrics => metrics, Log => log);

impl Config {
    /// What runs without a file: for trying it out, on this machine only.
    pub fn try_it() -> Self {
        Self {
            registration: Registration {
                open: true,
                ..Registration::default()
            },
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
