//! The key that this server signs with, in a file beside the store.

use std::path::Path;

use ruma::OwnedServerName;
use vatra_domain::{
    event::signer::Signer,
    random::{self, Random},
};

use super::BuildError;
use crate::folders;

/// Reads the signing key, or makes one at the first start (mode 0600).
pub(super) async fn signing_key(
    folder: &Path,
    server_name: OwnedServerName,
    source: &dyn Random,
) -> Result<Signer, BuildError> {
    let file = folder.join("signing.key");
    let failed = |reason: String| BuildError::Key {
        file: file.display().to_string(),
        reason,
    };
    let (version, document) = match tokio::fs::read(&file).await {
        Ok(bytes) => {
            let (version, document) = bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .and_then(|at| Some((bytes.get(..at)?.to_vec(), bytes.get(at + 1..)?.to_vec())))
                .ok_or_else(|| failed("is damaged; restore it from a backup".to_owned()))?;
            (
                String::from_utf8(version).map_err(|error| failed(error.to_string()))?,
                document,
            )
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (version, document) = (random::name(source, 6), Signer::generate());
            let mut bytes = version.clone().into_bytes();
            bytes.push(b'\n');
            bytes.extend_from_slice(&document);
            write_private(&file, &bytes).map_err(|error| failed(error.to_string()))?;
            (version, document)
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    Signer::from_der(server_name, &document, version).map_err(|error| failed(error.to_string()))
}

/// Writes a file that only its owner can read, durably: a key that was used must not be lost in a power cut.
fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    if let Some(folder) = file.parent() {
        folders::make(folder)?;
    }
    let mut opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    opened.write_all(bytes)?;
    opened.sync_all()?;
    match file.parent() {
        Some(folder) => folders::sync(folder),
        None => Ok(()),
    }
}
