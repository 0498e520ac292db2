//! The pages between a client, a browser and an identity provider. <https://spec.matrix.org/v1.19/client-server-api/#sso-client-loginauthentication>
//!
//! redirect -> the provider -> callback -> a name, if the account is new -> whether the client is let in, unless it is trusted -> the client, with a
//! token. What a browser is shown on the way is `browser`. And the same to confirm what a session is for, which begins with a page that says so.

mod browser;

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
    routing::on,
};
use http::{Method, StatusCode};
use ruma::api::{
    auth_scheme::NoAccessToken,
    client::session::{sso_login, sso_login_with_provider},
};
use vatra_domain::{mail::templates::context, random::token, schema::UserSid, users::Identity};

use self::browser::Browser;
use super::super::{
    address::Address,
    endpoint::{Input, Routes, read_body},
    error::Error,
};
use crate::{
    sso::{
        CALLBACK, Sso,
        provider::{Bound, Provider},
        redirect,
        steps::{Purpose, Step},
    },
    wiring::App,
};

/// Where the pages' forms go.
const NAME: &str = "/_matrix/client/unstable/vatra.sso/name";
const ALLOW: &str = "/_matrix/client/unstable/vatra.sso/allow";
const CONFIRM: &str = "/_matrix/client/unstable/vatra.sso/confirm";
/// The stage of user-interactive authentication.
const STAGE: &str = "m.login.sso";

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
