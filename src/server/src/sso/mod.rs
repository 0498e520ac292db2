//! Single sign-on: people log in with what they are to an identity provider.
//!
//! - `provider`: one that speaks OpenID Connect
//! - `steps`: logins that are under way, bound to a browser
//! - here: the providers of the settings, which clients are trusted, and names for new accounts
//!
//! The pages are `http/client/sso.rs`. <https://spec.matrix.org/v1.19/client-server-api/#sso-client-loginauthentication>

pub(crate) mod provider;
pub(crate) mod steps;

use openidconnect::url::Url;
use ruma::OwnedMxcUri;
use serde_json::{Map, Value, json};

use self::{
    provider::{Person, Provider},
    steps::Steps,
};
use crate::{
    config::{Config, SsoProvider},
    jwt::Fault,
    outbound::{policy::Network, web::Web},
};

/// Where providers send browsers back to, and what is below it.
pub(crate) const CALLBACK: &str = "/_matrix/client/unstable/vatra.sso/callback";
/// The longest URL of a client.
const LONGEST_REDIRECT: usize = 4 << 10;

/// Single sign-on as the settings have it.
pub struct Sso {
    providers: Vec<Provider>,
    trusted: Vec<Url>,
    /// Whether browsers reach this server over TLS only.
    pub(crate) secure: bool,
    pub(crate) steps: Steps,
}

impl Sso {
    /// `None` if there is no provider.
    ///
    /// # Errors
    /// What makes no sense.
    pub(crate) fn build(config: &Config, web: &Web) -> Result<Option<Self>, Fault> {
        check(config)?;
        if config.sso.providers.is_empty() {
            return Ok(None);
        }
        let base = config.client.base_url.trim_end_matches('/');
        let callback = format!("{base}{CALLBACK}");
        let made = config.sso.providers.iter().map(|settings| {
            Provider::new(settings.clone(), callback.clone(), web.clone())
                .map_err(|text| ("sso.providers", format!("{}: {text}", settings.id)))
        });
        let trusted = config.sso.trusted_clients.iter();
        Ok(Some(Self {
            providers: made.collect::<Result<_, _>>()?,
            trusted: trusted.filter_map(|url| Url::parse(url).ok()).collect(),
            secure: base.starts_with("https:"),
            steps: Steps::default(),
        }))
    }

    /// All providers.
    pub(crate) fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// A provider by its id.
    pub(crate) fn provider(&self, id: &str) -> Option<&Provider> {
        self.providers.iter().find(|one| one.settings.id == id)
    }

    /// The flow as clients are told of it.
    pub(crate) fn flow(&self) -> Value {
        let providers = self.providers.iter().map(|provider| {
            let SsoProvider {
                id,
                name,
                icon,
                brand,
                ..
            } = &provider.settings;
            let mut shown = Map::new();
            for (key, value) in [("id", id), ("name", name), ("icon", icon), ("brand", brand)] {
                if !value.is_empty() {
                    shown.insert(key.to_owned(), json!(value));
                }
            }
            shown
        });
        let providers: Vec<_> = providers.collect();
        json!({ "type": "m.login.sso", "identity_providers": providers })
    }

    /// Whether a client behind a URL gets its token without that anyone is asked.
    pub(crate) fn trusts(&self, redirect: &Url) -> bool {
        let below = |trusted: &Url| {
            let (wanted, path) = (trusted.path(), redirect.path());
            let rest = path.strip_prefix(wanted);
            rest.is_some_and(|rest| {
                rest.is_empty() || wanted.ends_with('/') || rest.starts_with('/')
            })
        };
        self.trusted.iter().any(|trusted| {
            trusted.scheme() == redirect.scheme()
                && trusted.host_str() == redirect.host_str()
                && trusted.port_or_known_default() == redirect.port_or_known_default()
                && redirect.username().is_empty()
                && redirect.password().is_none()
                && below(trusted)
        })
    }
}

/// Where a client wants the browser to come back; `None` for what no browser should be sent to.
pub(crate) fn redirect(text: &str) -> Option<Url> {
    if text.len() > LONGEST_REDIRECT {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let scripts = ["javascript", "data", "vbscript", "blob", "file", "about"];
    (!scripts.contains(&url.scheme())).then_some(url)
}

/// Who a page says that the browser goes to: the client's host, or for an app on the device its scheme.
pub(crate) fn place(redirect: &Url) -> String {
    match redirect.host_str() {
        Some(host) if matches!(redirect.scheme(), "http" | "https") => match redirect.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        },
        _ => format!("{}:", redirect.scheme()),
    }
}

/// What a page's policy must name so that a form may lead there.
pub(crate) fn source(redirect: &Url) -> String {
    match redirect.host_str() {
        Some(_) if matches!(redirect.scheme(), "http" | "https") => {
            redirect.origin().ascii_serialization()
        }
        _ => format!("{}:", redirect.scheme()),
    }
}

/// The URL with a login token for the client; one that is there already goes.
pub(crate) fn with_token(redirect: &Url, token: &str) -> Url {
    let mut url = redirect.clone();
    if !redirect.query_pairs().any(|(name, _)| name == "loginToken") {
        url.query_pairs_mut().append_pair("loginToken", token);
        return url;
    }
    let kept: Vec<(String, String)> = redirect
        .query_pairs()
        .filter(|(name, _)| name != "loginToken")
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(kept)
        .append_pair("loginToken", token);
    url
}

/// The name that an account gets by a template such as `{preferred_username}`; `None` if someone has not what it asks for.
pub(crate) fn by_template(template: &str, person: &Person) -> Option<String> {
    if template.is_empty() {
        return None;
    }
    let email = person
        .email
        .as_deref()
        .and_then(|email| email.split('@').next());
    let fields = [
        ("{preferred_username}", person.preferred_username.as_deref()),
        ("{email_localpart}", email),
        ("{name}", person.name.as_deref()),
        ("{sub}", Some(person.subject.as_str())),
    ];
    let mut name = template.to_owned();
    for (field, value) in fields {
        if name.contains(field) {
            name = name.replace(field, &mapped(value.filter(|value| !value.is_empty())?));
        }
    }
    Some(name)
}

/// What is proposed to someone who chooses a name.
pub(crate) fn proposal(person: &Person) -> String {
    let email = person
        .email
        .as_deref()
        .and_then(|email| email.split('@').next());
    let known = person.preferred_username.as_deref().or(email);
    let known = known.or(person.name.as_deref()).unwrap_or_default();
    let simple = known.to_lowercase().replace(' ', ".");
    let allowed =
        |character: &char| character.is_ascii_alphanumeric() || "._-".contains(*character);
    simple.chars().filter(allowed).take(64).collect()
}

/// <https://spec.matrix.org/v1.19/appendices/#mapping-from-other-character-sets>
fn mapped(text: &str) -> String {
    let mut name = String::new();
    for byte in text.to_lowercase().bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' | b'+' => {
                name.push(char::from(byte))
            }
            _ => name.push_str(&format!("={byte:02x}")),
        }
    }
    name
}

/// Whether the settings make sense.
pub(crate) fn check(config: &Config) -> Result<(), Fault> {
    let refuse = |key, remedy: String| Err((key, remedy));
    let networks = &config.sso.allowed_networks;
    if networks
        .iter()
        .any(|network| network.parse::<Network>().is_err())
    {
        let remedy = "write networks such as 10.0.0.0/8 or fd00::/8".to_owned();
        return refuse("sso.allowed_networks", remedy);
    }
    let bad = |url: &&String| redirect(url).is_none();
    if let Some(url) = config.sso.trusted_clients.iter().find(bad) {
        let remedy =
            format!("{url} is no URL: write those of clients, such as https://chat.example.org/");
        return refuse("sso.trusted_clients", remedy);
    }
    let providers = &config.sso.providers;
    for (place, provider) in providers.iter().enumerate() {
        let refuse =
            |remedy: &str| refuse("sso.providers", format!("number {}: {remedy}", place + 1));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if provider.id.is_empty() || provider.id.len() > 255 || !provider.id.bytes().all(allowed) {
            return refuse(
                "write an id of letters, digits and - . _ ~, and never change it: accounts belong to it",
            );
        }
        if providers
            .iter()
            .filter(|other| other.id == provider.id)
            .count()
            > 1
        {
            return refuse("its id is another provider's as well");
        }
        if provider.name.is_empty() {
            return refuse("write the name that people know it by");
        }
        if Url::parse(&provider.issuer)
            .is_ok_and(|url| url.query().is_some() || url.fragment().is_some())
            || !provider.issuer.starts_with("http")
        {
            return refuse("write its issuer: a URL such as https://accounts.example.org");
        }
        if provider.client_id.is_empty() {
            return refuse("write the client_id that it knows this server by");
        }
        if !provider.icon.is_empty() && !OwnedMxcUri::from(provider.icon.as_str()).is_valid() {
            return refuse("its icon is an mxc:// URI of a picture on this server");
        }
        if unknown_field(&provider.localpart) {
            return refuse(
                "localpart knows {preferred_username}, {email_localpart}, {name} and {sub}",
            );
        }
    }
    if !providers.is_empty() && config.client.base_url.is_empty() {
        let remedy = "providers send people back here: write the URL that clients reach this server at, such as https://matrix.example.org";
        return refuse("client.base_url", remedy.to_owned());
    }
    Ok(())
}

fn unknown_field(template: &str) -> bool {
    let known = [
        "{preferred_username}",
        "{email_localpart}",
        "{name}",
        "{sub}",
    ];
    let left = known
        .iter()
        .fold(template.to_owned(), |left, field| left.replace(field, ""));
    left.contains(['{', '}'])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sso(trusted: &[&str]) -> Sso {
        Sso {
            providers: Vec::new(),
            trusted: trusted.iter().map(|url| Url::parse(url).unwrap()).collect(),
            secure: true,
            steps: Steps::default(),
        }
    }

    #[test]
    fn a_client_is_trusted_by_its_place_and_not_by_the_beginning_of_its_name() {
        let sso = sso(&["https://chat.example/app", "io.example.app:/"]);
        for (url, trusted) in [
            ("https://chat.example/app", true),
            ("https://chat.example/app/?a=b#c", true),
            ("https://chat.example:443/app/x", true),
            ("https://chat.example/apple", false),
            ("https://chat.example/", false),
            ("https://chat.example/app/../evil", false),
            ("https://chat.example.evil/app", false),
            ("https://chat.example@evil/app", false),
            ("https://evil@chat.example/app", false),
            ("https://chat.example:8443/app", false),
            ("http://chat.example/app", false),
            ("io.example.app:/callback", true),
            ("io.example.apple:/callback", false),
        ] {
            assert_eq!(sso.trusts(&redirect(url).unwrap()), trusted, "{url}");
        }
        for url in [
            "javascript:alert(1)",
            "data:text/html,x",
            "/relative",
            "",
            "JavaScript:x",
        ] {
            assert!(redirect(url).is_none(), "{url}");
        }
    }

    #[test]
    fn a_token_is_added_to_what_is_there_and_replaces_another() {
        for (url, with) in [
            ("https://a.example", "https://a.example/?loginToken=t"),
            (
                "https://a.example/?loginToken=x&b=%26#c",
                "https://a.example/?b=%26&loginToken=t#c",
            ),
            ("app:/x?b=1", "app:/x?b=1&loginToken=t"),
            ("app://x", "app://x?loginToken=t"),
        ] {
            assert_eq!(with_token(&redirect(url).unwrap(), "t").as_str(), with);
        }
        let url = redirect("https://a.example:8443/x").unwrap();
        assert_eq!(
            (place(&url), source(&url)),
            (
                "a.example:8443".to_owned(),
                "https://a.example:8443".to_owned()
            )
        );
        assert_eq!(source(&redirect("element://vector/x").unwrap()), "element:");
    }

    #[test]
    fn names_come_from_what_a_provider_says_in_letters_that_names_may_have() {
        let person = Person {
            subject: "S-1".to_owned(),
            preferred_username: Some("Ana Pop".to_owned()),
            email: Some("ana@example.org".to_owned()),
            name: None,
        };
        for (template, name) in [
            ("{preferred_username}", Some("ana=20pop")),
            ("x-{sub}", Some("x-s-1")),
            ("{email_localpart}", Some("ana")),
            ("{name}", None),
            ("", None),
        ] {
            assert_eq!(
                by_template(template, &person).as_deref(),
                name,
                "{template}"
            );
        }
        assert_eq!(proposal(&person), "ana.pop");
        assert_eq!(proposal(&Person::default()), "");
        assert!(unknown_field("{username}") && !unknown_field("x{sub}"));
    }
}
