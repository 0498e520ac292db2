//! Logins with an identity provider. <https://spec.matrix.org/v1.19/client-server-api/#sso-client-loginauthentication>

mod provider;

use std::collections::HashMap;

use openidconnect::url::Url;
use reqwest::{Client, Method, Response, header, redirect::Policy};
use serde_json::{Value, json};
use vatra::config::SsoProvider;

use self::provider::Provider;
use crate::harness::{
    Engine, PASSWORD, Server, answer, encoded, on_both_engines, refused, succeeds,
};

on_both_engines!(
    someone_new_chooses_a_name_lets_the_client_in_and_is_known_from_then_on,
    a_login_is_bound_to_its_browser_and_happens_once,
    what_a_provider_says_is_not_believed_unless_it_is_proven,
    names_come_from_a_template_and_closed_doors_stay_closed,
    who_has_no_password_confirms_with_the_provider,
    whoever_asks_for_nonsense_sees_a_page_and_is_sent_nowhere,
);

const CLIENT: &str = "https://chat.example/app?x=1";

async fn start(
    engine: Engine,
    provider: &Provider,
    change: impl FnOnce(&mut SsoProvider),
) -> Server {
    let mut settings = SsoProvider {
        id: "idp".to_owned(),
        name: "The Provider".to_owned(),
        issuer: provider.issuer(),
        client_id: "vatra".to_owned(),
        client_secret: "secret".to_owned(),
        brand: "example".to_owned(),
        ..SsoProvider::default()
    };
    change(&mut settings);
    let server = Server::start_with(engine, |config| {
        config.client.base_url = "http://matrix.example".to_owned();
        config.sso.allow_loopback = true;
        config.sso.trusted_clients = vec!["https://trusted.example/".to_owned()];
        config.sso.providers = vec![settings];
    });
    server.await
}

/// A browser: it keeps its cookie, and does not go where it is sent before the test says so.
struct Browser<'a> {
    server: &'a Server,
    client: Client,
    cookie: String,
}

/// What a browser was answered.
struct Page {
    status: u16,
    head: header::HeaderMap,
    text: String,
}

impl Page {
    fn location(&self) -> Url {
        Url::parse(self.head[header::LOCATION].to_str().unwrap()).unwrap()
    }

    fn query(&self) -> HashMap<String, String> {
        self.location().query_pairs().into_owned().collect()
    }

    /// The value of a field of the page's form.
    fn field(&self, name: &str) -> String {
        let begin = format!("name=\"{name}\" value=\"");
        let (_, rest) = self
            .text
            .split_once(&begin)
            .unwrap_or_else(|| panic!("no {name}: {}", self.text));
        rest.split('"').next().unwrap().to_owned()
    }

    fn action(&self) -> String {
        let (_, rest) = self.text.split_once("action=\"").unwrap();
        rest.split('"').next().unwrap().replace("&#x2f;", "/")
    }
}

impl<'a> Browser<'a> {
    fn new(server: &'a Server) -> Self {
        let client = Client::builder().no_proxy().redirect(Policy::none());
        Self {
            server,
            client: client.build().unwrap(),
            cookie: String::new(),
        }
    }

    async fn send(&mut self, method: Method, path: &str, form: &[(&str, &str)]) -> Page {
        let url = format!("http://{}{path}", self.server.running().client);
        let request = self
            .client
            .request(method, url)
            .header(header::COOKIE, format!("a=b; vatra_sso={}", self.cookie));
        let request = if form.is_empty() {
            request
        } else {
            let body = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(form)
                .finish();
            request
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(body)
        };
        self.keep(request.send().await.unwrap()).await
    }

    async fn keep(&mut self, answer: Response) -> Page {
        let head = answer.headers().clone();
        if let Some(cookie) = head.get(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
            let (_, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.cookie = value.to_owned();
        }
        let page = Page {
            status: answer.status().as_u16(),
            head,
            text: answer.text().await.unwrap(),
        };
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(page.head[name], value);
        }
        if page.status == 200 {
            let policy = page.head["content-security-policy"].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'")
                    && policy.contains("frame-ancestors 'none'"),
                "{policy}"
            );
            assert!(!policy.contains("unsafe"), "{policy}");
        }
        page
    }

    async fn begin(&mut self, client: &str) -> Page {
        let path = format!(
            "/_matrix/client/v3/login/sso/redirect?redirectUrl={}",
            encoded(client)
        );
        self.send(Method::GET, &path, &[]).await
    }

    /// Comes back from the provider.
    async fn back(&mut self, state: &str, code: &str) -> Page {
        let path = format!("{CALLBACK}?state={state}&code={code}");
        self.send(Method::GET, &path, &[]).await
    }

    /// From the client to the provider and back.
    async fn logs_in(&mut self, provider: &Provider, client: &str) -> Page {
        let sent = self.begin(client).await;
        assert_eq!(sent.status, 302, "{}", sent.text);
        let code = provider.logs_in(sent.query());
        self.back(&sent.query()["state"], &code).await
    }

    async fn submit(&mut self, page: &Page, more: &[(&str, &str)]) -> Page {
        let step = page.field("step");
        let mut form = vec![("step", step.as_str())];
        form.extend(more);
        self.send(Method::POST, &page.action(), &form).await
    }
}

const CALLBACK: &str = "/_matrix/client/unstable/vatra.sso/callback";

fn login(server: &Server, token: &str) -> reqwest::RequestBuilder {
    let request = server.request(Method::POST, "/_matrix/client/v3/login");
    request.json(&json!({ "type": "m.login.token", "token": token }))
}

async fn someone_new_chooses_a_name_lets_the_client_in_and_is_known_from_then_on(engine: Engine) {
    let provider = Provider::start().await;
    provider.tells(json!({ "sub": "ana", "preferred_username": "Ana Pop" }));
    let server = start(engine, &provider, |_| {}).await;
    server.register("taken").await;
    let flows = succeeds(server.request(Method::GET, "/_matrix/client/v3/login")).await;
    let told = json!({ "type": "m.login.sso", "identity_providers": [{ "id": "idp", "name": "The Provider", "brand": "example" }] });
    assert!(
        flows["flows"].as_array().unwrap().contains(&told),
        "{flows}"
    );

    let mut browser = Browser::new(&server);
    let sent = browser.begin(CLIENT).await;
    let (page, query) = (sent.location(), sent.query());
    assert!(
        page.as_str()
            .starts_with(&format!("{}/authorize?", provider.issuer()))
    );
    assert_eq!(
        (&*query["client_id"], &*query["response_type"]),
        ("vatra", "code")
    );
    assert_eq!(query["scope"], "openid profile");
    assert_eq!(
        query["redirect_uri"],
        format!("http://matrix.example{CALLBACK}")
    );
    let code = provider.logs_in(query.clone());
    let asked = browser.back(&query["state"], &code).await;
    assert_eq!((asked.status, &*asked.field("name")), (200, "ana.pop"));
    // A name that is taken, and one that cannot be.
    let again = browser.submit(&asked, &[("name", "taken")]).await;
    assert!(again.text.contains("taken"), "{}", again.text);
    let again = browser.submit(&again, &[("name", "<b>\"")]).await;
    assert!(!again.text.contains("<b>\""), "{}", again.text);
    let allow = browser.submit(&again, &[("name", "Ana")]).await;
    assert!(
        allow.text.contains("chat.example") && allow.text.contains("@ana:localhost"),
        "{}",
        allow.text
    );
    let policy = allow.head["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("form-action 'self' https://chat.example;"),
        "{policy}"
    );
    let led = browser.submit(&allow, &[]).await;
    assert_eq!(led.status, 303);
    let query = led.query();
    assert_eq!(query["x"], "1");
    assert!(
        led.location()
            .as_str()
            .starts_with("https://chat.example/app?")
    );
    assert_eq!(browser.cookie, "", "it is over");
    let session = succeeds(login(&server, &query["loginToken"])).await;
    assert_eq!(session["user_id"], "@ana:localhost");
    refused(login(&server, &query["loginToken"]), 403, "M_FORBIDDEN").await;

    // The next time they are known; a client that is trusted gets its token at once.
    let led = browser
        .logs_in(&provider, "https://trusted.example/x")
        .await;
    assert_eq!(led.status, 303, "{}", led.text);
    let session = succeeds(login(&server, &led.query()["loginToken"])).await;
    assert_eq!(session["user_id"], "@ana:localhost");
    let allow = browser.logs_in(&provider, "element://vector/webapp").await;
    assert!(allow.text.contains("element:"), "{}", allow.text);
    assert_eq!(
        provider.discovered(),
        1,
        "what a provider says of itself is kept"
    );
    // Someone else is someone else.
    provider.says(json!({ "sub": "ANA", "preferred_username": "ana" }));
    let asked = browser.logs_in(&provider, CLIENT).await;
    let again = browser.submit(&asked, &[("name", "ana")]).await;
    assert!(again.text.contains("taken"), "{}", again.text);
}

async fn a_login_is_bound_to_its_browser_and_happens_once(engine: Engine) {
    let provider = Provider::start().await;
    provider.says(json!({ "preferred_username": "ana" }));
    let server = start(engine, &provider, |it| {
        it.localpart = "{preferred_username}".to_owned()
    })
    .await;
    let (mut ana, mut eve) = (Browser::new(&server), Browser::new(&server));

    // Eve begins a login and has Ana end it: Ana's browser has not the cookie.
    let sent = eve.begin(CLIENT).await;
    let code = provider.logs_in(sent.query());
    assert_eq!(ana.back(&sent.query()["state"], &code).await.status, 400);
    // Nor has Eve a second try.
    assert_eq!(eve.back(&sent.query()["state"], &code).await.status, 400);

    let sent = ana.begin(CLIENT).await;
    let code = provider.logs_in(sent.query());
    let state = &sent.query()["state"];
    for wrong in ["", "nonsense", &state[1..]] {
        assert_eq!(ana.back(wrong, &code).await.status, 400);
    }
    let allow = ana.back(state, &code).await;
    assert_eq!(allow.status, 200, "{}", allow.text);
    assert_eq!(ana.back(state, &code).await.status, 400, "a replay");
    // The page's button is for Ana's browser, once, and not for another page's.
    let step = allow.field("step");
    let name = "/_matrix/client/unstable/vatra.sso/name";
    assert_eq!(
        eve.send(Method::POST, &allow.action(), &[("step", &step)])
            .await
            .status,
        400
    );
    let allow = ana.logs_in(&provider, CLIENT).await;
    let step = allow.field("step");
    assert_eq!(
        ana.send(Method::POST, name, &[("step", &step), ("name", "x")])
            .await
            .status,
        400
    );
    let allow = ana.logs_in(&provider, CLIENT).await;
    assert_eq!(ana.submit(&allow, &[]).await.status, 303);
    assert_eq!(ana.submit(&allow, &[]).await.status, 400);

    // A code that was redeemed, or that belongs to another login, is the provider's to refuse.
    let sent = ana.begin(CLIENT).await;
    assert_eq!(ana.back(&sent.query()["state"], &code).await.status, 502);
    let other = eve.begin(CLIENT).await;
    let code = provider.logs_in(other.query());
    let sent = ana.begin(CLIENT).await;
    assert_eq!(
        ana.back(&sent.query()["state"], &code).await.status,
        502,
        "another's code"
    );
    // Who does not log in there is told so.
    let sent = ana.begin(CLIENT).await;
    let path = format!(
        "{CALLBACK}?state={}&error=access_denied",
        sent.query()["state"]
    );
    assert_eq!(ana.send(Method::GET, &path, &[]).await.status, 403);
}

async fn what_a_provider_says_is_not_believed_unless_it_is_proven(engine: Engine) {
    let provider = Provider::start().await;
    let server = start(engine, &provider, |it| it.localpart = "{sub}".to_owned()).await;
    let mut browser = Browser::new(&server);
    for claims in [
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "aud": "another" }),
        json!({ "iss": "https://another.example" }),
        json!({ "exp": 1_000 }),
        json!({ "as_alg": "none" }),
        json!({ "as_alg": "HS256" }),
        json!({ "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" }),
        json!({ "sub": null }),
    ] {
        provider.says(claims.clone());
        let page = browser.logs_in(&provider, CLIENT).await;
        assert_eq!(page.status, 502, "{claims}: {}", page.text);
    }
    provider.says(json!({ "sub": "x".repeat(256) }));
    assert_eq!(browser.logs_in(&provider, CLIENT).await.status, 502);
    provider.says(json!({}));
    assert_eq!(browser.logs_in(&provider, CLIENT).await.status, 200);
    assert!(
        server
            .running()
            .app
            .users
            .find("ana")
            .await
            .unwrap()
            .is_some()
    );
}

async fn names_come_from_a_template_and_closed_doors_stay_closed(engine: Engine) {
    let provider = Provider::start().await;
    let mut server = start(engine, &provider, |it| {
        it.localpart = "x-{email_localpart}".to_owned()
    })
    .await;
    provider.says(json!({ "email": "Ana@example.org" }));
    let trusted = "https://trusted.example/";
    {
        let mut browser = Browser::new(&server);
        let led = browser.logs_in(&provider, trusted).await;
        let session = succeeds(login(&server, &led.query()["loginToken"])).await;
        assert_eq!(session["user_id"], "@x-ana:localhost");
        // Another with the same address is not let into the account, but chooses a name.
        provider.says(json!({ "sub": "other", "email": "ana@elsewhere.example" }));
        let asked = browser.logs_in(&provider, trusted).await;
        assert!(asked.text.contains("taken"), "{}", asked.text);
        // Who is deactivated does not come back by another name.
        provider.says(json!({}));
        let user = server
            .running()
            .app
            .users
            .find("x-ana")
            .await
            .unwrap()
            .unwrap();
        server
            .running()
            .app
            .users
            .deactivate(user.1, false)
            .await
            .unwrap();
        assert_eq!(browser.logs_in(&provider, trusted).await.status, 403);
        server
            .running()
            .app
            .users
            .deactivate(user.1, true)
            .await
            .unwrap();
        provider.says(json!({ "email": "again@example.org" }));
        assert_eq!(browser.logs_in(&provider, trusted).await.status, 303);
    }
    server
        .replace(|config| config.sso.providers[0].create_accounts = false)
        .await;
    provider.says(json!({ "sub": "nobody", "email": "nobody@example.org" }));
    let mut browser = Browser::new(&server);
    assert_eq!(browser.logs_in(&provider, trusted).await.status, 403);
    // New keys are fetched when they are needed, and keys that are not published prove nothing.
    let before = provider.discovered();
    provider.new_key();
    assert_eq!(
        browser.logs_in(&provider, trusted).await.status,
        502,
        "asked a moment ago"
    );
    assert_eq!(provider.discovered(), before);
}

async fn who_has_no_password_confirms_with_the_provider(engine: Engine) {
    let provider = Provider::start().await;
    let server = start(engine, &provider, |it| it.localpart = "{sub}".to_owned()).await;
    let mut browser = Browser::new(&server);
    let trusted = "https://trusted.example/";
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let led = browser.logs_in(&provider, trusted).await;
        sessions.push(server.user(&succeeds(login(&server, &led.query()["loginToken"])).await));
    }
    let (ana, other) = (&sessions[0], &sessions[1]);
    let delete = |auth: Value| {
        let path = format!("/devices/{}", other.device);
        let body = if auth.is_null() {
            json!({})
        } else {
            json!({ "auth": auth })
        };
        ana.request(Method::DELETE, &path).json(&body)
    };
    let (status, asked) = answer(delete(Value::Null)).await;
    assert_eq!(
        (status, &asked["flows"]),
        (401, &json!([{ "stages": ["m.login.sso"] }]))
    );
    let session = asked["session"].as_str().unwrap();
    let path = format!("/_matrix/client/v3/auth/m.login.sso/fallback/web?session={session}");
    let (status, _) = answer(delete(json!({ "session": session }))).await;
    assert_eq!(status, 401, "nothing is shown yet");
    let password = json!({ "type": "m.login.password", "session": session, "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": ana.id } });
    let (status, told) = answer(delete(password)).await;
    assert_eq!((status, &told["errcode"]), (401, &json!("M_FORBIDDEN")));

    // Someone else at the provider does not do.
    let page = browser.send(Method::GET, &path, &[]).await;
    assert!(page.text.contains(&ana.id), "{}", page.text);
    let sent = browser.submit(&page, &[]).await;
    assert_eq!((sent.status, &*sent.query()["prompt"]), (302, "login"));
    provider.says(json!({ "sub": "eve" }));
    let code = provider.logs_in(sent.query());
    assert_eq!(
        browser.back(&sent.query()["state"], &code).await.status,
        403
    );
    let (status, _) = answer(delete(json!({ "session": session }))).await;
    assert_eq!(status, 401);
    // Nor does a button that another browser presses.
    let page = browser.send(Method::GET, &path, &[]).await;
    assert_eq!(Browser::new(&server).submit(&page, &[]).await.status, 400);

    provider.says(json!({}));
    let page = browser.send(Method::GET, &path, &[]).await;
    let sent = browser.submit(&page, &[]).await;
    let code = provider.logs_in(sent.query());
    let done = browser.back(&sent.query()["state"], &code).await;
    assert!(
        done.status == 200 && done.text.contains("onAuthDone"),
        "{}",
        done.text
    );
    // It is for what was asked, and not for more.
    let deactivate = ana.request(Method::POST, "/account/deactivate");
    let deactivate = deactivate.json(&json!({ "auth": { "session": session } }));
    assert_eq!(answer(deactivate).await.0, 401);
    succeeds(delete(json!({ "session": session }))).await;
    refused(
        other.request(Method::GET, "/account/whoami"),
        401,
        "M_UNKNOWN_TOKEN",
    )
    .await;

    // Who has a password and no provider confirms as before; nobody confirms what is not theirs.
    let bob = server.register("bob").await;
    let (_, asked) = answer(bob.request(Method::DELETE, "/devices/X").json(&json!({}))).await;
    assert_eq!(asked["flows"], json!([{ "stages": ["m.login.password"] }]));
    for session in [asked["session"].as_str().unwrap(), "nonsense", ""] {
        let path = format!("/_matrix/client/v3/auth/m.login.sso/fallback/web?session={session}");
        let page = browser.send(Method::GET, &path, &[]).await;
        assert!(page.status == 400 || page.status == 403, "{}", page.status);
    }
}

async fn whoever_asks_for_nonsense_sees_a_page_and_is_sent_nowhere(engine: Engine) {
    let provider = Provider::start().await;
    let mut server = start(engine, &provider, |_| {}).await;
    {
        let mut browser = Browser::new(&server);
        for client in [
            "javascript:alert(1)",
            "data:text/html,x",
            "//evil.example",
            "",
            "not a url",
        ] {
            let page = browser.begin(client).await;
            assert_eq!(page.status, 400, "{client}");
            assert!(page.head.get(header::LOCATION).is_none());
        }
        let path = "/_matrix/client/v3/login/sso/redirect";
        assert_eq!(browser.send(Method::GET, path, &[]).await.status, 400);
        let redirect = format!("redirectUrl={}", encoded(CLIENT));
        let path = format!("/_matrix/client/v3/login/sso/redirect/nobody?{redirect}");
        assert_eq!(browser.send(Method::GET, &path, &[]).await.status, 404);
        let path = format!("/_matrix/client/r0/login/sso/redirect/idp?{redirect}");
        assert_eq!(browser.send(Method::GET, &path, &[]).await.status, 302);
        for (method, path) in [
            (Method::GET, CALLBACK),
            (Method::POST, "/_matrix/client/unstable/vatra.sso/allow"),
        ] {
            assert_eq!(browser.send(method, path, &[]).await.status, 400);
        }
    }
    // Where there are more, people choose.
    let more = SsoProvider {
        id: "more".to_owned(),
        name: "<More>".to_owned(),
        issuer: "http://127.0.0.1:9".to_owned(),
        client_id: "x".to_owned(),
        ..SsoProvider::default()
    };
    server
        .replace(|config| config.sso.providers.push(more))
        .await;
    let mut browser = Browser::new(&server);
    let page = browser.begin(CLIENT).await;
    assert!(
        page.text.contains("&lt;More&gt;") && page.text.contains("redirect&#x2f;idp?"),
        "{}",
        page.text
    );
    let path = format!(
        "/_matrix/client/v3/login/sso/redirect/more?redirectUrl={}",
        encoded(CLIENT)
    );
    assert_eq!(
        browser.send(Method::GET, &path, &[]).await.status,
        502,
        "nobody is there"
    );
    // Nor on addresses that are not public, unless the operator says so.
    server
        .replace(|config| config.sso.allow_loopback = false)
        .await;
    let path = format!(
        "/_matrix/client/v3/login/sso/redirect/idp?redirectUrl={}",
        encoded(CLIENT)
    );
    let before = provider.discovered();
    assert_eq!(
        Browser::new(&server)
            .send(Method::GET, &path, &[])
            .await
            .status,
        502
    );
    assert_eq!(provider.discovered(), before);
    server.replace(|config| config.sso.providers.clear()).await;
    refused(server.request(Method::GET, &path), 404, "M_UNRECOGNIZED").await;
}
