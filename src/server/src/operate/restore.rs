//! Puts a backup where no store is yet.
//!
//! What is not whole lies in `data_dir/restoring`, and while that is there neither the server nor any other command runs
//! ([`cut_short`]): so a restore that was killed, or found the disk full, is never taken for a server. Doing it again begins anew, or ends what
//! was all but done. Only files of media go to their places before that: their names are their hashes, and a name is given to whole files only.
//!
//! Restoring gives the store a new epoch: tokens from after the backup then mean a fresh sync; and no one-time key of the
//! backup is handed out again, since it may have been before.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::io::AsyncReadExt;
use vatra_domain::{
    e2ee,
    media::{BlobBackend, BlobError, LocalBlobs},
    schema::{self, BlobId},
};
use vatra_store::{Options, Store};

use super::backup::{KEY, blocking, verified};
use crate::{
    config::{Config, MediaBackend},
    folders, server, wiring,
};

/// How much of a file is read at once.
const PIECE: usize = 256 << 10;
/// What is not restored in full.
const RESTORING: &str = "restoring";
const STORE: &str = "store";

/// Why nothing can run on a `data_dir`, if a restore was cut short there.
pub fn cut_short(data: &Path) -> Option<String> {
    let place = data.join(RESTORING);
    let what = "a restore was cut short here, so there is no whole server yet";
    let remedy = "run `vatra restore` with the backup again";
    place
        .exists()
        .then(|| format!("{}: {what}: {remedy}", place.display()))
}

/// Puts a backup in place of a store that is not there (any more). Done again after it was cut short, it begins anew.
///
/// # Errors
/// A message that names the file: the backup is damaged or cut short, there is a store already, or the disk is full.
pub async fn restore(config: &Config, folder: &Path) -> Result<Vec<String>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
    let data = config.data_dir.clone();
    if is_all_but_done(&data) {
        blocking(move || appear(&data))
            .await
            .map_err(|error| error.to_string())?;
        let line = "the restore that was cut short is ended; clients sync anew";
        return Ok(vec![line.to_owned()]);
    }
    for there in [data.join(STORE), data.join(KEY)] {
        if there.exists() {
            return Err(format!(
                "{} is there already: move it away first",
                there.display()
            ));
        }
    }
    let (media, from) = (config.media_dir.clone(), folder.to_owned());
    let to_disk = config.media.backend == MediaBackend::Disk;
    let files = blocking(move || {
        let files = verified(&from)?;
        begin(&data)?;
        for file in &files {
            let source = from.join(file);
            match file.strip_prefix("media") {
                Ok(rest) if to_disk => copy_media(&source, &media, rest)?,
                Ok(_) => {}
                Err(_) => copy_durably(&source, &data.join(RESTORING).join(file))?,
            }
        }
        Ok(files)
    });
    let files = files.await.map_err(|error| at(&error))?;
    if !to_disk {
        fill_bucket(config, folder, &files).await?;
    }
    renew(config).await?;
    let data = config.data_dir.clone();
    blocking(move || appear(&data))
        .await
        .map_err(|error| error.to_string())?;
    let files = files.len();
    Ok(vec![format!("{files} files restored; clients sync anew")])
}

/// The files of media go where the settings have them.
async fn fill_bucket(config: &Config, folder: &Path, files: &[PathBuf]) -> Result<(), String> {
    let bucket = wiring::bucket(config).map_err(|error| error.to_string())?;
    let media = files.iter().filter_map(|file| {
        let rest = file.strip_prefix("media").ok()?;
        Some((folder.join(file), rest))
    });
    for (source, name) in media {
        // A backup has nothing else there; what an operator has put there stays in the backup.
        let hex: String = name
            .iter()
            .skip(1)
            .filter_map(|part| part.to_str())
            .collect();
        let id = BlobId::from_hex(&hex).filter(|id| LocalBlobs::relative_path(*id) == name);
        if let Some(id) = id {
            put(&bucket, &source, id)
                .await
                .map_err(|error| format!("{}: {error}", source.display()))?;
        }
    }
    Ok(())
}

async fn put(bucket: &dyn BlobBackend, source: &Path, id: BlobId) -> Result<(), BlobError> {
    let mut file = tokio::fs::File::open(source).await?;
    let mut writer = bucket.create().await?;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let limit = u64::try_from(PIECE).unwrap_or(u64::MAX);
        if (&mut file).take(limit).read_to_end(&mut piece).await? == 0 {
            return writer.finish(id).await;
        }
        writer.write(piece.into()).await?;
    }
}

/// The store gets its name when all else is done, so then only names are left to give.
fn is_all_but_done(data: &Path) -> bool {
    let restoring = data.join(RESTORING);
    let whole = data.join(KEY).exists() != restoring.join(KEY).exists();
    restoring.exists() && data.join(STORE).exists() && !restoring.join(STORE).exists() && whole
}

/// From here on nothing else runs here. What an earlier attempt has left goes.
fn begin(data: &Path) -> io::Result<()> {
    let restoring = data.join(RESTORING);
    folders::make(&restoring)?;
    for left in fs::read_dir(&restoring)? {
        let left = left?.path();
        if left.is_dir() {
            fs::remove_dir_all(left)?;
        } else {
            fs::remove_file(left)?;
        }
    }
    Ok(())
}

/// The store is another from now on.
async fn renew(config: &Config) -> Result<(), String> {
    let restoring = Config {
        data_dir: config.data_dir.join(RESTORING),
        ..config.clone()
    };
    let engine = server::open_engine(&restoring)
        .await
        .map_err(|error| error.to_string())?;
    let options = Options {
        renew_epoch: true,
        ..Options::default()
    };
    let store = Store::open(Arc::clone(&engine), options, schema::migrations())
        .await
        .map_err(|error| error.to_string())?;
    let renewed = e2ee::after_restore(&store).await;
    store.close().await;
    drop(engine);
    renewed.map_err(|error| error.to_string())
}

/// Store and key get their names, the key last.
fn appear(data: &Path) -> io::Result<()> {
    let restoring = data.join(RESTORING);
    for name in [STORE, KEY] {
        let from = restoring.join(name);
        if from.exists() {
            fs::rename(from, data.join(name))?;
            folders::sync(data)?;
            folders::sync(&restoring)?;
        }
    }
    fs::remove_dir(&restoring)?;
    folders::sync(data)
}

/// A file of media gets its name when it is whole; one that has it is replaced by its equal.
fn copy_media(from: &Path, media: &Path, name: &Path) -> io::Result<()> {
    // What is left there goes at the next start.
    let temporary = media.join("tmp").join(RESTORING);
    copy_durably(from, &temporary)?;
    let target = media.join(name);
    folders::make(target.parent().unwrap_or(media))?;
    fs::rename(&temporary, &target)?;
    folders::sync(target.parent().unwrap_or(media))
}

fn copy_durably(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(to);
    folders::make(folder)?;
    fs::copy(from, to)?;
    fs::File::open(to)?.sync_all()?;
    folders::sync(folder)
}
