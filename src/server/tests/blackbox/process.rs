//! The program itself: how it starts, what it takes, what it writes down, how it ends.

use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{PASSWORD, answer, succeeds};

/// A server of its own process on its own data.
pub(crate) struct Process {
    child: Option<Child>,
    address: String,
    folder: TempDir,
    client: Client,
    /// How long it took to be ready.
    took: Duration,
}

/// A port that is free now. Another process may take it before the server does; then the test is told.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn command(folder: &Path, port: u16, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatra"));
    command
        .env("VATRA__DATA_DIR", folder.join("data"))
        .env("VATRA__MEDIA_DIR", folder.join("media"))
        .env("VATRA__CLIENT__LISTEN", format!("127.0.0.1:{port}"))
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

impl Process {
    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings).await
    }

    /// One with its data in this folder.
    pub(crate) async fn start_in(folder: TempDir, settings: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = free_port();
        let client = Client::builder().no_proxy().build().unwrap();
        let begin = Instant::now();
        let child = command(folder.path(), port, settings).spawn().unwrap();
        let mut process = Self {
            child: Some(child),
            address: format!("http://127.0.0.1:{port}"),
            folder,
            client,
            took: Duration::ZERO,
        };
        let ready = format!("{}/health/ready", process.address);
        while process.client.get(&ready).send().await.is_err() {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "it does not start"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.took = begin.elapsed();
        process
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.address))
    }

    pub(crate) async fn register(&self, name: &str) -> String {
        let body =
            json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let request = self.request(Method::POST, "/_matrix/client/v3/register");
        let session = succeeds(request.json(&body)).await;
        session["access_token"].as_str().unwrap().to_owned()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end; gives whether it ended well, and all that it wrote down.
    async fn ended(&mut self) -> (bool, String) {
        let mut child = self.child.take().unwrap();
        let waiting = tokio::task::spawn_blocking(move || {
            let mut log = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut log)
                .unwrap();
            (child.wait().unwrap().success(), log)
        });
        waiting.await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It has ended already, or the test has failed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The aim is 60 MB and 0.3 s. A debug build on a machine that does other things is given more, so that only a real growth fails.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_with_an_empty_store_is_small_and_starts_at_once() {
    let process = Process::start(&[("VATRA__LOG__FILTER", "warn")]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let pid = process.child.as_ref().unwrap().id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes / 1024
    };
    let (all, own) = (line("VmRSS:"), line("RssAnon:"));
    println!(
        "ready after {:?}, {all} MB of memory, of which {own} MB its own",
        process.took
    );
    assert!(all < 90, "{all} MB of memory");
    assert!(own < 60, "{own} MB of its own memory");
    assert!(
        process.took < Duration::from_secs(5),
        "{:?} to start",
        process.took
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_and_no_password_is_written_down_at_any_level() {
    let mut process = Process::start(&[("VATRA__LOG__FILTER", "trace")]).await;
    let token = process.register("alice").await;
    let path = format!("/_matrix/client/v3/account/whoami?access_token={token}");
    succeeds(process.request(Method::GET, &path)).await;
    let whoami = process.request(Method::GET, "/_matrix/client/v3/account/whoami");
    succeeds(whoami.bearer_auth(&token)).await;
    let mut secrets = vec![token.clone(), PASSWORD.to_owned()];
    for password in [PASSWORD, "another password, which is wrong"] {
        let body = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
            "password": password, "refresh_token": true });
        let login = process.request(Method::POST, "/_matrix/client/v3/login");
        let (_, session) = answer(login.json(&body)).await;
        let tokens = [&session["access_token"], &session["refresh_token"]];
        secrets.extend(
            tokens
                .into_iter()
                .filter_map(Value::as_str)
                .map(str::to_owned),
        );
        secrets.push(password.to_owned());
    }
    assert_eq!(secrets.len(), 6);
    let refresh = process.request(Method::POST, "/_matrix/client/v3/refresh");
    let session = succeeds(refresh.json(&json!({ "refresh_token": secrets[3] }))).await;
    secrets.push(session["access_token"].as_str().unwrap().to_owned());
    let change = process.request(Method::POST, "/_matrix/client/v3/account/password");
    let body = json!({ "new_password": "a new long password", "auth": { "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" }, "password": PASSWORD } });
    succeeds(change.bearer_auth(&token).json(&body)).await;
    secrets.push("a new long password".to_owned());

    process.signal("-TERM");
    let (well, log) = process.ended().await;
    assert!(well, "{log}");
    assert!(log.contains("whoami"), "the requests themselves are there");
    for secret in secrets {
        // Passwords are looked for as they are, and as Debug would write them.
        let at = log.find(&secret);
        let line = at.map(|at| log[..at].rsplit('\n').next().unwrap_or_default());
        assert!(at.is_none(), "{secret} in a line that begins with {line:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_it_within_seconds_and_long_polls_are_answered() {
    for signal in ["-TERM", "-INT"] {
        let mut process = Process::start(&[("VATRA__LOG__FILTER", "warn")]).await;
        let token = process.register("alice").await;
        let sync = process.request(Method::GET, "/_matrix/client/v3/sync");
        let since = succeeds(sync.bearer_auth(&token)).await["next_batch"].clone();
        let path = format!(
            "/_matrix/client/v3/sync?timeout=60000&since={}",
            since.as_str().unwrap()
        );
        let poll = process.request(Method::GET, &path).bearer_auth(&token);
        let poll = tokio::spawn(succeeds(poll));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begin = Instant::now();
        process.signal(signal);
        assert!(poll.await.unwrap()["next_batch"].is_string());
        let (well, log) = process.ended().await;
        assert!(well, "{log}");
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "{:?}",
            begin.elapsed()
        );
    }
}

/// A connection whose request never ends.
async fn stuck(process: &Process) -> TcpStream {
    let address = process.address.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let half = "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{";
    stream.write_all(half.as_bytes()).await.unwrap();
    // So that it is read before the signal comes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_never_ends_does_not_keep_it_from_ending() {
    let mut process = Process::start(&[("VATRA__LOG__FILTER", "warn")]).await;
    let _stuck = stuck(&process).await;
    let begin = Instant::now();
    process.signal("-TERM");
    let (well, log) = process.ended().await;
    assert!(well, "{log}");
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let mut process = Process::start(&[("VATRA__LOG__FILTER", "warn")]).await;
    let _stuck = stuck(&process).await;
    process.signal("-TERM");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begin = Instant::now();
    process.signal("-TERM");
    let (well, log) = process.ended().await;
    assert!(!well && log.contains("second signal"), "{log}");
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_make_no_sense_stop_the_start_with_file_key_and_remedy() {
    for (text, key, remedy) in [
        (
            "[client]\ntrusted_proxies = [\"proxy\"]",
            "client.trusted_proxies",
            "127.0.0.1",
        ),
        (
            "[client]\nlisten = \"0.0.0.0:0\"\n[registration]\nopen = true",
            "registration.open",
            "allow_open_on_public_address",
        ),
        (
            "[smtp]\nhost = \"mail.example\"",
            "smtp.from",
            "matrix@example.org",
        ),
        (
            "[email]\nnotices_room = true",
            "notices_room",
            "config/default.toml",
        ),
        (
            "[client]\nmax_request_bytes = 0",
            "client.max_request_bytes",
            "65536",
        ),
        (
            "[federation]\ntls_cert = \"/nowhere/a.pem\"\ntls_key = \"/nowhere/b.pem\"",
            "federation.tls_cert",
            "a readable PEM file",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vatra.toml");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vatra"));
        command
            .current_dir(folder.path())
            .arg("--config")
            .arg(&file);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{text}");
        for part in [file.to_str().unwrap(), key, remedy] {
            assert!(told.contains(part), "{part} is not in: {told}");
        }
        assert!(!folder.path().join("data").exists(), "{text}");
    }
}

/// What a command says that must fail.
async fn failure(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{told}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_serves_no_server_of_another_name() {
    let mut process = Process::start(&[("VATRA__LOG__FILTER", "warn")]).await;
    process.register("alice").await;
    process.signal("-TERM");
    assert!(process.ended().await.0);
    let other = [("VATRA__SERVER_NAME", "other.example")];
    let told = failure(command(process.folder.path(), free_port(), &other)).await;
    for part in ["VATRA__SERVER_NAME: server_name", "belongs to", "data_dir"] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_taken_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let port = taken.local_addr().unwrap().port();
    let told = failure(command(folder.path(), port, &[])).await;
    assert!(
        told.contains("client.listen") && told.contains("free port"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_made_is_named_with_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let below = folder.path().join("file/below").display().to_string();
    for variable in ["VATRA__DATA_DIR", "VATRA__MEDIA_DIR"] {
        let settings = [(variable, below.as_str())];
        let told = failure(command(folder.path(), free_port(), &settings)).await;
        assert!(
            told.contains(variable) && told.contains(&below) && told.contains("may write to"),
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_data_is_refused_in_words() {
    let process = Process::start(&[("VATRA__LOG__FILTER", "warn")]).await;
    let second = command(process.folder.path(), free_port(), &[]);
    let output = tokio::task::spawn_blocking(move || {
        let mut second = second;
        second.output().unwrap()
    });
    let output = output.await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(told.contains("another vatra is using"), "{told}");
    // The first one is none the worse for it.
    process.register("alice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_settings_it_can_be_tried_on_this_machine_and_says_how() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatra"));
    command
        .current_dir(folder.path())
        .env_remove("VATRA_CONFIG")
        .env("VATRA__CLIENT__LISTEN", format!("127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process {
        child: Some(command.spawn().unwrap()),
        address: format!("http://127.0.0.1:{port}"),
        folder,
        client: Client::builder().no_proxy().build().unwrap(),
        took: Duration::ZERO,
    };
    let ready = format!("{}/health/ready", process.address);
    let begin = Instant::now();
    while process.client.get(&ready).send().await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.register("alice").await;
    process.signal("-TERM");
    let mut told = process.child.as_mut().unwrap().stdout.take().unwrap();
    let (well, log) = process.ended().await;
    assert!(well, "{log}");
    let mut said = String::new();
    told.read_to_string(&mut said).unwrap();
    assert!(
        said.contains(&process.address) && said.contains("./data"),
        "{said}"
    );
    assert!(process.folder.path().join("data/store").is_dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_from_the_environment_stays_as_it_is_written() {
    let process = Process::start(&[
        ("VATRA__REGISTRATION__TOKEN", "007123"),
        ("VATRA__CLIENT__TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8"),
        ("VATRA__RATE_LIMITS__ENABLED", "false"),
    ]);
    let process = process.await;
    for (token, valid) in [("007123", true), ("7123", false)] {
        let url = format!(
            "{}/_matrix/client/v1/register/m.login.registration_token/validity?token={token}",
            process.address
        );
        let answer: serde_json::Value = process
            .client
            .get(&url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(answer["valid"], valid, "{token}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_overrides_the_file_and_its_unknown_keys_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vatra.toml");
    let text = "server_name = \"file.example\"\n[client]\nbase_url = \"https://file.example\"\n\
        [media]\nmax_upload_bytes = 1000\n[registration]\ntoken = \"of the file\"\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let settings = [
        ("VATRA_CONFIG", file),
        ("VATRA__SERVER_NAME", "environment.example"),
        ("VATRA__MEDIA__MAX_UPLOAD_BYTES", "2000"),
        ("VATRA__REGISTRATION__TOKEN", ""),
        ("VATRA__REGISTRATION__OPEN", "true"),
    ];
    let process = Process::start(&settings).await;
    let token = process.register("alice").await;
    let get = |path: &str| process.request(Method::GET, path).bearer_auth(&token);
    let whoami = succeeds(get("/_matrix/client/v3/account/whoami")).await;
    assert_eq!(whoami["user_id"], "@alice:environment.example");
    let media = succeeds(get("/_matrix/client/v1/media/config")).await;
    assert_eq!(media["m.upload.size"], 2000);
    // What the environment does not say stays as the file has it.
    let found = succeeds(get("/.well-known/matrix/client")).await;
    let base_url = &found["m.homeserver"]["base_url"];
    assert_eq!(
        base_url.as_str().unwrap().trim_end_matches('/'),
        "https://file.example"
    );

    for (name, value, named) in [
        ("VATRA__REGISTRATION__OPNE", "true", "opne"),
        (
            "VATRA__CLIENT__MAX_REQUEST_BYTES",
            "many",
            "max_request_bytes",
        ),
    ] {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut command = command(
            folder.path(),
            port,
            &[("VATRA_CONFIG", file), (name, value)],
        );
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && told.contains(named),
            "{name}: {told}"
        );
        assert!(!folder.path().join("data").exists(), "{name}");
    }
}
