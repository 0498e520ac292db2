//! A power cut at any moment loses no acknowledged batch.
//!
//! A killed process leaves its page cache, so a kill proves nothing about syncing. Here a small shim in front of the C
//! library notes each completed sync with the size of the file, and a cut rebuilds the folder from the notes up to some
//! line: the names as of the last sync of the folder, each file as long as its last sync had made sure of. Every second
//! cut leaves a piece of what came next in the log, as a disk may that was just writing it.

use std::{collections::HashMap, fs, path::Path};

use vatra_store::{Batch, Durability};

use crate::{
    shim,
    writer::{self, Ack},
};

const CUTS: usize = 50;
const ROWS: u64 = 2500;

/// What the notes say.
enum Event {
    Ack(Ack),
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
    Sync(u64, u64),
    FolderSync,
}

fn parse(line: &str) -> Event {
    if let Some(ack) = Ack::parse(line) {
        return Event::Ack(ack);
    }
    let words: Vec<_> = line.split(' ').collect();
    match words.as_slice() {
        ["link", name, inode] => Event::Link((*name).to_owned(), inode.parse().unwrap()),
        ["rename", old, new] => Event::Rename((*old).to_owned(), (*new).to_owned()),
        ["unlink", name] => Event::Unlink((*name).to_owned()),
        ["sync", inode, size] => Event::Sync(inode.parse().unwrap(), size.parse().unwrap()),
        ["dirsync", "."] => Event::FolderSync,
        _ => unreachable!("a line of the notes: {line}"),
    }
}

/// What the disk holds for certain.
#[derive(Default)]
struct Disk {
    names: HashMap<String, u64>,
    synced_names: HashMap<String, u64>,
    sizes: HashMap<u64, u64>,
    acks: Vec<Ack>,
}

impl Disk {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Ack(ack) => self.acks.push(*ack),
            Event::Link(name, inode) => drop(self.names.insert(name.clone(), *inode)),
            Event::Rename(old, new) => {
                let inode = self.names.remove(old).unwrap();
                self.names.insert(new.clone(), inode);
            }
            Event::Unlink(name) => drop(self.names.remove(name)),
            Event::Sync(inode, size) => {
                let known = self.sizes.entry(*inode).or_default();
                *known = (*known).max(*size);
            }
            Event::FolderSync => self.synced_names = self.names.clone(),
        }
    }

    /// Builds the folder as it is after a cut, with `torn` bytes of what was being written behind each log.
    fn rebuild(&self, graveyard: &Path, dir: &Path, torn: usize) {
        fs::create_dir(dir).unwrap();
        for (name, inode) in &self.synced_names {
            let bytes = fs::read(graveyard.join(inode.to_string())).unwrap();
            let synced = usize::try_from(self.sizes.get(inode).copied().unwrap_or(0)).unwrap();
            let torn = if name.ends_with(".log") { torn } else { 0 };
            let size = (synced + torn).min(bytes.len());
            fs::write(dir.join(name), &bytes[..size]).unwrap();
        }
    }
}

/// Runs the writer under the shim and returns what happened.
fn record(place: &Path, durability: Durability) -> Vec<Event> {
    let place = fs::canonicalize(place).unwrap();
    let (dir, notes, graveyard) = (
        place.join("store"),
        place.join("notes"),
        place.join("graveyard"),
    );
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&graveyard).unwrap();
    let mut command = writer::command(&dir, &notes, 0, ROWS, durability);
    command
        .env("LD_PRELOAD", shim::compile(&place))
        .env("SHIM_WATCHED", &dir)
        .env("SHIM_GRAVEYARD", &graveyard);
    assert!(command.status().unwrap().success());
    fs::read_to_string(notes)
        .unwrap()
        .lines()
        .map(parse)
        .collect()
}

/// Cuts the power `CUTS` times, spread over the events; returns how many acknowledged rows were lost in all.
fn cut(place: &Path, events: &[Event], durability: Durability) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut disk = Disk::default();
    let (mut applied, mut lost) = (0, 0);
    // Before the first acknowledgement there is nothing to lose, and perhaps no store yet.
    let first = events
        .iter()
        .position(|event| matches!(event, Event::Ack(_)))
        .unwrap();
    for number in 0..CUTS {
        // Not the same step in each row of events: a cut may fall before or after the sync of a group.
        let end = first + 1 + (events.len() - first - 1) * number / (CUTS - 1);
        for event in &events[applied..end] {
            disk.apply(event);
        }
        applied = end;
        let dir = place.join(format!("cut-{number}"));
        disk.rebuild(
            &place.join("graveyard"),
            &dir,
            if number % 2 == 0 { 0 } else { number * 211 },
        );
        lost += runtime.block_on(async {
            let store = writer::open(&dir, durability).await;
            let missing = writer::missing(&store, &disk.acks).await;
            let newest = disk.acks.iter().map(|ack| ack.position).max().unwrap();
            assert!(
                store.watermark() >= newest,
                "a token from before the cut is from the future"
            );
            assert!(store.watermark() >= writer::newest(&store).await);
            assert!(
                store.write(Batch::new()).await.unwrap() > newest,
                "a position came twice"
            );
            store.close().await;
            missing.len()
        });
        fs::remove_dir_all(dir).unwrap();
    }
    lost
}

#[test]
fn a_power_cut_loses_no_acknowledged_batch() {
    let place = tempfile::tempdir().unwrap();
    let events = record(place.path(), Durability::Synced);
    let acks = events
        .iter()
        .filter(|event| matches!(event, Event::Ack(_)))
        .count();
    assert_eq!(u64::try_from(acks).unwrap(), ROWS);
    let tables = events
        .iter()
        .filter(|event| matches!(event, Event::Link(name, _) if name.ends_with(".sst")))
        .count();
    assert!(
        tables > 3,
        "the run saw {tables} tables: too few to meet a switch of logs"
    );
    assert_eq!(cut(place.path(), &events, Durability::Synced), 0);
}

/// The control: without syncing, cuts do lose rows, so the shim and the cut work. Positions come once all the same.
#[test]
fn without_syncing_a_power_cut_loses_rows_but_repeats_no_position() {
    let place = tempfile::tempdir().unwrap();
    let events = record(place.path(), Durability::Relaxed);
    assert!(cut(place.path(), &events, Durability::Relaxed) > 0);
}
