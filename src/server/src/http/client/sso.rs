//! The pages between a client, a browser and an identity provider. <https://spec.matrix.org/v1.19/client-server-api/#sso-client-loginauthentication>
//!
//! redirect -> the provider -> callback -> a name, if the account is new -> whether the client is let in, unless it is trusted -> the client, with a
//! token. And the same to confirm what a session is for, which begins with a page that says so.

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
    routing::on,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use openidconnect::url::Url;
use ruma::{
    api::auth_scheme::NoAccessToken,
    api::client::session::{sso_login, sso_login_with_provider},
};
use vatra_domain::{
    mail::templates::context,
    random::token,
    schema::UserSid,
    users::{Identity, NewAccount, UsersError},
};

use super::{
    super::{
        address::Address,
        endpoint::{Input, Routes, languages, read_body},
        error::Error,
    },
    pages::{Rights, lead_on, page},
};
use crate::{
    sso::{
        CALLBACK, Sso, by_template, place, proposal,
        provider::{Bound, Person, Provider, ProviderError},
        redirect, source,
        steps::{PATIENCE, Purpose, Step},
        with_token,
    },
    wiring::App,
};

/// Where the pages' forms go.
const NAME: &str = "/_matrix/client/unstable/vatra.sso/name";
const ALLOW: &str = "/_matrix/client/unstable/vatra.sso/allow";
const CONFIRM: &str = "/_matrix/client/unstable/vatra.sso/confirm";
/// The cookie that a login is bound to.
const COOKIE: &str = "vatra_sso";
/// How long a client has for the token that it gets, in milliseconds. The spec wants about five seconds; connections can be slow.
const TOKEN_LIFE_MS: u64 = 10_000;

/// The stage of user-interactive authentication.
pub(crate) const STAGE: &str = "m.login.sso";

/// `GET /auth/m.login.sso/fallback/web`, which is not ruma's.
struct Fallback;
ruma::metadata! {
    @for Fallback,
    method: GET,
    rate_limited: false,
    authentication: NoAccessToken,
    path: "/_matrix/client/v3/auth/m.login.sso/fallback/web",
}

/// All of them.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .json::<sso_login::v3::Request, _, _, _>(begin)
        .json::<sso_login_with_provider::v3::Request, _, _, _>(begin)
        .json::<Fallback, _, _, _>(fallback)
        .path(&Method::GET, CALLBACK, |filter| on(filter, callback))
        .path(&Method::POST, NAME, |filter| on(filter, name))
        .path(&Method::POST, ALLOW, |filter| on(filter, allow))
        .path(&Method::POST, CONFIRM, |filter| on(filter, confirm))
}

fn sso(app: &App) -> Result<&Sso, Error> {
    let off = || Error::unrecognized(StatusCode::NOT_FOUND);
    app.sso.as_ref().ok_or_else(off)
}

/// `GET /login/sso/redirect[/{provider}]`.
async fn begin(app: App, (): (), input: Input) -> Result<Response, Error> {
    let sso = sso(&app)?;
    app.rates.login_with_token(input.address)?;
    let browser = Browser::new(&app, input.languages.clone(), String::new());
    let client = input.param("redirectUrl").as_deref().and_then(redirect);
    let Some(client) = client else {
        return browser.failed(
            StatusCode::BAD_REQUEST,
            "redirectUrl is no URL that you can be sent to.",
        );
    };
    let provider = match (input.args.first(), sso.providers()) {
        (Some(id), _) => sso.provider(id),
        (None, [only]) => Some(only),
        (None, all) => return browser.providers(all, &client),
    };
    let Some(provider) = provider else {
        return browser.failed(
            StatusCode::NOT_FOUND,
            "There is no such way to log in here.",
        );
    };
    browser.send_to(provider, Purpose::Login(client)).await
}

/// The page that says what someone confirms.
async fn fallback(app: App, (): (), input: Input) -> Result<Response, Error> {
    let sso = sso(&app)?;
    app.rates.login_with_token(input.address)?;
    let mut browser = Browser::new(&app, input.languages.clone(), String::new());
    let session = input.param("session").unwrap_or_default();
    let now = app.clock.now();
    let Some(user) = app.users.uiaa().owner(&session, now) else {
        return browser.failed(
            StatusCode::BAD_REQUEST,
            "There is nothing to confirm, or it took too long.",
        );
    };
    let name = app.rooms.reader().user_id(user).await?;
    let name = name.map(|user| user.to_string()).unwrap_or_default();
    browser.cookie = token(&**app.users.random(), 43);
    let Some(provider) = provider_of(&app, sso, user).await? else {
        return browser.other_way();
    };
    let source = match provider.source(now).await {
        Ok(source) => source,
        Err(error) => return browser.not_known(provider, &error),
    };
    let step = Step::Confirming { session, user };
    let step = sso
        .steps
        .put(&**app.users.random(), &browser.cookie, step, now);
    let values = context! { step => step, user => name, action => CONFIRM };
    let shown = browser.page(StatusCode::OK, "sso_confirm", values, &source)?;
    Ok(browser.with_cookie(sso, shown))
}

/// With what someone logs in.
async fn provider_of<'a>(
    app: &App,
    sso: &'a Sso,
    user: UserSid,
) -> Result<Option<&'a Provider>, Error> {
    let identities = app.users.identities(user).await?;
    Ok(identities.iter().find_map(|it| sso.provider(&it.provider)))
}

/// Who confirms logs in again.
async fn confirm(
    State(app): State<App>,
    address: Option<Extension<Address>>,
    request: Request,
) -> Result<Response, Error> {
    let sso = sso(&app)?;
    let (browser, form) = submitted(&app, address, request).await?;
    let Some(Step::Confirming { session, user }) = browser.take(sso, &form.step) else {
        return browser.lost();
    };
    let Some(provider) = provider_of(&app, sso, user).await? else {
        return browser.other_way();
    };
    browser
        .send_to(provider, Purpose::Confirm(session, user))
        .await
}

/// Where providers send browsers back to.
async fn callback(
    State(app): State<App>,
    address: Option<Extension<Address>>,
    request: Request,
) -> Result<Response, Error> {
    let sso = sso(&app)?;
    let browser = Browser::of(&app, address, request.headers())?;
    let query = request.uri().query().unwrap_or_default();
    let field = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let state = field("state").unwrap_or_default();
    let Some(Step::Asked {
        provider,
        nonce,
        verifier,
        purpose,
    }) = browser.take(sso, &state)
    else {
        return browser.lost();
    };
    let Some((provider, code)) = sso.provider(&provider).zip(field("code")) else {
        let error = field("error").unwrap_or_default();
        tracing::info!(
            provider,
            ?error,
            "someone was not logged in by an identity provider"
        );
        return browser.failed(StatusCode::FORBIDDEN, "You were not logged in.");
    };
    let bound = Bound {
        state: &state,
        nonce: &nonce,
        verifier: &verifier,
    };
    let person = match provider.person(code, &bound, app.clock.now()).await {
        Ok(person) => person,
        Err(error) => return browser.not_known(provider, &error),
    };
    let Some(identity) = Identity::new(&provider.settings.id, &person.subject) else {
        return browser.failed(
            StatusCode::BAD_GATEWAY,
            "The provider does not say who you are.",
        );
    };
    let owner = app.users.identity_owner(&identity).await?;
    match (purpose, owner) {
        (Purpose::Confirm(session, user), owner) => {
            if owner != Some(user) {
                return browser.failed(
                    StatusCode::FORBIDDEN,
                    "That is not the account that this is about.",
                );
            }
            app.users.uiaa().complete(&session, STAGE);
            browser.done()
        }
        (Purpose::Login(client), Some(user)) => browser.known(sso, user, client).await,
        (Purpose::Login(client), None) => {
            browser
                .new_here(sso, provider, identity, &person, client)
                .await
        }
    }
}

/// The name that someone has chosen.
async fn name(
    State(app): State<App>,
    address: Option<Extension<Address>>,
    request: Request,
) -> Result<Response, Error> {
    let sso = sso(&app)?;
    let (browser, form) = submitted(&app, address, request).await?;
    let Some(Step::Naming { identity, redirect }) = browser.take(sso, &form.step) else {
        return browser.lost();
    };
    browser.make(sso, identity, form.name, redirect).await
}

/// Someone lets a client in.
async fn allow(
    State(app): State<App>,
    address: Option<Extension<Address>>,
    request: Request,
) -> Result<Response, Error> {
    let sso = sso(&app)?;
    let (browser, form) = submitted(&app, address, request).await?;
    let Some(Step::Allowing { user, redirect }) = browser.take(sso, &form.step) else {
        return browser.lost();
    };
    browser.lead_to_client(user, &redirect).await
}

/// What a page's form sends.
struct Form {
    step: String,
    name: String,
}

async fn submitted(
    app: &App,
    address: Option<Extension<Address>>,
    request: Request,
) -> Result<(Browser<'_>, Form), Error> {
    let browser = Browser::of(app, address, request.headers())?;
    let body = read_body(request.into_body(), app.limits.request_bytes).await?;
    let field = |name: &str| {
        let mut pairs = form_urlencoded::parse(&body);
        let found = pairs.find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let form = Form {
        step: field("step"),
        name: field("name"),
    };
    Ok((browser, form))
}

/// The browser that asks.
struct Browser<'a> {
    app: &'a App,
    languages: String,
    cookie: String,
}

impl<'a> Browser<'a> {
    fn new(app: &'a App, languages: String, cookie: String) -> Self {
        Self {
            app,
            languages,
            cookie,
        }
    }

    /// One that is under way.
    fn of(
        app: &'a App,
        address: Option<Extension<Address>>,
        head: &HeaderMap,
    ) -> Result<Self, Error> {
        app.rates
            .login_with_token(address.map(|Extension(address)| address))?;
        Ok(Self::new(app, languages(head), cookie(head)))
    }

    fn take(&self, sso: &Sso, id: &str) -> Option<Step> {
        sso.steps.take(id, &self.cookie, self.app.clock.now())
    }

    fn page(
        &self,
        status: StatusCode,
        name: &str,
        values: vatra_domain::mail::templates::Value,
        leads_to: &str,
    ) -> Result<Response, Error> {
        let rights = Rights {
            leads_to,
            ..Rights::default()
        };
        page(self.app, &self.languages, status, name, values, &rights)
    }

    fn failed(&self, status: StatusCode, reason: &str) -> Result<Response, Error> {
        self.page(status, "sso_failed", context! { reason => reason }, "")
    }

    /// A step that is not there: it was taken, it took too long, or it is another browser's.
    fn lost(&self) -> Result<Response, Error> {
        self.failed(
            StatusCode::BAD_REQUEST,
            "This took too long, was done already, or was begun in another browser.",
        )
    }

    fn other_way(&self) -> Result<Response, Error> {
        self.failed(
            StatusCode::FORBIDDEN,
            "Your account is not one that logs in this way.",
        )
    }

    fn not_known(&self, provider: &Provider, error: &ProviderError) -> Result<Response, Error> {
        tracing::warn!(provider = provider.settings.id, %error, "a login with an identity provider has failed");
        self.failed(
            StatusCode::BAD_GATEWAY,
            "The provider does not answer as it must. Try again later.",
        )
    }

    /// The page that lets someone choose a provider.
    fn providers(&self, all: &[Provider], client: &Url) -> Result<Response, Error> {
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
    async fn send_to(mut self, provider: &Provider, purpose: Purpose) -> Result<Response, Error> {
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
    async fn known(&self, sso: &Sso, user: UserSid, client: Url) -> Result<Response, Error> {
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
    async fn new_here(
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
    async fn make(
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
    async fn lead_to_client(&self, user: UserSid, client: &Url) -> Result<Response, Error> {
        let users = &self.app.users;
        let token = users.issue_login_token_for(user, TOKEN_LIFE_MS).await?;
        let url = with_token(client, &token);
        let answer = lead_on(StatusCode::SEE_OTHER, url.as_str())?;
        Ok(self.without_cookie(answer))
    }

    /// The page that tells a client that the stage is done.
    fn done(&self) -> Result<Response, Error> {
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

    fn with_cookie(&self, sso: &Sso, response: Response) -> Response {
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
    let found = cookies.find_map(|cookie| cookie.trim().strip_prefix("vatra_sso="));
    found.unwrap_or_default().to_owned()
}
