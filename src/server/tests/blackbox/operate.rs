//! The operator's commands, on a running server and on a stopped one.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use reqwest::Method;
use serde_json::json;
use vatra::{
    config::Config,
    operate::{self, restore},
    server::open_engine,
};
use vatra_domain::schema;
use vatra_store::{Batch, Direction, Options, Range, Store};

use crate::harness::{Engine, PASSWORD, Server, encoded, refused, succeeds};

/// Runs the real binary on the server's data; gives success and all it printed.
pub(crate) async fn vatra(config: &Config, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vatra"));
    command
        .args(arguments)
        .env("VATRA__DATA_DIR", &config.data_dir)
        .env("VATRA__MEDIA_DIR", &config.media_dir)
        .env("VATRA__CLIENT__LISTEN", config.client.listen.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The program may end without reading it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = output.await.unwrap().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

pub(crate) async fn does(config: &Config, arguments: &[&str], input: &str) -> String {
    let (success, printed) = vatra(config, arguments, input).await;
    assert!(success, "{arguments:?}: {printed}");
    printed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_are_managed_while_the_server_runs_and_while_it_does_not() {
    let mut server = Server::start(Engine::RocksDb).await;
    let config = server.config().clone();
    for running in [true, false] {
        if !running {
            server.stop().await;
        }
        let name = if running { "anna" } else { "berta" };
        let line = format!("{PASSWORD}\n");
        assert!(
            does(&config, &["user", "create", name, "--admin"], &line)
                .await
                .contains(name)
        );
        let (success, printed) = vatra(&config, &["user", "create", name], &line).await;
        assert!(!success && printed.contains("taken"), "{printed}");
        let (success, printed) = vatra(&config, &["user", "create", "nobody"], "").await;
        assert!(!success && printed.contains("password"), "{printed}");
        let (success, printed) = vatra(&config, &["user", "admin", "nobody"], "").await;
        assert!(!success && printed.contains("nobody"), "{printed}");
        does(&config, &["user", "admin", name, "--revoke"], "").await;
    }
    server.replace(|_| {}).await;
    let anna = server.login("anna").await;
    server.login("berta").await;
    does(&config, &["user", "password", "anna"], "another long one\n").await;
    let whoami = anna.request(Method::GET, "/account/whoami");
    refused(whoami, 401, "M_UNKNOWN_TOKEN").await;
    does(&config, &["user", "deactivate", "anna"], "").await;
    let login =
        json!({ "type": "m.login.password", "user": "anna", "password": "another long one" });
    let request = server
        .request(Method::POST, "/_matrix/client/v3/login")
        .json(&login);
    refused(request, 403, "M_USER_DEACTIVATED").await;
    for (command, line) in [("password", "another long one\n"), ("admin", "")] {
        let (success, printed) = vatra(&config, &["user", command, "anna"], line).await;
        assert!(!success && printed.contains("is deactivated"), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_that_is_too_old_is_purged_but_not_what_stands_for_people_and_rooms() {
    let mut server = Server::start(Engine::RocksDb).await;
    let config = server.config().clone();
    server
        .replace(|config| config.media.redacted_max_age_s = 0)
        .await;
    let (success, printed) = vatra(&config, &["media", "purge"], "").await;
    assert!(
        !success && printed.contains("media.remote_max_age_s"),
        "{printed}"
    );
    server
        .replace(|config| config.media.local_max_age_s = 1)
        .await;
    let alice = server.register("alice").await;
    let mut uris = Vec::new();
    for bytes in ["a face", "a house", "a letter"] {
        let upload = alice.request(Method::POST, "/_matrix/media/v3/upload");
        let uri = &succeeds(upload.body(bytes)).await["content_uri"];
        uris.push(uri.as_str().unwrap().to_owned());
    }
    let path = format!("/profile/{}/avatar_url", encoded(&alice.id));
    alice.put(&path, json!({ "avatar_url": uris[0] })).await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/rooms/{}/state/m.room.avatar", encoded(&room));
    alice.put(&path, json!({ "url": uris[1] })).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    let says = format!("{}: 8 bytes\n1 media, 1 files with 8 bytes", uris[2]);
    let foreseen = does(&config, &["media", "purge", "--dry-run"], "").await;
    assert_eq!(foreseen, format!("{says} would go\n"));
    let done = does(&config, &["media", "purge"], "").await;
    assert_eq!(done, format!("{says} are gone\n"));
    let again = does(&config, &["media", "purge"], "").await;
    assert_eq!(again, "0 media, 0 files with 0 bytes are gone\n");
    for (uri, status) in uris.iter().zip([200, 200, 404]) {
        let id = uri.strip_prefix("mxc://").unwrap();
        let path = format!("/_matrix/client/v1/media/download/{id}");
        let answer = alice.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{uri}");
    }
    assert!(does(&config, &["check"], "").await.contains(" 0 problems"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_of_redacted_messages_is_purged_and_what_no_message_has_shown_is_not() {
    let change = |config: &mut Config| config.media.redacted_max_age_s = 1;
    let server = Server::start_with(Engine::RocksDb, change).await;
    let config = server.config().clone();
    let followed = || async {
        let app = &server.running().app;
        let mark = app.store.watermark();
        let status = app.followers.iter().find(|it| it.name == "media_shown");
        while status.unwrap().lag(mark) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut uris = Vec::new();
    for bytes in ["shown and taken back", "shown", "never shown"] {
        let upload = alice.request(Method::POST, "/_matrix/media/v3/upload");
        let uri = &succeeds(upload.body(bytes)).await["content_uri"];
        uris.push(uri.as_str().unwrap().to_owned());
    }
    let mut events = Vec::new();
    for uri in &uris[..2] {
        let content = json!({ "msgtype": "m.file", "body": "a file", "url": uri });
        events.push(
            alice
                .send_event(&room, "m.room.message", uri, content)
                .await,
        );
    }
    followed().await;
    let path = format!("/rooms/{}/redact/{}/t", encoded(&room), encoded(&events[0]));
    alice.put(&path, json!({})).await;
    followed().await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let says = format!("{}: 20 bytes\n1 media, 1 files with 20 bytes", uris[0]);
    for (arguments, end) in [
        (&["media", "purge", "--dry-run"][..], "would go"),
        (&["media", "purge"], "are gone"),
    ] {
        assert_eq!(
            does(&config, arguments, "").await,
            format!("{says} {end}\n")
        );
    }
    assert!(does(&config, &["check"], "").await.contains(" 0 problems"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_server_is_restored_with_everything_of_its_moment() {
    let mut server = Server::start(Engine::RocksDb).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let kept = alice.send(&room, "before the backup").await;
    let upload = server
        .request(Method::POST, "/_matrix/media/v3/upload")
        .bearer_auth(&alice.token);
    let uri = succeeds(upload.body("a picture")).await["content_uri"]
        .as_str()
        .unwrap()
        .to_owned();
    let old_token = alice.sync(None).await["next_batch"]
        .as_str()
        .unwrap()
        .to_owned();

    let folder = server.folder().join("backup");
    let config = server.config().clone();
    does(&config, &["backup", folder.to_str().unwrap()], "").await;
    let (success, printed) = vatra(&config, &["backup", folder.to_str().unwrap()], "").await;
    assert!(!success && printed.contains("not empty"), "{printed}");
    let lost = alice.send(&room, "after the backup").await;

    let (success, printed) = vatra(&config, &["restore", folder.to_str().unwrap()], "").await;
    assert!(!success && printed.contains("move it away"), "{printed}");
    let place = server.folder().join("restored");
    server.stop().await;
    let mut moved = config.clone();
    (moved.data_dir, moved.media_dir) = (place.join("data"), place.join("media"));
    does(&moved, &["restore", folder.to_str().unwrap()], "").await;
    assert!(does(&moved, &["check"], "").await.contains("0 problems"));
    server.replace(|config| *config = moved).await;

    let alice = alice.moved_to(&server);
    let event = |id: &str| format!("/rooms/{}/event/{}", encoded(&room), encoded(id));
    assert_eq!(
        alice.get(&event(&kept)).await["content"]["body"],
        "before the backup"
    );
    refused(
        alice.request(Method::GET, &event(&lost)),
        404,
        "M_NOT_FOUND",
    )
    .await;
    let path = format!(
        "/_matrix/client/v1/media/download/{}",
        uri.strip_prefix("mxc://").unwrap()
    );
    let picture = server
        .request(Method::GET, &path)
        .bearer_auth(&alice.token)
        .send()
        .await
        .unwrap();
    assert_eq!(picture.text().await.unwrap(), "a picture");
    // Positions after the backup mean something else now: the old token gets a whole sync.
    let sync = alice.sync(Some(&old_token)).await;
    assert!(sync["rooms"]["join"][&room].is_object(), "{sync}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_is_refused() {
    let mut server = Server::start(Engine::RocksDb).await;
    server.register("alice").await;
    let (folder, config) = (server.folder().join("backup"), server.config().clone());
    let command = operate::Command::Backup {
        folder: folder.clone(),
    };
    operate::run(config.clone(), command).await.unwrap();
    server.stop().await;
    std::fs::write(folder.join("signing.key"), "another").unwrap();
    let mut moved = config.clone();
    moved.data_dir = server.folder().join("restored");
    let error = restore::restore(&moved, &folder).await.unwrap_err();
    assert!(
        error.contains("signing.key") && error.contains("damaged"),
        "{error}"
    );
    assert!(!moved.data_dir.join("store").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_told_of_a_server_that_runs_and_of_one_that_does_not() {
    let mut server = Server::start(Engine::RocksDb).await;
    let mut config = server.config().clone();
    config.client.listen = server.running().client;
    let printed = does(&config, &["health"], "").await;
    assert!(printed.contains("\"ready\":true"), "{printed}");
    server.stop().await;
    let (success, printed) = vatra(&config, &["health"], "").await;
    assert!(!success && printed.contains("no answer"), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_settings_of_the_image_and_of_the_operators_guide_are_known_to_vatra() {
    let server = Server::start(Engine::Memory).await;
    let mut config = server.config().clone();
    config.client.listen = server.running().client;
    let root = "../..";
    let guide = std::fs::read_to_string(format!("{root}/docs/operators.md")).unwrap();
    let example = guide.split("```toml\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let shown = server.folder().join("guide.toml");
    std::fs::write(&shown, example).unwrap();
    for file in [
        &format!("{root}/config/container.toml"),
        shown.to_str().unwrap(),
    ] {
        let printed = does(&config, &["--config", file, "health"], "").await;
        assert!(printed.contains("\"ready\":true"), "{file}: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_deactivations_of_a_stopped_server_hold_when_it_runs_again() {
    let mut server = Server::start(Engine::RocksDb).await;
    let (anna, berta) = (
        server.register("anna").await,
        server.register("berta").await,
    );
    let room = berta.create_room(json!({ "preset": "public_chat" })).await;
    anna.join(&room).await;
    berta.sync(None).await;
    server.stop().await;
    let config = server.config().clone();
    does(&config, &["user", "password", "anna"], "another long one\n").await;
    does(&config, &["user", "deactivate", "@berta:localhost"], "").await;
    for command in ["password", "deactivate"] {
        let (success, printed) = vatra(&config, &["user", command, "nobody"], "a long one\n").await;
        assert!(!success && printed.contains("nobody"), "{printed}");
    }
    server.replace(|_| {}).await;

    let (anna, berta) = (anna.moved_to(&server), berta.moved_to(&server));
    for user in [&anna, &berta] {
        let whoami = user.request(Method::GET, "/account/whoami");
        refused(whoami, 401, "M_UNKNOWN_TOKEN").await;
    }
    let login = |user: &str, password: &str| {
        let body = json!({ "type": "m.login.password", "user": user, "password": password });
        let request = server.request(Method::POST, "/_matrix/client/v3/login");
        request.json(&body)
    };
    refused(login("anna", PASSWORD), 403, "M_FORBIDDEN").await;
    let session = succeeds(login("anna", "another long one")).await;
    refused(login("berta", PASSWORD), 403, "M_USER_DEACTIVATED").await;
    // She has left her rooms, which the others see.
    let members = format!("/_matrix/client/v3/rooms/{}/joined_members", encoded(&room));
    let members = server.request(Method::GET, &members);
    let members = members.bearer_auth(session["access_token"].as_str().unwrap());
    let members = succeeds(members).await;
    let joined: Vec<_> = members["joined"].as_object().unwrap().keys().collect();
    assert_eq!(joined, ["@anna:localhost"]);
}

/// Writes something into the store of a stopped server.
async fn damage(config: &Config, what: impl AsyncFnOnce(&Store, &mut Batch)) {
    let engine = open_engine(config).await.unwrap();
    let store = Store::open(engine, Options::default(), schema::migrations());
    let store = store.await.unwrap();
    let mut batch = Batch::new();
    what(&store, &mut batch).await;
    store.write(batch).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_fails_until_what_can_be_repaired_is_and_says_what_cannot() {
    let mut server = Server::start(Engine::RocksDb).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let said = alice.send(&room, "hello").await;
    server.stop().await;
    let config = server.config().clone();
    assert!(does(&config, &["check"], "").await.contains("0 problems"));

    damage(&config, async |store, batch| {
        let view = store.view();
        let all = view.range(&schema::TIMELINE, Range::all(), Direction::Backward, 1);
        let (place, _) = all.await.unwrap().remove(0);
        batch.delete(&schema::TIMELINE, &place);
    })
    .await;
    let (success, printed) = vatra(&config, &["check"], "").await;
    let line = printed
        .lines()
        .any(|line| line.contains("timeline") && line.contains("(derived)"));
    assert!(
        !success && line && printed.contains("1 problems"),
        "{printed}"
    );
    let printed = does(&config, &["check", "--repair"], "").await;
    assert!(printed.contains("(derived)"), "{printed}");
    assert!(does(&config, &["check"], "").await.contains("0 problems"));
    server.replace(|_| {}).await;
    let alice = alice.moved_to(&server);
    let path = format!("/rooms/{}/messages?dir=b&limit=1", encoded(&room));
    assert_eq!(
        alice.get(&path).await["chunk"][0]["event_id"],
        said.as_str()
    );
    server.stop().await;

    // An event cannot be made again from anything.
    damage(&config, async |store, batch| {
        let view = store.view();
        let said = view.get(&schema::EVENT_SIDS, &said).await.unwrap().unwrap();
        batch.delete(&schema::EVENTS, &said);
    })
    .await;
    for arguments in [&["check"][..], &["check", "--repair"], &["check"]] {
        let (success, printed) = vatra(&config, arguments, "").await;
        assert!(
            !success && printed.contains("no event"),
            "{arguments:?}: {printed}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_repaired_beside_a_running_server_is_what_it_answers_from() {
    let server = Server::start(Engine::RocksDb).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let app = &server.running().app;
    let (_, sid) = app.users.find(&bob.id).await.unwrap().unwrap();
    let device = (sid, bob.device.clone());
    // He has no keys, no room and no messages: so say rows that are wrong, and the server remembers them.
    let mut batch = Batch::new();
    let wrong = schema::KeyStateRow {
        one_time: vec![("signed_curve25519".to_owned(), 7)],
        ..schema::KeyStateRow::default()
    };
    batch.put(&schema::KEY_STATES, &device, &wrong);
    let view = app.store.view();
    let range = Range::prefix(&(sid,));
    let rooms = view.range(&schema::MEMBERSHIPS, range, Direction::Forward, 10);
    let (membership, _) = rooms.await.unwrap().remove(0);
    batch.delete(&schema::MEMBERSHIPS, &membership);
    batch.wake(schema::topic::devices(sid));
    batch.wake(schema::topic::membership(sid));
    app.store.write(batch).await.unwrap();
    let count =
        |sync: &serde_json::Value| sync["device_one_time_keys_count"]["signed_curve25519"].clone();
    let sync = bob.sync(None).await;
    assert_eq!(count(&sync), 7, "{sync}");
    assert!(sync["rooms"]["join"][&room].is_null(), "{sync}");

    does(server.config(), &["check", "--repair"], "").await;
    let sync = bob.sync(None).await;
    assert_ne!(count(&sync), 7, "{sync}");
    assert!(sync["rooms"]["join"][&room].is_object(), "{sync}");
    // And what happens there wakes him.
    let since = sync["next_batch"].as_str().unwrap();
    let path = format!("/sync?timeout=20000&since={}", encoded(since));
    let poll = tokio::spawn({
        let bob = bob.clone();
        async move { bob.get(&path).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begin = std::time::Instant::now();
    alice.send(&room, "are you there?").await;
    let sync = poll.await.unwrap();
    assert!(sync["rooms"]["join"][&room].is_object(), "{sync}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}
