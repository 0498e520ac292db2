//! E-mail addresses, from the letter to the account, with a mail server in the test.

mod addresses;
mod away;
mod letters;
mod queue;
mod refusals;
mod registering;
mod sink;

use reqwest::{Client, Method, RequestBuilder, redirect};
use serde_json::{Value, json};
use vatra::config::{Config, SmtpTls};

use self::sink::{Letter, Sink};
use crate::harness::{Engine, PASSWORD, Server, User, answer, succeeds};

/// The settings that let a server send mail to a sink.
fn through(sink: &Sink) -> impl FnOnce(&mut Config) {
    let port = sink.port;
    move |config| {
        config.client.base_url = "https://matrix.example.org/".to_owned();
        config.smtp.host = "127.0.0.1".to_owned();
        config.smtp.port = port;
        config.smtp.tls = SmtpTls::None;
        config.smtp.from = "Hearth <hearth@example.org>".to_owned();
    }
}

struct World {
    server: Server,
    sink: Sink,
    /// A browser that stays where it is sent.
    browser: Client,
}

impl World {
    async fn start() -> Self {
        Self::start_with(Engine::Memory, |_| {}).await
    }

    async fn start_with(engine: Engine, change: impl FnOnce(&mut Config)) -> Self {
        let sink = Sink::start().await;
        let mail = through(&sink);
        let server = Server::start_with(engine, |config| {
            mail(config);
            change(config);
        });
        Self {
            server: server.await,
            sink,
            browser: Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .build()
                .unwrap(),
        }
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        let path = format!("/_matrix/client/v3{path}");
        self.server.request(Method::POST, &path).json(body)
    }

    /// Asks for a letter; gives the session's id.
    async fn ask(&self, path: &str, email: &str, secret: &str) -> String {
        let path = format!("{path}/email/requestToken");
        let body = json!({ "client_secret": secret, "email": email, "send_attempt": 1 });
        let answer = succeeds(self.post(&path, &body)).await;
        assert_eq!(answer.as_object().unwrap().len(), 1, "{answer}");
        answer["sid"].as_str().unwrap().to_owned()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.running().client)
    }

    /// Presses the button of the page that a letter leads to.
    async fn press(&self, letter: &Letter) -> reqwest::Response {
        let link = letter.link();
        let (path, query) = link.split_once('?').unwrap();
        let request = self.browser.post(self.url(path));
        let kind = "application/x-www-form-urlencoded";
        let request = request.header("content-type", kind).body(query.to_owned());
        request.send().await.unwrap()
    }

    /// A whole validation; gives the session's id. `number` is how many letters have come then.
    async fn validate(&self, path: &str, email: &str, number: usize) -> String {
        let sid = self.ask(path, email, "s3cret").await;
        let letter = self.sink.letter(number).await;
        assert_eq!(self.press(&letter).await.status(), 200);
        sid
    }

    /// Adds a validated address to an account, with the password.
    async fn add(&self, user: &User, sid: &str) -> Value {
        let body = json!({ "sid": sid, "client_secret": "s3cret" });
        let (status, first) =
            answer(user.request(Method::POST, "/account/3pid/add").json(&body)).await;
        assert_eq!(status, 401, "{first}");
        let auth = json!({
            "type": "m.login.password", "session": first["session"], "password": PASSWORD,
            "identifier": { "type": "m.id.user", "user": user.id },
        });
        let body = json!({ "sid": sid, "client_secret": "s3cret", "auth": auth });
        user.post("/account/3pid/add", body).await
    }

    async fn with_email(&self, name: &str, email: &str, number: usize) -> User {
        let user = self.server.register(name).await;
        let sid = self.validate("/account/3pid", email, number).await;
        self.add(&user, &sid).await;
        user
    }

    fn login(&self, email: &str, password: &str) -> RequestBuilder {
        let body = json!({
            "type": "m.login.password", "password": password,
            "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": email },
        });
        self.post("/login", &body)
    }
}

fn creds(sid: &str) -> Value {
    let creds = json!({ "sid": sid, "client_secret": "s3cret" });
    json!({ "type": "m.login.email.identity", "threepid_creds": creds })
}
