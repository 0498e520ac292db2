//! The invariants of ARCHITECTURE.md that can be read from the sources. Floors, and those that concern one module, are in `floors.rs`;
//! what shows only when the server runs is in the tests that ARCHITECTURE.md names. Paths are from the crate's folder, where tests run.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::PathBuf};

/// The folder of all crates.
fn crates() -> PathBuf {
    PathBuf::from("..")
}

/// The Rust files below a folder of `src/`, with their text up to its unit tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![crates().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.to_string_lossy().contains("/tests")
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                files.push((path, code.to_owned()));
            }
        }
    }
    assert!(!files.is_empty(), "nothing in {folder}");
    files
}

/// Lines that are no comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
}

#[test]
fn handlers_decide_nothing_and_write_nothing() {
    for (path, text) in sources("server/src/http") {
        for line in code(&text) {
            for word in [
                "Batch::",
                ".submit(",
                "store.write(",
                ".lock(&",
                "RoomGuard",
                ".range(&",
            ] {
                assert!(
                    !line.contains(word),
                    "{} contains {word}: that is for the domain",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn only_the_store_knows_the_engine() {
    let manifest = fs::read_to_string(crates().join("domain/Cargo.toml")).unwrap();
    assert!(
        !manifest.contains("rocksdb"),
        "domain tests link no RocksDB"
    );
    let mut knows = Vec::new();
    for folder in ["domain/src", "server/src", "store/src"] {
        for (path, text) in sources(folder) {
            let named = code(&text).any(|line| {
                line.contains("rocksdb::")
                    || line.contains("RocksEngine")
                    || line.contains("rust_rocksdb")
            });
            if named {
                knows.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    assert_eq!(knows, ["server.rs"], "it alone chooses the engine");
}

#[test]
fn only_search_knows_tantivy() {
    for folder in ["domain", "server", "store"] {
        let manifest = fs::read_to_string(crates().join(folder).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains("tantivy"), "{folder} depends on tantivy");
    }
    for (path, text) in sources("search/src") {
        for word in ["ruma", "vatra_domain", "vatra_store"] {
            let named = code(&text).any(|line| line.contains(word));
            assert!(!named, "{} knows Matrix", path.display());
        }
    }
}

#[test]
fn there_are_no_globals() {
    let mut globals = Vec::new();
    for folder in [
        "domain/src",
        "server/src",
        "store/src",
        "store/rocksdb/src",
        "search/src",
    ] {
        for (path, text) in sources(folder) {
            for line in code(&text) {
                let item = line.strip_prefix("pub ").unwrap_or(line);
                let item = item.strip_prefix("pub(crate) ").unwrap_or(item);
                let global = item.starts_with("static ")
                    || ["thread_local!", "lazy_static!", "LazyLock<", "OnceCell<"]
                        .iter()
                        .any(|word| item.contains(word));
                if global {
                    globals.push(format!("{}: {line}", path.display()));
                }
            }
        }
    }
    // The allocator is the one that Rust itself asks for.
    assert_eq!(globals.len(), 1, "{globals:#?}");
    assert!(
        globals
            .iter()
            .all(|global| global.contains("static ALLOCATOR")),
        "{globals:#?}"
    );
}

/// The words that go over the network, or wait for someone who does.
const NETWORK: [&str; 6] = [
    "remote",
    "transport",
    "TcpStream",
    "reqwest",
    "hyper",
    "outbound",
];

/// The parts of a text that run while a room's guard is held: from the lock to where it is dropped, or to the end of the function.
fn guarded(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for function in text.split("fn ").skip(1) {
        let begin = [
            ".lock(",
            ".claim(",
            "guard: &mut RoomGuard",
            "&mut self.guard",
        ]
        .iter()
        .filter_map(|word| function.find(word))
        .min();
        if let Some(begin) = begin {
            let held = &function[begin..];
            parts.push(held.split("drop(guard)").next().unwrap().to_owned());
        }
    }
    parts
}

/// The statements of a text, as far as semicolons and braces tell; one may stand on many lines.
fn steps(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', '{', '}'])
}

#[test]
fn nobody_waits_for_the_network_while_holding_a_room() {
    let mut looked_at = 0;
    for folder in ["domain/src/rooms", "domain/src/flows"] {
        for (path, text) in sources(folder) {
            let text: Vec<&str> = code(&text).collect();
            for part in guarded(&text.join("\n")) {
                looked_at += 1;
                for step in steps(&part).filter(|step| step.contains(".await")) {
                    for word in NETWORK {
                        assert!(
                            !step.contains(word),
                            "{}: {step} goes over the network under a guard",
                            path.display()
                        );
                    }
                }
            }
        }
    }
    assert!(
        looked_at > 5,
        "only {looked_at} functions hold a guard: does the test still read them?"
    );
}

#[test]
fn the_reader_of_guards_sees_from_the_lock_to_the_drop() {
    let text = "async fn a() {\nremote.before().await;\nlet guard = rooms.lock(id).await;\nself\n.remote\n.send()\n.await;\ndrop(guard);\nremote.after().await;\n}\nfn b() {}";
    let parts = guarded(text);
    assert_eq!(parts.len(), 1);
    let part = parts.first().unwrap();
    assert!(
        part.contains("send()") && !part.contains("before") && !part.contains("after"),
        "{part}"
    );
    let step = steps(part).find(|step| step.contains(".await") && step.contains("remote"));
    assert!(step.is_some(), "an await on a line of its own: {part}");
}

#[test]
fn nobody_calls_a_follower() {
    for (path, text) in sources("domain/src") {
        // The schema has a page for the rows of followers.
        let name = path.to_string_lossy();
        if name.contains("/followers") || name.contains("/schema/") {
            continue;
        }
        let called = code(&text)
            .any(|line| line.contains("crate::followers") || line.contains("followers::"));
        assert!(
            !called,
            "{} calls a follower: followers read the log",
            path.display()
        );
    }
}

/// The names of all tests below a folder, however deep.
fn tests_below(folder: PathBuf, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.split("fn ").skip(1);
            found.extend(functions.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_invariant_is_held_by_tests_that_exist() {
    let architecture = fs::read_to_string(crates().join("../ARCHITECTURE.md")).unwrap();
    let (_, section) = architecture.split_once("\n## Invariants\n").unwrap();
    let rows = section.split("\n## ").next().unwrap().lines();
    let rows: Vec<&str> = rows
        .filter(|line| line.starts_with("| ") && !line.starts_with("| |"))
        .collect();
    assert_eq!(rows.len(), 9, "{rows:#?}");
    let mut known = Vec::new();
    tests_below(crates(), &mut known);
    for row in rows {
        let held_by = row.split('|').nth(3).unwrap();
        let named = held_by.split('`').skip(1).step_by(2);
        // The names of files and lints stand there too.
        let named: Vec<&str> = named.filter(|name| name.matches('_').count() > 1).collect();
        assert!(!named.is_empty(), "no test holds {row}");
        for name in named {
            assert!(known.iter().any(|test| test == name), "there is no {name}");
        }
    }
}
