//! Whether settings make sense, and how to say that they do not.
//!
//! What is set is looked at even where another setting makes it idle: a certificate that cannot be read is told today, not on the
//! day federation is turned on.

use std::{collections::BTreeSet, net::SocketAddr};

use http::{Uri, uri::Scheme};
use ruma::{ServerName, UserId};
use tracing_subscriber::EnvFilter;
use vatra_domain::{flows::create_room, users::validation};

use super::{Client, Config, Federation, Retention, Support, Terms, Turn, set};
use crate::{
    captcha,
    http::address::Proxies,
    jwt::Jwt,
    listen,
    outbound::{dial, mail::mailbox, policy::Network},
    sso,
};

/// The smallest limit on requests that lets an event through, which may have 65,536 bytes.
const LEAST_REQUEST: usize = 65_536;
/// Below it RocksDB has no room to work in.
const LEAST_MEMORY: u64 = 32 << 20;

/// The longest time before people are written to, in seconds.
const LONGEST_DELAY_S: u64 = 604_800;

/// The shortest time between two rounds through all rooms, in seconds.
const LEAST_INTERVAL_S: u64 = 60;

pub(super) const NETWORKS: &str = "write networks such as 10.0.0.0/8 or fd00::/8";

/// A key, and what to write there instead.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) key: &'static str,
    pub(super) remedy: String,
}

type Checked = Result<(), Refusal>;

fn refuse(key: &'static str, remedy: impl Into<String>) -> Checked {
    let remedy = remedy.into();
    Err(Refusal { key, remedy })
}

impl Config {
    pub(super) fn check(&self) -> Checked {
        if ServerName::parse(&self.server_name).is_err() {
            return refuse("server_name", "write a host name such as example.org");
        }
        self.check_folders()?;
        client(&self.client)?;
        federation(&self.federation)?;
        self.check_registration()?;
        if let Err((key, remedy)) = Jwt::build(self) {
            return refuse(key, remedy);
        }
        if let Err((key, remedy)) = sso::check(self) {
            return refuse(key, remedy);
        }
        if let Err(fault) = dial::authorities(set(&self.sso.trusted_ca)) {
            let remedy = format!("{fault}: write the path of a readable PEM file");
            return refuse("sso.trusted_ca", remedy);
        }
        if let Some((key, remedy)) = captcha::fault(self) {
            return refuse(key, remedy);
        }
        self.check_mail()?;
        retention(&self.retention)?;
        turn(&self.turn)?;
        support(&self.support)?;
        self.check_web_client()?;
        self.check_appservices()?;
        self.check_server_notices()?;
        if !create_room::is_known(&self.rooms.default_version) {
            return refuse(
                "rooms.default_version",
                "write a room version from \"1\" to \"12\"; \"12\" is the newest",
            );
        }
        if !self.metrics.listen.is_empty() && self.metrics.listen.parse::<SocketAddr>().is_err() {
            return refuse(
                "metrics.listen",
                "write an address and a port, such as 127.0.0.1:9009, or leave it empty",
            );
        }
        if self.storage.memory_budget_bytes < LEAST_MEMORY {
            let remedy = format!("give it at least {LEAST_MEMORY} (32 MiB)");
            return refuse("storage.memory_budget_bytes", remedy);
        }
        if self.media.max_upload_bytes == 0 {
            return refuse(
                "media.max_upload_bytes",
                "write a number of bytes, such as 52428800 (50 MiB)",
            );
        }
        if let Some((key, remedy)) = self.url_preview.fault() {
            return refuse(key, remedy);
        }
        if self.media.purge_interval_s < LEAST_INTERVAL_S {
            let remedy = format!("write a number of seconds, at least {LEAST_INTERVAL_S}");
            return refuse("media.purge_interval_s", remedy);
        }
        if let Some((key, remedy)) = super::s3::fault(&self.media) {
            return refuse(key, remedy);
        }
        let no_network = |network: &String| network.parse::<Network>().is_err();
        if self.push.allowed_networks.iter().any(no_network) {
            return refuse("push.allowed_networks", NETWORKS);
        }
        if let Err(error) = EnvFilter::try_new(&self.log.filter) {
            let remedy = format!("{error}: write something such as \"info,vatra=debug\"");
            return refuse("log.filter", remedy);
        }
        Ok(())
    }

    fn check_folders(&self) -> Checked {
        if set(&self.data_dir).is_none() {
            return refuse("data_dir", "write a folder such as /var/lib/vatra");
        }
        if set(&self.media_dir).is_none() {
            return refuse("media_dir", "write a folder such as /var/lib/vatra/media");
        }
        let deleting = ["store", "search"].map(|folder| self.data_dir.join(folder));
        if deleting.iter().any(|it| self.media_dir.starts_with(it)) {
            return refuse(
                "media_dir",
                "write a folder of its own: the store and the search index delete what they do not know in their folders",
            );
        }
        Ok(())
    }

    fn check_web_client(&self) -> Checked {
        match set(&self.web_client.path) {
            Some(folder) if !folder.join("index.html").is_file() => refuse(
                "web_client.path",
                "write a folder that holds a web client's index.html, or leave it empty",
            ),
            _ => Ok(()),
        }
    }

    fn check_appservices(&self) -> Checked {
        let Ok(name) = ServerName::parse(&self.server_name) else {
            return Ok(());
        };
        match super::appservices::services(&self.appservices.files, &name) {
            Ok(_) => Ok(()),
            Err(text) => refuse("appservices.files", text),
        }
    }

    fn check_server_notices(&self) -> Checked {
        let localpart = &self.server_notices.localpart;
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._=-/+".contains(&byte)
        };
        let whole = format!("@{localpart}:{}", self.server_name);
        if !localpart.bytes().all(allowed) || (!localpart.is_empty() && whole.len() > 255) {
            return refuse(
                "server_notices.localpart",
                "write a user name such as server, or leave it empty",
            );
        }
        if self.server_notices.display_name.is_empty() {
            return refuse(
                "server_notices.display_name",
                "write what the account is called, such as Server notices",
            );
        }
        Ok(())
    }

    fn check_registration(&self) -> Checked {
        let registration = &self.registration;
        let open = registration.open && registration.token.is_empty();
        // Both listeners serve every API.
        let public = !self.client.listen.ip().is_loopback()
            || (self.federation.enabled && !self.federation.listen.ip().is_loopback());
        if open && public && !registration.allow_open_on_public_address {
            return refuse(
                "registration.open",
                "anyone who reaches this address could register. Set registration.token, or set \
                 registration.allow_open_on_public_address = true if that is what you want",
            );
        }
        let languages: BTreeSet<_> = registration
            .terms
            .iter()
            .map(|terms| (&terms.id, &terms.language))
            .collect();
        let unfit = |terms: &Terms| {
            let plain = |text: &str| {
                !text.is_empty()
                    && text
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
            };
            !plain(&terms.id)
                || !plain(&terms.language)
                || terms.language == "version"
                || terms.version.is_empty()
                || terms.name.is_empty()
                || !is_page(&terms.url)
        };
        if registration.terms.iter().any(unfit) || languages.len() < registration.terms.len() {
            return refuse(
                "registration.terms",
                "write for each document, once for each language, an id and a language of letters, digits and - _ ., a version, a name, and a URL",
            );
        }
        Ok(())
    }

    fn check_mail(&self) -> Checked {
        let smtp = &self.smtp;
        if !(1..=LONGEST_DELAY_S).contains(&self.email.notification_delay_s) {
            let remedy = "write how many seconds something stays unread before its reader gets mail: 1 to 604800 (a week)";
            return refuse("email.notification_delay_s", remedy);
        }
        if smtp.host.is_empty() {
            if self.registration.require_email {
                let remedy =
                    "nobody could register: set smtp.host, so that mail is sent, or leave it false";
                return refuse("registration.require_email", remedy);
            }
            return Ok(());
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if !smtp.host.bytes().all(fits) {
            let remedy = "write a host name such as mail.example.org, or an address";
            return refuse("smtp.host", remedy);
        }
        if smtp.port == 0 {
            let remedy = "write the mail server's port: 587 for starttls, 465 for tls";
            return refuse("smtp.port", remedy);
        }
        if mailbox(&smtp.from).is_none() {
            let remedy = "write the address that mail comes from, such as matrix@example.org or Matrix <matrix@example.org>";
            return refuse("smtp.from", remedy);
        }
        if smtp.username.is_empty() != smtp.password.is_empty() {
            let remedy = "set both smtp.username and smtp.password, or neither";
            return refuse("smtp.password", remedy);
        }
        if smtp.max_mails_per_hour == 0 {
            let remedy = "let at least 1 be sent; leave smtp.host empty to send none";
            return refuse("smtp.max_mails_per_hour", remedy);
        }
        if let Err(fault) = dial::authorities(set(&smtp.trusted_ca)) {
            let remedy = format!("{fault}: write the path of a readable PEM file");
            return refuse("smtp.trusted_ca", remedy);
        }
        if validation::origin(&self.client.base_url).is_none() {
            let remedy = "letters hold links: write the URL that clients reach this server at, such as https://matrix.example.org";
            return refuse("client.base_url", remedy);
        }
        Ok(())
    }
}

fn client(client: &Client) -> Checked {
    if !client.base_url.is_empty() && !is_page(&client.base_url) {
        return refuse(
            "client.base_url",
            "write a URL such as https://matrix.example.org",
        );
    }
    if let Err(text) = Proxies::read(&client.trusted_proxies) {
        let remedy = format!(
            "{text} is neither an address nor a network: write one such as 127.0.0.1 or 10.0.0.0/8"
        );
        return refuse("client.trusted_proxies", remedy);
    }
    if client.max_request_bytes < LEAST_REQUEST {
        let remedy = format!("give it at least {LEAST_REQUEST}, the size of the largest event");
        return refuse("client.max_request_bytes", remedy);
    }
    Ok(())
}

fn federation(federation: &Federation) -> Checked {
    let [cert, key] = [&federation.tls_cert, &federation.tls_key].map(|file| file.as_path());
    if set(cert).is_some() != set(key).is_some() {
        return refuse(
            "federation.tls_key",
            "set both federation.tls_cert and federation.tls_key, or neither",
        );
    }
    if set(cert).is_some()
        && let Err(fault) = listen::tls(cert, key)
    {
        let remedy = format!("{fault}: write the path of a readable PEM file");
        return refuse(fault.key(), remedy);
    }
    if let Err(fault) = dial::authorities(set(&federation.trusted_ca)) {
        let remedy = format!("{fault}: write the path of a readable PEM file");
        return refuse("federation.trusted_ca", remedy);
    }
    let no_network = |network: &String| network.parse::<Network>().is_err();
    if federation.allowed_networks.iter().any(no_network) {
        return refuse("federation.allowed_networks", NETWORKS);
    }
    let no_server = |name: &String| ServerName::parse(name).is_err();
    if federation.trusted_key_servers.iter().any(no_server) {
        return refuse(
            "federation.trusted_key_servers",
            "write names of servers such as matrix.org",
        );
    }
    if !federation.delegate.is_empty() && no_server(&federation.delegate) {
        return refuse(
            "federation.delegate",
            "write a host name, with a port if it is not 8448, such as matrix.example.org:443",
        );
    }
    Ok(())
}

fn retention(retention: &Retention) -> Checked {
    let (least, most) = (
        retention.allowed_min_lifetime_s,
        retention.allowed_max_lifetime_s,
    );
    if most != 0 && least > most {
        return refuse(
            "retention.allowed_min_lifetime_s",
            "write no more than retention.allowed_max_lifetime_s, or 0 for no bound",
        );
    }
    let default = retention.default_max_lifetime_s;
    if default != 0 && default < least {
        return refuse(
            "retention.default_max_lifetime_s",
            "write no less than retention.allowed_min_lifetime_s, or 0 to keep messages for good",
        );
    }
    if retention.interval_s < LEAST_INTERVAL_S {
        let remedy = format!("write at least {LEAST_INTERVAL_S} seconds, such as 3600");
        return refuse("retention.interval_s", remedy);
    }
    Ok(())
}

fn turn(turn: &Turn) -> Checked {
    if turn.uris.is_empty() {
        return Ok(());
    }
    if turn.shared_secret.is_empty() && turn.password.is_empty() {
        return refuse(
            "turn.shared_secret",
            "write the TURN server's static-auth-secret, or a turn.username and turn.password",
        );
    }
    if turn.uris.iter().any(|uri| !uri.starts_with("turn")) {
        return refuse("turn.uris", "write URIs such as turn:turn.example.org");
    }
    if turn.ttl_s == 0 {
        return refuse("turn.ttl_s", "write a number of seconds, such as 86400");
    }
    Ok(())
}

fn support(support: &Support) -> Checked {
    if !support.admin_matrix_id.is_empty() && UserId::parse(&support.admin_matrix_id).is_err() {
        return refuse(
            "support.admin_matrix_id",
            "write a user id such as @admin:example.org",
        );
    }
    if !support.admin_email.is_empty() && !support.admin_email.contains('@') {
        return refuse(
            "support.admin_email",
            "write an address such as admin@example.org",
        );
    }
    if !support.page.is_empty() && !is_page(&support.page) {
        return refuse(
            "support.page",
            "write a URL such as https://example.org/support",
        );
    }
    Ok(())
}

/// An address that a browser opens.
fn is_page(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let scheme = uri.scheme();
    (scheme == Some(&Scheme::HTTP) || scheme == Some(&Scheme::HTTPS))
        && uri.host().is_some_and(|host| !host.is_empty())
}
