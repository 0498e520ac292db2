//! Starts servers and speaks to them in sentences.

use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use vatra::{
    config::Config,
    server::{self, Running},
};
use vatra_store::MemoryEngine;

/// The password of every user of these tests.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// What keeps the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Memory,
    RocksDb,
}

/// Makes of each `async fn name(server: Server)` two tests, `name::on_memory` and `name::on_rocksdb`.
macro_rules! both_engines {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use crate::harness::{Engine, Server};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_memory() {
                super::$name(Server::start(Engine::Memory).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_rocksdb() {
                super::$name(Server::start(Engine::RocksDb).await).await;
            }
        }
    )*};
}
pub(crate) use both_engines;

/// The same for each `async fn name(engine: Engine)`, which starts servers as it needs them.
macro_rules! on_both_engines {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            use crate::harness::Engine;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_memory() {
                super::$name(Engine::Memory).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_rocksdb() {
                super::$name(Engine::RocksDb).await;
            }
        }
    )*};
}
pub(crate) use on_both_engines;

/// A server that runs in this process.
pub(crate) struct Server {
    running: Option<Running>,
    engine: Engine,
    config: Config,
    client: Client,
    folder: TempDir,
}

impl Server {
    /// One with open registration and without limits on requests.
    pub(crate) async fn start(engine: Engine) -> Self {
        Self::start_with(engine, |_| {}).await
    }

    /// One with other settings.
    pub(crate) async fn start_with(engine: Engine, change: impl FnOnce(&mut Config)) -> Self {
        let mut server = Self::prepare(engine, change);
        server.run().await;
        server
    }

    /// One on an engine of the test's own.
    pub(crate) async fn start_on(engine: Arc<dyn vatra_store::Engine>) -> Self {
        let mut server = Self::prepare(Engine::Memory, |_| {});
        let running = server::start(server.config.clone(), engine).await;
        server.running = Some(running.unwrap());
        server
    }

    fn prepare(engine: Engine, change: impl FnOnce(&mut Config)) -> Self {
        // The second test of a process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::try_it();
        config.data_dir = folder.path().join("data");
        config.media_dir = folder.path().join("media");
        config.client.listen = "127.0.0.1:0".parse().unwrap();
        config.federation.listen = "127.0.0.1:0".parse().unwrap();
        config.rate_limits.enabled = false;
        config.storage.memory_budget_bytes = 32 << 20;
        change(&mut config);
        let client = Client::builder().no_proxy().build().unwrap();
        Self {
            running: None,
            engine,
            config,
            client,
            folder,
        }
    }

    async fn run(&mut self) {
        let engine = match self.engine {
            Engine::Memory => Arc::new(MemoryEngine::new()),
            Engine::RocksDb => server::open_engine(&self.config).await.unwrap(),
        };
        self.running = Some(server::start(self.config.clone(), engine).await.unwrap());
    }

    /// Stops it and starts it again on the same data. Memory keeps nothing: for RocksDB only.
    pub(crate) async fn restart(&mut self) {
        assert_eq!(self.engine, Engine::RocksDb);
        self.stop().await;
        self.run().await;
    }

    /// Stops it as a signal would.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// A place for the test's own files.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Runs a server on other settings from now on.
    pub(crate) async fn replace(&mut self, change: impl FnOnce(&mut Config)) {
        self.stop().await;
        change(&mut self.config);
        self.run().await;
    }

    /// A request to a path such as `/_matrix/client/versions`, without a token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.running().client);
        self.client.request(method, url)
    }

    /// A new user, logged in.
    pub(crate) async fn register(&self, name: &str) -> User {
        let body =
            json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let request = self
            .request(Method::POST, "/_matrix/client/v3/register")
            .json(&body);
        self.user(&succeeds(request).await)
    }

    /// Another device of a user.
    pub(crate) async fn login(&self, name: &str) -> User {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": name },
            "password": PASSWORD,
        });
        let request = self
            .request(Method::POST, "/_matrix/client/v3/login")
            .json(&body);
        self.user(&succeeds(request).await)
    }

    /// The user of a session that was answered.
    pub(crate) fn user(&self, session: &Value) -> User {
        User {
            id: text(&session["user_id"]),
            device: text(&session["device_id"]),
            token: text(&session["access_token"]),
            address: format!("http://{}", self.running().client),
            client: self.client.clone(),
        }
    }
}

/// A user on a device. After a restart of the server, [`User::moved_to`].
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) device: String,
    pub(crate) token: String,
    address: String,
    client: Client,
}

impl User {
    /// The same user of a server that listens at another port now.
    pub(crate) fn moved_to(mut self, server: &Server) -> Self {
        self.address = format!("http://{}", server.running().client);
        self
    }

    /// A request with the user's token; the path begins after `/_matrix/client/v3`, or is whole.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match path.starts_with("/_") {
            true => format!("{}{path}", self.address),
            false => format!("{}/_matrix/client/v3{path}", self.address),
        };
        self.client.request(method, url).bearer_auth(&self.token)
    }

    /// Gets what must be there.
    pub(crate) async fn get(&self, path: &str) -> Value {
        succeeds(self.request(Method::GET, path)).await
    }

    /// Posts what must be taken.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        succeeds(self.request(Method::POST, path).json(&body)).await
    }

    /// Puts what must be taken.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        succeeds(self.request(Method::PUT, path).json(&body)).await
    }

    /// A room made with this body; gives its id.
    pub(crate) async fn create_room(&self, body: Value) -> String {
        text(&self.post("/createRoom", body).await["room_id"])
    }

    /// Invites someone.
    pub(crate) async fn invite(&self, room: &str, other: &User) {
        self.post(
            &format!("/rooms/{}/invite", encoded(room)),
            json!({ "user_id": other.id }),
        )
        .await;
    }

    /// Joins a room by id or alias.
    pub(crate) async fn join(&self, room: &str) {
        self.post(&format!("/join/{}", encoded(room)), json!({}))
            .await;
    }

    /// Sends an event; gives its id.
    pub(crate) async fn send_event(
        &self,
        room: &str,
        kind: &str,
        txn: &str,
        content: Value,
    ) -> String {
        let path = format!(
            "/rooms/{}/send/{}/{}",
            encoded(room),
            encoded(kind),
            encoded(txn)
        );
        text(&self.put(&path, content).await["event_id"])
    }

    /// Sends a text message; the transaction id is the text itself.
    pub(crate) async fn send(&self, room: &str, message: &str) -> String {
        let content = json!({ "msgtype": "m.text", "body": message });
        self.send_event(room, "m.room.message", message, content)
            .await
    }

    /// Syncs: everything, or what is new since a token. Does not wait.
    pub(crate) async fn sync(&self, since: Option<&str>) -> Value {
        let since = since
            .map(|since| format!("&since={}", encoded(since)))
            .unwrap_or_default();
        self.get(&format!("/sync?timeout=0{since}")).await
    }
}

/// The JSON of an answer that must be 200.
pub(crate) async fn succeeds(request: RequestBuilder) -> Value {
    let (status, body) = answer(request).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Checks that a request is refused with this status and errcode; gives the answer.
pub(crate) async fn refused(request: RequestBuilder, status: u16, errcode: &str) -> Value {
    let (got, body) = answer(request).await;
    assert_eq!(
        (got, body["errcode"].as_str()),
        (status, Some(errcode)),
        "{body}"
    );
    body
}

/// Status and JSON of any answer; `Null` for a body that is none.
pub(crate) async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let bytes = answer.bytes().await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// A part of a path, percent-encoded.
pub(crate) fn encoded(part: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    part.bytes()
        .map(|byte| {
            if keep(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not text: {value}"))
        .to_owned()
}
