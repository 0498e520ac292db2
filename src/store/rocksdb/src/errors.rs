//! RocksDB's errors in the store's words.

use std::path::Path;

use rocksdb::ErrorKind;
use vatra_store::EngineError;

/// An error while reading or writing.
pub(crate) fn running(error: rocksdb::Error) -> EngineError {
    match error.kind() {
        ErrorKind::Corruption => EngineError::Damaged(format!(
            "the store is damaged: {error}. Stop the server and run `vatra check`; restore a backup if it cannot repair it"
        )),
        ErrorKind::NotSupported => EngineError::Unsupported(error.into_string()),
        _ => EngineError::Io(error.into_string()),
    }
}

/// An error while opening the folder `path`.
pub(crate) fn opening(path: &Path, error: rocksdb::Error) -> EngineError {
    let folder = path.display();
    let text = error.as_ref();
    if text.contains("lock") && text.contains("LOCK") {
        return EngineError::InUse(format!(
            "another vatra is using {folder}: stop it first, or give this one a data_dir of its own ({error})"
        ));
    }
    match error.kind() {
        ErrorKind::Corruption => EngineError::Damaged(format!(
            "the store in {folder} is damaged: {error}{}. Nothing was changed. Look at it with `vatra check`, or restore a backup with `vatra restore`",
            suspects(path, text),
        )),
        ErrorKind::InvalidArgument if text.contains("olumn famil") => {
            EngineError::Damaged(format!(
                "the store in {folder} was made by another program or a newer release: {error}"
            ))
        }
        _ => EngineError::Io(format!("cannot open the store in {folder}: {error}")),
    }
}

/// Names the log files when RocksDB's own message names no file: damage without a name is in the log.
fn suspects(path: &Path, text: &str) -> String {
    if [".sst", ".log", "MANIFEST", "CURRENT", "OPTIONS"]
        .iter()
        .any(|part| text.contains(part))
    {
        return String::new();
    }
    let logs: Vec<_> = files(path).filter(|name| name.ends_with(".log")).collect();
    if logs.is_empty() {
        String::new()
    } else {
        format!(" (in the write-ahead log: {})", logs.join(", "))
    }
}

/// The names in a folder; none if it cannot be read.
pub(crate) fn files(path: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}
