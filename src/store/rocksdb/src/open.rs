//! Opening the database, and refusing what is not whole.

use std::path::Path;

use rocksdb::DB;
use vatra_store::EngineError;

use crate::{
    database::Database,
    errors,
    settings::{self, Memory},
};

/// Opens the folder for writing, creating it if it is not there. Blocks.
pub(crate) fn writable(path: &Path, memory: &Memory) -> Result<Database, EngineError> {
    std::fs::create_dir_all(path).map_err(|error| {
        EngineError::Io(format!(
            "cannot create the folder {}: {error}",
            path.display()
        ))
    })?;
    refuse_remains(path)?;
    let db = DB::open_cf_descriptors(
        &settings::database(memory),
        path,
        settings::families(memory),
    )
    .map_err(|error| errors::opening(path, error))?;
    Database::new(db, true)
}

/// Opens the folder for reading only, beside whoever has it open for writing. Blocks.
pub(crate) fn read_only(path: &Path, memory: &Memory) -> Result<Database, EngineError> {
    let mut options = settings::database(memory);
    // Whoever opens it for writing meanwhile may delete files; those that are open stay readable.
    options.set_max_open_files(-1);
    let db = DB::open_cf_descriptors_read_only(&options, path, settings::families(memory), false)
        .map_err(|error| errors::opening(path, error))?;
    Database::new(db, false)
}

/// RocksDB would begin a new store beside files whose index file is gone, and delete them. That is damage, not a start.
fn refuse_remains(path: &Path) -> Result<(), EngineError> {
    let mut remains = None;
    for name in errors::files(path) {
        if name == "CURRENT" {
            return Ok(());
        }
        if name.ends_with(".sst") || name.starts_with("MANIFEST-") {
            remains = Some(name);
        }
    }
    match remains {
        None => Ok(()),
        Some(name) => Err(EngineError::Damaged(format!(
            "the store in {} is damaged: the file CURRENT is missing beside {name}. Nothing was changed. Restore a backup with `vatra restore`",
            path.display()
        ))),
    }
}
