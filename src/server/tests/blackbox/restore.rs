//! A restore that does not end: nothing runs on what it left, and doing it again makes it whole.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use reqwest::Method;
use serde_json::json;
use vatra::config::Config;

use crate::{
    harness::{Engine, PASSWORD, Server, User, encoded, succeeds},
    operate::{does, vatra},
};

/// A backup of a server with a message and a picture; where the server is stopped, and who said what.
struct Backup {
    server: Server,
    alice: User,
    room: String,
    said: String,
    picture: String,
}

async fn backup() -> Backup {
    let mut server = Server::start(Engine::RocksDb).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let said = alice.send(&room, "before the backup").await;
    let upload = alice.request(Method::POST, "/_matrix/media/v3/upload");
    let uri = succeeds(upload.body("a picture")).await["content_uri"].clone();
    let folder = server.folder().join("backup");
    does(server.config(), &["backup", folder.to_str().unwrap()], "").await;
    server.stop().await;
    let picture = uri.as_str().unwrap().strip_prefix("mxc://").unwrap();
    Backup {
        alice,
        room,
        said,
        picture: picture.to_owned(),
        server,
    }
}

impl Backup {
    /// Settings of a server that has nothing yet.
    fn moved(&self, name: &str) -> Config {
        let place = self.server.folder().join(name);
        let mut moved = self.server.config().clone();
        (moved.data_dir, moved.media_dir) = (place.join("data"), place.join("media"));
        moved
    }

    fn folder(&self) -> String {
        let folder = self.server.folder().join("backup");
        folder.to_str().unwrap().to_owned()
    }

    /// Everything of the backup is there.
    async fn is_whole(&mut self, moved: Config) {
        let printed = does(&moved, &["check"], "").await;
        assert!(printed.contains("0 problems"), "{printed}");
        assert!(!moved.data_dir.join("restoring").exists());
        self.server.replace(|config| *config = moved).await;
        let alice = self.alice.clone().moved_to(&self.server);
        let event = format!(
            "/rooms/{}/event/{}",
            encoded(&self.room),
            encoded(&self.said)
        );
        let event = alice.get(&event).await;
        assert_eq!(event["content"]["body"], "before the backup");
        let path = format!("/_matrix/client/v1/media/download/{}", self.picture);
        let picture = alice.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(picture.text().await.unwrap(), "a picture");
        self.server.stop().await;
    }
}

/// Nothing but `restore` runs on a restore that was cut short: each says what, where, and what to do.
async fn nothing_runs(config: &Config) {
    let password = format!("{PASSWORD}\n");
    let elsewhere = config.data_dir.join("../another-backup");
    for arguments in [
        &["check"][..],
        &["check", "--repair"],
        &["backup", elsewhere.to_str().unwrap()],
        &["user", "create", "eve"],
        &["user", "password", "alice"],
        &[],
    ] {
        let (success, printed) = vatra(config, arguments, &password).await;
        assert!(!success, "{arguments:?}: {printed}");
        let place = config.data_dir.join("restoring");
        for part in [place.to_str().unwrap(), "cut short", "vatra restore"] {
            assert!(
                printed.contains(part),
                "{arguments:?}: {part} is not in: {printed}"
            );
        }
    }
    assert!(!config.data_dir.join("store").exists());
    assert!(!config.data_dir.join("signing.key").exists());
    assert!(!elsewhere.join("store").exists());
}

/// Restores with a bound on the size of files, in kilobytes: what goes beyond it fails as on a full disk, or ends the program.
async fn restore_within(config: &Config, folder: &str, kilobytes: u32, killed: bool) -> String {
    let trap = if killed { "" } else { "trap '' XFSZ; " };
    let blocks = kilobytes * 2;
    let script = format!("{trap}ulimit -f {blocks}; exec \"$0\" restore \"$1\"");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, env!("CARGO_BIN_EXE_vatra"), folder])
        .env("VATRA__DATA_DIR", &config.data_dir)
        .env("VATRA__MEDIA_DIR", &config.media_dir)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    assert!(!output.status.success());
    assert_eq!(
        output.status.code().is_none(),
        killed,
        "{:?}",
        output.status
    );
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_fails_or_is_killed_leaves_nothing_that_runs_and_is_done_again() {
    let mut backup = backup().await;
    let largest = largest(Path::new(&backup.folder()).join("store").as_path());
    assert!(
        largest > 2048,
        "no file of the store is larger than the bound"
    );
    for killed in [false, true] {
        let moved = backup.moved(if killed { "killed" } else { "failed" });
        let folder = backup.folder();
        let told = restore_within(&moved, &folder, 1, killed).await;
        assert!(killed || told.contains("large"), "{told}");
        nothing_runs(&moved).await;
        // Not better the second time; then there is room.
        restore_within(&moved, &folder, 1, killed).await;
        nothing_runs(&moved).await;
        does(&moved, &["restore", &folder], "").await;
        backup.is_whole(moved).await;
    }
}

fn largest(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    let sizes = files.map(|file| file.unwrap().metadata().unwrap().len());
    sizes.max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_cut_short_at_its_very_end_is_ended_by_doing_it_again() {
    let mut backup = backup().await;
    let folder = backup.folder();
    // The store has its name, the key does not yet.
    let moved = backup.moved("almost");
    does(&moved, &["restore", &folder], "").await;
    let (data, restoring) = (moved.data_dir.clone(), moved.data_dir.join("restoring"));
    std::fs::create_dir(&restoring).unwrap();
    std::fs::rename(data.join("signing.key"), restoring.join("signing.key")).unwrap();
    let (success, printed) = vatra(&moved, &["check"], "").await;
    assert!(!success && printed.contains("cut short"), "{printed}");
    assert!(!data.join("signing.key").exists(), "no new key was made");
    does(&moved, &["restore", &folder], "").await;
    // The key has its name too, and only the folder is left.
    std::fs::create_dir(&restoring).unwrap();
    does(&moved, &["restore", &folder], "").await;
    backup.is_whole(moved.clone()).await;
    // What is whole is not restored over.
    let (success, printed) = vatra(&moved, &["restore", &folder], "").await;
    assert!(!success && printed.contains("move it away"), "{printed}");
}
