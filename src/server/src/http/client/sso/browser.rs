//! A browser on its way through the pages: what it is shown, where it is sent, and the cookie that a login is bound to.

use axum::{Extension, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use openidconnect::url::Url;
use vatra_domain::{
    mail::templates::{Value, context},
    random::token,
    schema::UserSid,
    users::{Identity, NewAccount, UsersError},
};

use super::{
    super::{
        super::{address::Address, endpoint::languages, error::Error},
        pages::{Rights, lead_on, page},
    },
    ALLOW, NAME, sso,
};
use crate::{
    sso::{
        Sso, by_template, place, proposal,
        provider::{Bound, Person, Provider, ProviderError},
        source,
        steps::{PATIENCE, Purpose, Step},
        with_token,
    },
    wiring::App,
};

/// The cookie that a login is bound to.
const COOKIE: &str = "vatra_sso";
/// How long a client has for the token that it gets, in milliseconds. The spec wants about five seconds; connections can be slow.
const TOKEN_LIFE_MS: u64 = 10_000;

/// The browser that asks.
pub(super) struct Browser<'a> {
    app: &'a App,
    languages: String,
    pub(super) cookie: String,
}

impl<'a> Browser<'a> {
    pub(super) fn new(app: &'a App, languages: String, cookie: String) -> Self {
        Self {
            app,
            languages,
            cookie,
        }
    }

    /// One that is under way.
    pub(super) fn of(
        app: &'a App,
        address: Option<Extension<Address>>,
        head: &HeaderMap,
    ) -> Result<Self, Error> {
        app.rates
            .login_with_token(address.map(|Extension(address)| address))?;
        Ok(Self::new(app, languages(head), cookie(head)))
    }

    pub(super) fn take(&self, sso: &Sso, id: &str) -> Option<Step> {
        sso.steps.take(id, &self.cookie, self.app.clock.now())
    }

    pub(super) fn page(
        &self,
        status: StatusCode,
        name: &str,
        values: Value,
        leads_to: &str,
    ) -> Result<Response, Error> {
        let rights = Rights {
            leads_to,
            ..Rights::default()
        };
        page(self.app, &self.languages, status, name, values, &rights)
    }

    pub(super) fn failed(&self, status: StatusCode, reason: &str) -> Result<Response, Error> {
        self.page(status, "sso_failed", context! { reason => reason }, "")
    }

    /// A step that is not there: it was taken, it took too long, or it is another browser's.
    pub(super) fn lost(&self) -> Result<Response, Error> {
        self.failed(
            StatusCode::BAD_REQUEST,
            "This took too long, was done already, or was begun in another browser.",
        )
    }

    pub(super) fn other_way(&self) -> Result<Response, Error> {
        self.failed(
            StatusCode::FORBIDDEN,
            "Your account is not one that logs in this way.",
        )
    }

    pub(super) fn not_known(
        &self,
        provider: &Provider,
        error: &ProviderError,
    ) -> Result<Response, Error> {
        tracing::warn!(provider = provider.settings.id, %error, "a login with an identity provider has failed");
        self.failed(
            StatusCode::BAD_GATEWAY,
            "The provider does not answer as it must. Try again later.",
        )
    }

    /// The page that lets someone choose a provider.
    pub(super) fn providers(&self, all: &[Provider], client: &Url) -> Result<Response, Error> {
        let query: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("redirectUrl", client.as_str())
            .finish();
        let shown = all.iter().map(|provider| {
            let (id, name) = (&provider.settings.id, &provider.settings.name);
            let link = format!("/_matrix/client/v3/login/sso/redirect/{id}?{query}");
            context! { name => name.as_str(), link => link }
        });
        let shown: Vec<_> = shown.collect();
        self.page(
            StatusCode::OK,
            "sso_providers",
            context! { providers => shown },
            "",
        )
    }

    /// Sends the browser to a provider, with a new cookie.
    pub(super) async fn send_to(
        mut self,
        provider: &Provider,
        purpose: Purpose,
    ) -> Result<Response, Error> {
        let sso = sso(self.app)?;
        let (random, now) = (&**self.app.users.random(), self.app.clock.now());
        self.cookie = token(random, 43);
        let (nonce, verifier) = (token(random, 43), token(random, 64));
        let again = matches!(purpose, Purpose::Confirm(..));
        let step = Step::Asked {
            provider: provider.settings.id.clone(),
            nonce: nonce.clone(),
            verifier: verifier.clone(),
            purpose,
        };
        let state = sso.steps.put(random, &self.cookie, step, now);
        let bound = Bound {
            state: &state,
            nonce: &nonce,
            verifier: &verifier,
        };
        match provider.login_page(&bound, again, now).await {
            Ok(url) => Ok(self.with_cookie(sso, lead_on(StatusCode::FOUND, url.as_str())?)),
            Err(error) => self.not_known(provider, &error),
        }
    }

    /// Who has an account.
    pub(super) async fn known(
        &self,
        sso: &Sso,
        user: UserSid,
        client: Url,
    ) -> Result<Response, Error> {
        let account = self.app.users.account(user).await?;
        let account = account.filter(|account| !account.deactivated);
        let Some(account) = account else {
            return self.failed(StatusCode::FORBIDDEN, "Your account here has ended.");
        };
        if account.flags.locked {
            return self.failed(StatusCode::FORBIDDEN, "Your account here has been locked.");
        }
        if sso.trusts(&client) {
            return self.lead_to_client(user, &client).await;
        }
        let name = self.app.rooms.reader().user_id(user).await?;
        let name = name.map(|user| user.to_string()).unwrap_or_default();
        let (place, source) = (place(&client), source(&client));
        let step = Step::Allowing {
            user,
            redirect: client,
        };
        let step = self.put(sso, step);
        let values = context! { step => step, user => name, place => place, action => ALLOW };
        // Browsers let a form lead on only to where its page says.
        self.page(StatusCode::OK, "sso_allow", values, &source)
    }

    /// Who has none yet.
    pub(super) async fn new_here(
        &self,
        sso: &Sso,
        provider: &Provider,
        identity: Identity,
        person: &Person,
        client: Url,
    ) -> Result<Response, Error> {
        if !provider.settings.create_accounts {
            return self.failed(StatusCode::FORBIDDEN, "You have no account here.");
        }
        match by_template(&provider.settings.localpart, person) {
            Some(name) => self.make(sso, identity, name, client).await,
            None => self.ask_name(sso, identity, &proposal(person), "", client),
        }
    }

    fn ask_name(
        &self,
        sso: &Sso,
        identity: Identity,
        name: &str,
        reason: &str,
        redirect: Url,
    ) -> Result<Response, Error> {
        let source = source(&redirect);
        let step = self.put(sso, Step::Naming { identity, redirect });
        let values = context! { step => step, name => name, reason => reason, action => NAME };
        self.page(StatusCode::OK, "sso_name", values, &source)
    }

    /// Makes an account, and asks again if it cannot have that name.
    pub(super) async fn make(
        &self,
        sso: &Sso,
        identity: Identity,
        name: String,
        client: Url,
    ) -> Result<Response, Error> {
        let new = NewAccount {
            name: Some(name.clone()),
            identity: Some(identity.clone()),
            ..NewAccount::default()
        };
        match self.app.users.register(new).await {
            Ok((_, user)) => self.known(sso, user, client).await,
            Err(UsersError::IdentityInUse) => {
                // Two logins at once.
                match self.app.users.identity_owner(&identity).await? {
                    Some(user) => self.known(sso, user, client).await,
                    None => self.lost(),
                }
            }
            Err(
                error @ (UsersError::NameTaken | UsersError::BadName | UsersError::Exclusive(_)),
            ) => self.ask_name(sso, identity, &name, &error.to_string(), client),
            Err(error) => Err(error.into()),
        }
    }

    fn put(&self, sso: &Sso, step: Step) -> String {
        let random = &**self.app.users.random();
        sso.steps
            .put(random, &self.cookie, step, self.app.clock.now())
    }

    /// Gives the client a token.
    pub(super) async fn lead_to_client(
        &self,
        user: UserSid,
        client: &Url,
    ) -> Result<Response, Error> {
        let users = &self.app.users;
        let token = users.issue_login_token_for(user, TOKEN_LIFE_MS).await?;
        let url = with_token(client, &token);
        let answer = lead_on(StatusCode::SEE_OTHER, url.as_str())?;
        Ok(self.without_cookie(answer))
    }

    /// The page that tells a client that the stage is done.
    pub(super) fn done(&self) -> Result<Response, Error> {
        let rights = Rights {
            script: true,
            ..Rights::default()
        };
        let values = context! {};
        let shown = page(
            self.app,
            &self.languages,
            StatusCode::OK,
            "auth_done",
            values,
            &rights,
        )?;
        Ok(self.without_cookie(shown))
    }

    pub(super) fn with_cookie(&self, sso: &Sso, response: Response) -> Response {
        let secure = if sso.secure { "; Secure" } else { "" };
        let cookie = format!(
            "{COOKIE}={}; Path=/_matrix/client; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
            self.cookie,
            PATIENCE.as_secs()
        );
        set_cookie(response, &cookie)
    }

    fn without_cookie(&self, response: Response) -> Response {
        let cookie = format!("{COOKIE}=; Path=/_matrix/client; Max-Age=0; HttpOnly; SameSite=Lax");
        set_cookie(response, &cookie)
    }
}

fn set_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The cookie that a request comes with; empty if there is none.
fn cookie(head: &HeaderMap) -> String {
    let lines = head.get_all(header::COOKIE).iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    let mut cookies = texts.flat_map(|line| line.split(';'));
    let found = cookies.find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    found.unwrap_or_default().to_owned()
}
