//! The floors of the crate, read from its `use` lines: nobody calls upwards.
//! Paths are from the crate's folder, where tests run: a path taken at build time would name another checkout when two share a build.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// From low to high; modules of one floor may call each other.
const FLOORS: [(&str, u8); 20] = [
    ("schema", 0),
    ("clock", 0),
    ("random", 0),
    ("ids", 0),
    ("event", 0),
    ("audit", 0),
    ("remote", 1),
    ("mail", 1),
    ("users", 2),
    ("e2ee", 2),
    ("push", 2),
    ("appservice", 2),
    ("rooms", 3),
    ("sync", 4),
    ("media", 4),
    ("search", 4),
    ("url_preview", 4),
    ("federation", 4),
    ("flows", 5),
    ("followers", 5),
];

fn floor(module: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, floor)| *floor)
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules of this crate that a file mentions as `crate::name`, also inside braces of a `use`.
fn mentioned(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(inner) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (1, true);
            let mut name = String::new();
            for character in inner.chars() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => start = true,
                    _ if depth == 1
                        && start
                        && (character.is_alphanumeric() || character == '_') =>
                    {
                        name.push(character);
                        continue;
                    }
                    _ => {}
                }
                if !name.is_empty() {
                    names.push(std::mem::take(&mut name));
                    start = character == ',' && depth == 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            names.push(
                rest.chars()
                    .take_while(|it| it.is_alphanumeric() || *it == '_')
                    .collect(),
            );
        }
    }
    names
}

#[test]
fn no_module_calls_a_higher_floor() {
    let src = PathBuf::from("src");
    let mut checked = 0;
    let mut faults = Vec::new();
    for file in sources(&src) {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = floor(module)
            .unwrap_or_else(|| panic!("{module} stands on no floor: add it to FLOORS"));
        for name in mentioned(&fs::read_to_string(&file).unwrap()) {
            let Some(other) = floor(&name) else { continue };
            checked += 1;
            if other > own {
                faults.push(format!(
                    "{} (floor {own}) uses {name} (floor {other})",
                    inside.display()
                ));
            }
        }
    }
    assert!(
        checked > 50,
        "only {checked} uses were found: does the test still read them?"
    );
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_reader_of_use_lines_sees_through_braces() {
    let text = "use crate::{\n    clock::{self, X},\n    event::pdu::Pdu,\n    ids::Ids,\n};\ncrate::rooms::x();";
    assert_eq!(mentioned(text), ["clock", "event", "ids", "rooms"]);
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    let src = PathBuf::from("src");
    let forbidden = [
        "SystemTime",
        "Instant::now",
        "tokio::",
        "std::fs",
        "std::net",
        "vatra_store",
        "async fn",
        "rand::",
    ];
    for module in ["event", "push"] {
        for file in sources(&src.join(module)) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for word in forbidden {
                assert!(!code.contains(word), "{} contains {word}", file.display());
            }
        }
    }
}

#[test]
fn only_append_makes_events_visible() {
    let src = PathBuf::from("src");
    for file in sources(&src) {
        let text = fs::read_to_string(&file).unwrap();
        let writes = ["schema::LOG,", "schema::ROOM_LOG,", "schema::TIMELINE,"]
            .iter()
            .any(|map| {
                text.contains(&format!("put(&{map}"))
                    || text.contains(&format!("put_at_position(&{map}"))
            });
        assert!(
            !writes || file.ends_with("rooms/append.rs"),
            "{} writes the log",
            file.display()
        );
    }
}

#[test]
fn sync_writes_nothing() {
    let src = PathBuf::from("src/sync");
    for file in sources(&src) {
        let text = fs::read_to_string(&file).unwrap();
        for word in ["Batch::new", ".submit(", ".write("] {
            assert!(!text.contains(word), "{} contains {word}", file.display());
        }
    }
}
