//! Backups: store, signing key and media in a folder, with `SHA256SUMS` (`sha256sum -c` reads it too).
//!
//! The store is copied first, at one moment, and the media after it: meanwhile files are only ever added, so the copy has every
//! file that its rows name. [`super::restore`] is the way back.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use vatra_domain::media::LocalBlobs;

use crate::{folders, wiring::App};

const SUMS: &str = "SHA256SUMS";
pub(super) const KEY: &str = "signing.key";

/// Copies everything into a folder that is new or empty, while the server runs.
///
/// # Errors
/// A message that names the file.
pub async fn backup(app: &App, folder: &Path) -> Result<Vec<String>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
    make_empty(folder).map_err(|error| at(&error))?;
    let _undisturbed = app.media.undisturbed().await;
    app.store
        .checkpoint(&folder.join("store"))
        .await
        .map_err(|error| at(&error))?;
    fs::copy(app.config.data_dir.join(KEY), folder.join(KEY)).map_err(|error| at(&error))?;
    let blobs = LocalBlobs::open(folder.join("media"))
        .await
        .map_err(|error| at(&error))?;
    app.media
        .copy_to(&blobs, |_, _| {})
        .await
        .map_err(|error| at(&error))?;
    let (target, name) = (folder.to_owned(), app.server_name.clone());
    let files = blocking(move || {
        let files = files(&target)?;
        let mut sums = String::new();
        for file in &files {
            let hash = hash(&target.join(file))?;
            sums.push_str(&format!("{hash}  {}\n", file.display()));
        }
        // Last: a backup without it was cut short.
        write_durably(&target.join(SUMS), sums.as_bytes())?;
        Ok(files.len())
    });
    let files = files.await.map_err(|error| at(&error))?;
    Ok(vec![format!(
        "{name}: {files} files in {}",
        folder.display()
    )])
}

/// The files of a backup, each of which matches its sum.
pub(super) fn verified(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let sums =
        fs::read_to_string(folder.join(SUMS)).map_err(|error| bad(format!("{SUMS}: {error}")))?;
    let mut listed = Vec::new();
    for line in sums.lines() {
        let (sum, file) = line
            .split_once("  ")
            .ok_or_else(|| bad(format!("{SUMS}: {line}")))?;
        if hash(&folder.join(file)).map_err(|error| bad(format!("{file}: {error}")))? != sum {
            return Err(bad(format!(
                "{file} does not match its sum: this backup is damaged"
            )));
        }
        listed.push(PathBuf::from(file));
    }
    listed.sort();
    // Also refuses names that lead out of the folder: they are not found in it.
    if listed != files(folder)? {
        return Err(bad(format!(
            "{SUMS} does not list the files that are there"
        )));
    }
    Ok(listed)
}

/// Every file below a folder but the sums, relative and sorted.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(relative) = path.strip_prefix(folder)
                && relative != Path::new(SUMS)
            {
                found.push(relative.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn hash(file: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut reader = io::BufReader::with_capacity(1 << 20, fs::File::open(file)?);
    loop {
        let piece = io::BufRead::fill_buf(&mut reader)?;
        if piece.is_empty() {
            break;
        }
        hash.update(piece);
        let length = piece.len();
        io::BufRead::consume(&mut reader, length);
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn make_empty(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    if fs::read_dir(folder)?.next().is_some() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "is not empty; give a new folder",
        ));
    }
    Ok(())
}

fn write_durably(file: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(file, bytes)?;
    fs::File::open(file)?.sync_all()?;
    match file.parent() {
        Some(folder) => folders::sync(folder),
        None => Ok(()),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
