//! Folders that are there after a power cut.

use std::{fs, io, path::Path};

/// Makes a folder and those above it, and sees to it that the new ones keep their names.
///
/// # Errors
/// It cannot be made or synced.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    let is_new = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
    let new: Vec<_> = folder.ancestors().take_while(is_new).collect();
    fs::create_dir_all(folder)?;
    new.into_iter().try_for_each(sync_above)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// It cannot be synced.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn sync_above(folder: &Path) -> io::Result<()> {
    match folder.parent() {
        Some(above) if above.as_os_str().is_empty() => sync(Path::new(".")),
        Some(above) => sync(above),
        None => Ok(()),
    }
}
