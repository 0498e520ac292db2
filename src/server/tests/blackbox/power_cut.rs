//! A power cut at any moment loses no file whose upload was answered.
//!
//! The store's own test cuts its log; here the whole server runs under the same shim (`store/tests/durability/shim.c`), which notes each
//! completed sync of files and folders. A cut rebuilds store and media from the notes up to some line: each folder with the names that it had
//! at its last sync, each file as long as its last sync had made sure of. A file whose folder was not synced after it got
//! its name is not there.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::StreamExt;
use reqwest::Method;
use ruma::ServerName;
use serde_json::Value;
use sha2::{Digest, Sha256};
use vatra::{config::Config, server::open_engine, wiring::App};

use crate::{harness::succeeds, process::Process};

const CUTS: usize = 50;
const UPLOADS: u32 = 80;
/// How many upload at a time.
const CLIENTS: u32 = 4;

/// What the notes say.
enum Event {
    /// An upload was answered: the media id, and the hash of what was uploaded.
    Ack(String, String),
    Link(String, u64),
    Folder(String),
    Rename(String, String),
    Unlink(String),
    Sync(u64, usize),
    FolderSync(String),
}

fn parse(line: &str) -> Event {
    let words: Vec<_> = line.split(' ').collect();
    match words.as_slice() {
        ["ack", id, hash] => Event::Ack((*id).to_owned(), (*hash).to_owned()),
        ["link", name, inode] => Event::Link((*name).to_owned(), inode.parse().unwrap()),
        ["mkdir", name] => Event::Folder((*name).to_owned()),
        ["rename", old, new] => Event::Rename((*old).to_owned(), (*new).to_owned()),
        ["unlink", name] => Event::Unlink((*name).to_owned()),
        ["sync", inode, size] => Event::Sync(inode.parse().unwrap(), size.parse().unwrap()),
        ["dirsync", name] => Event::FolderSync((*name).to_owned()),
        _ => unreachable!("a line of the notes: {line}"),
    }
}

#[derive(Clone, Copy)]
enum Node {
    File(u64),
    Folder,
}

/// What the disk holds for certain.
#[derive(Default)]
struct Disk {
    names: BTreeMap<String, Node>,
    /// What was in each folder when it was last synced.
    synced: HashMap<String, Vec<(String, Node)>>,
    sizes: HashMap<u64, usize>,
    acks: Vec<(String, String)>,
}

impl Disk {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Ack(id, hash) => self.acks.push((id.clone(), hash.clone())),
            Event::Link(name, inode) => {
                self.names.insert(name.clone(), Node::File(*inode));
            }
            Event::Folder(name) => {
                self.names.insert(name.clone(), Node::Folder);
            }
            Event::Rename(old, new) => {
                let node = self.names.remove(old).unwrap();
                assert!(matches!(node, Node::File(_)), "a folder was renamed: {old}");
                self.names.insert(new.clone(), node);
            }
            Event::Unlink(name) => drop(self.names.remove(name)),
            Event::Sync(inode, size) => {
                let known = self.sizes.entry(*inode).or_default();
                *known = (*known).max(*size);
            }
            Event::FolderSync(folder) => {
                let inside = |name: &str| {
                    let (above, own) = name.rsplit_once('/').unwrap_or((".", name));
                    (above == folder).then(|| own.to_owned())
                };
                let names = self.names.iter();
                let held = names.filter_map(|(name, node)| Some((inside(name)?, *node)));
                let held = held.collect();
                self.synced.insert(folder.clone(), held);
            }
        }
    }

    /// Builds a folder as it is after a cut, with `torn` bytes of what was being written behind each log.
    fn rebuild(&self, graveyard: &Path, folder: &str, to: &Path, torn: usize) {
        fs::create_dir(to).unwrap();
        for (name, node) in self.synced.get(folder).into_iter().flatten() {
            match node {
                Node::Folder => {
                    let inner = match folder {
                        "." => name.clone(),
                        above => format!("{above}/{name}"),
                    };
                    self.rebuild(graveyard, &inner, &to.join(name), torn);
                }
                Node::File(inode) => {
                    let bytes = fs::read(graveyard.join(inode.to_string())).unwrap();
                    let synced = self.sizes.get(inode).copied().unwrap_or(0);
                    let torn = if name.ends_with(".log") { torn } else { 0 };
                    let size = (synced + torn).min(bytes.len());
                    fs::write(to.join(name), &bytes[..size]).unwrap();
                }
            }
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the upload of a number holds: nothing, a little, or several pieces; some have it in common with others.
fn content(number: u32) -> Vec<u8> {
    let number = number - number % 7 / 6;
    let length = if number % 10 == 9 {
        300_000 + number
    } else {
        number % 5 * 4_000 + number % 3
    };
    let mut state = number;
    let bytes = (0..length).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    bytes.collect()
}

/// Uploads one file, at once or to an id that it reserves; gives the id when it is answered.
async fn upload(server: &Process, token: &str, number: u32) -> (String, String) {
    let bytes = content(number);
    let request = |method, path: &str| server.request(method, path).bearer_auth(token);
    let (at_once, hash) = (!number.is_multiple_of(4), hash(&bytes));
    let path = match at_once {
        true => "/_matrix/media/v3/upload",
        false => "/_matrix/media/v1/create",
    };
    let body = if at_once { bytes.clone() } else { Vec::new() };
    let given: Value = succeeds(request(Method::POST, path).body(body)).await;
    let uri = given["content_uri"].as_str().unwrap();
    let id = uri.strip_prefix("mxc://").unwrap().to_owned();
    if !at_once {
        let path = format!("/_matrix/media/v3/upload/{id}");
        succeeds(request(Method::PUT, &path).body(bytes)).await;
    }
    (id, hash)
}

/// Runs a server under the shim while files are uploaded, and returns what happened.
async fn record(place: &Path) -> Vec<Event> {
    let (notes, graveyard) = (place.join("notes"), place.join("graveyard"));
    fs::create_dir(&graveyard).unwrap();
    let shim = place.join("shim.so");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .arg(&shim)
        .arg("../store/tests/durability/shim.c");
    assert!(compiler.status().expect("a C compiler, cc").success());
    let folder = tempfile::tempdir().unwrap();
    let watched = fs::canonicalize(folder.path()).unwrap();
    let (data, media) = (watched.join("srv/data"), watched.join("files/media"));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let settings = [
        ("VATRA__DATA_DIR", text(&data)),
        ("VATRA__MEDIA_DIR", text(&media)),
        ("VATRA__LOG__FILTER", "warn".to_owned()),
        ("VATRA__RATE_LIMITS__ENABLED", "false".to_owned()),
        ("LD_PRELOAD", text(&shim)),
        ("SHIM_WATCHED", text(&watched)),
        ("SHIM_GRAVEYARD", text(&graveyard)),
        ("WRITER_NOTES", text(&notes)),
    ];
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (*key, &**value))
        .collect();
    let server = Arc::new(Process::start_in(folder, &settings).await);
    let token = server.register("alice").await;
    let (next, mut clients) = (Arc::new(AtomicU32::new(0)), tokio::task::JoinSet::new());
    for _ in 0..CLIENTS {
        let (server, token, next) = (Arc::clone(&server), token.clone(), Arc::clone(&next));
        let notes = fs::OpenOptions::new().append(true).open(&notes).unwrap();
        clients.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= UPLOADS {
                    return;
                }
                let (id, hash) = upload(&server, &token, number).await;
                // One write, so that it stands between the lines of the shim.
                let line = format!("ack {id} {hash}\n");
                (&notes).write_all(line.as_bytes()).unwrap();
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    // Without a stop: what that would still sync does not count.
    drop(server);
    let notes = fs::read_to_string(notes).unwrap();
    notes.lines().map(parse).collect()
}

/// The answered uploads that cannot be read, or are not what was uploaded.
async fn lost(place: &Path, acks: &[(String, String)]) -> Vec<String> {
    let mut config = Config::try_it();
    config.data_dir = place.join("srv/data");
    config.media_dir = place.join("files/media");
    let engine = open_engine(&config).await.unwrap();
    let app = App::build(config, engine).await.unwrap();
    let mut lost = Vec::new();
    for (id, expected) in acks {
        let (server, media) = id.split_once('/').unwrap();
        let server = ServerName::parse(server).unwrap();
        let found = app
            .media
            .open(&server, media, std::time::Duration::ZERO, true);
        let mut bytes = Vec::new();
        if let Ok(found) = found.await
            && let Ok(mut file) = found.file.whole().await
        {
            while let Some(Ok(piece)) = file.stream.next().await {
                bytes.extend(piece);
            }
        } else {
            lost.push(format!("{id} cannot be read"));
            continue;
        }
        if hash(&bytes) != *expected {
            lost.push(format!("{id} is something else"));
        }
    }
    app.close().await;
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_no_file_whose_upload_was_answered() {
    let place = tempfile::tempdir().unwrap();
    let place = fs::canonicalize(place.path()).unwrap();
    let events = record(&place).await;
    let is_ack = |event: &&Event| matches!(event, Event::Ack(..));
    let acks = events.iter().filter(is_ack).count();
    assert_eq!(acks, usize::try_from(UPLOADS).unwrap());
    let named = |event: &&Event| matches!(event, Event::Rename(_, new) if new.contains("/blobs/"));
    assert!(events.iter().filter(named).count() > 60, "files got names");

    let first = events.iter().position(|event| is_ack(&event)).unwrap();
    let mut disk = Disk::default();
    let mut applied = 0;
    for number in 0..CUTS {
        let end = first + 1 + (events.len() - first - 1) * number / (CUTS - 1);
        for event in &events[applied..end] {
            disk.apply(event);
        }
        applied = end;
        let cut = place.join(format!("cut-{number}"));
        let torn = if number % 2 == 0 { 0 } else { number * 211 };
        disk.rebuild(&place.join("graveyard"), ".", &cut, torn);
        let lost = lost(&cut, &disk.acks).await;
        assert!(
            lost.is_empty(),
            "cut {number}, after {} answers: {lost:?}",
            disk.acks.len()
        );
        fs::remove_dir_all(cut).unwrap();
    }
    assert_eq!(disk.acks.len(), acks);

    // The control: had no folder been synced after its files got their names, the cut would show it.
    let mut disk = Disk::default();
    let shard =
        |event: &&Event| matches!(event, Event::FolderSync(name) if name.contains("/blobs/"));
    for event in events.iter().filter(|event| !shard(event)) {
        disk.apply(event);
    }
    let cut = place.join("control");
    disk.rebuild(&place.join("graveyard"), ".", &cut, 0);
    assert!(!lost(&cut, &disk.acks).await.is_empty());
}
