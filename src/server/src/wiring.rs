//! Builds every part bottom-up and hands each what it needs. If it could not be built in this order, the design would be wrong.
//!
//! There is no global: two servers can run in one process.

use std::{path::Path, sync::Arc};

use ruma::{OwnedServerName, ServerName};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vatra_domain::{
    clock::{SharedClock, SystemClock},
    event::signer::Signer,
    ids::Ids,
    media::{BlobError, LocalBlobs, Media, Settings as MediaSettings},
    random::{SharedRandom, SystemRandom},
    rooms::{CacheSizes, Rooms, ephemeral::Ephemeral, unread::Unreads},
    schema,
    sync::{Providers, Syncs, Waiters},
    users::Users,
};
use vatra_store::{Engine, Options, Store};

use crate::{
    config::{Config, Durability},
    http::{address::Proxies, counts::Counts, limits::Rates},
};

/// Bounds on what a request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest body that is not an upload, in bytes.
    pub request_bytes: usize,
}

/// The built parts. Cheap to clone; handlers get one.
#[derive(Clone)]
pub struct App {
    parts: Arc<Parts>,
}

/// What a server consists of.
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// This server's name.
    pub server_name: OwnedServerName,
    /// The store.
    pub store: Store,
    /// Accounts.
    pub users: Users,
    /// Rooms.
    pub rooms: Rooms,
    /// Typing, receipts and presence.
    pub ephemeral: Ephemeral,
    /// What /sync answers with.
    pub syncs: Syncs,
    /// Who waits for it.
    pub waiters: Waiters,
    /// Pictures and files.
    pub media: Media,
    /// Bounds.
    pub limits: Limits,
    /// Limits on requests.
    pub rates: Rates,
    /// Who is believed to say where a request came from.
    pub proxies: Proxies,
    pub(crate) counts: Counts,
    /// Cancelled first: stop accepting, end long polls.
    pub soft_stop: CancellationToken,
    /// Background tasks, awaited before the store is closed.
    pub tasks: TaskTracker,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// Why a server cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] vatra_store::OpenError),
    /// The signing key cannot be read or made.
    #[error("the signing key {file}: {reason}")]
    Key {
        /// Which file.
        file: String,
        /// Why.
        reason: String,
    },
    /// The media folder cannot be opened.
    #[error("media_dir: {0}")]
    Media(#[from] BlobError),
    /// A trusted proxy is no address.
    #[error("client.trusted_proxies: {0} is no address")]
    Proxy(String),
    /// The server's name is none.
    #[error("server_name: {0}")]
    Name(#[from] ruma::IdParseError),
}

impl App {
    /// Builds a server on an engine. The signing key is kept beside the store, in `data_dir`.
    pub async fn build(config: Config, engine: Arc<dyn Engine>) -> Result<Self, BuildError> {
        let clock: SharedClock = Arc::new(SystemClock);
        let random: SharedRandom = Arc::new(SystemRandom);
        let server_name = ServerName::parse(&config.server_name)?;
        let durability = match config.storage.durability {
            Durability::Synced => vatra_store::Durability::Synced,
            Durability::Relaxed => vatra_store::Durability::Relaxed,
        };
        let options = Options {
            durability,
            ..Options::default()
        };
        let store = Store::open(engine, options, schema::migrations()).await?;
        let signer = Arc::new(signing_key(&config.data_dir, server_name.clone(), &*random).await?);

        let ids = Ids::new(store.clone(), 50_000);
        // The engine's caches have half of the budget; events and state share a quarter.
        let quarter = config.storage.memory_budget_bytes / 4;
        let sizes = CacheSizes {
            events: quarter / 2,
            state: quarter / 2,
            ..CacheSizes::default()
        };
        let rooms = Rooms::new(store.clone(), ids.clone(), clock.clone(), signer, sizes);
        let users = Users::new(
            store.clone(),
            ids,
            clock.clone(),
            random.clone(),
            server_name.clone(),
        );
        let blobs = Arc::new(LocalBlobs::open(config.media_dir.clone()).await?);
        let settings = MediaSettings {
            max_upload_bytes: config.media.max_upload_bytes,
            ..MediaSettings::new(server_name.clone())
        };
        let media = Media::new(store.clone(), blobs, clock.clone(), random, settings);

        let ephemeral = Ephemeral::new(store.clone(), clock, config.presence.enabled);
        let (soft_stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let waiters = Waiters::new(rooms.clone());
        tasks.spawn(waiters.clone().run(store.wakes(), soft_stop.clone()));
        tasks.spawn(
            ephemeral
                .presence
                .clone()
                .run(rooms.clone(), soft_stop.clone()),
        );
        let providers = Providers {
            rooms: rooms.clone(),
            users: users.clone(),
            ephemeral: ephemeral.clone(),
            unreads: Unreads::new(100_000),
        };
        let syncs = Syncs::new(rooms.clone(), waiters.clone(), providers, soft_stop.clone());

        let proxies = Proxies::read(&config.client.trusted_proxies)
            .map_err(|text| BuildError::Proxy(text.to_owned()))?;
        let rates = Rates::new(config.rate_limits.enabled);
        let limits = Limits {
            request_bytes: config.client.max_request_bytes,
        };
        let parts = Parts {
            config,
            server_name,
            store,
            users,
            rooms,
            ephemeral,
            syncs,
            waiters,
            media,
            limits,
            rates,
            proxies,
            counts: Counts::default(),
            soft_stop,
            tasks,
        };
        Ok(Self {
            parts: Arc::new(parts),
        })
    }

    /// Ends everything: long polls first, the committer last.
    pub async fn close(&self) {
        self.soft_stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
    }
}

/// Reads the signing key, or makes one at the first start (mode 0600).
async fn signing_key(
    folder: &Path,
    server_name: OwnedServerName,
    random: &dyn vatra_domain::random::Random,
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
            let (version, document) = (vatra_domain::random::name(random, 6), Signer::generate());
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
        std::fs::create_dir_all(folder)?;
    }
    let mut opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    opened.write_all(bytes)?;
    opened.sync_all()?;
    if let Some(folder) = file.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}
