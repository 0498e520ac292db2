//! A running server: the built parts behind their listeners.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tracing::warn;
use vatra_domain::flows::purge_media;
use vatra_store::Engine;
use vatra_store_rocksdb::{RocksEngine, Settings};

use crate::{
    config::{Config, set},
    folders, http, listen,
    operate::{control, restore},
    wiring::App,
};

/// A server that runs. Stop it with [`Running::stop`].
pub struct Running {
    /// The parts.
    pub app: App,
    /// Where the client-server API listens (the port is known even if the settings said 0).
    pub client: SocketAddr,
    /// Where the second listener listens.
    pub federation: Option<SocketAddr>,
    /// Where the metrics page is.
    pub metrics: Option<SocketAddr>,
    listeners: Vec<JoinHandle<()>>,
}

/// Why a server does not start. The message is for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Opens the store of these settings; refused where a restore was cut short.
pub async fn open_engine(config: &Config) -> Result<Arc<dyn Engine>, StartError> {
    if let Some(reason) = restore::cut_short(&config.data_dir) {
        return Err(StartError(reason));
    }
    let folder = config.data_dir.join("store");
    folders::make(&folder).map_err(|error| {
        let (place, folder) = (config.origin.of("data_dir"), folder.display());
        StartError(format!(
            "{place}: {folder}: {error}. Name a folder that this server may write to"
        ))
    })?;
    let settings = Settings {
        memory_budget_bytes: config.storage.memory_budget_bytes / 2,
    };
    Ok(Arc::new(
        RocksEngine::open(folder, &settings)
            .await
            .map_err(StartError::new)?,
    ))
}

/// Starts a server on an engine and returns once it listens.
pub async fn start(config: Config, engine: Arc<dyn Engine>) -> Result<Running, StartError> {
    let app = App::build(config, engine).await.map_err(StartError::new)?;
    let config = &app.config;
    let bind = async |address: SocketAddr, key: &str| {
        let listener = TcpListener::bind(address).await;
        listener.map_err(|error| {
            let place = config.origin.of(key);
            StartError(format!(
                "{place}: {address}: {error}. Write an address of this machine and a free port"
            ))
        })
    };
    let router = http::router(app.clone());
    let patience = listen::Patience::default();
    let mut listeners = Vec::new();

    let listener = bind(config.client.listen, "client.listen").await?;
    let client = listener.local_addr().map_err(StartError::new)?;
    listeners.push(tokio::spawn(listen::serve(
        listener,
        None,
        router.clone(),
        app.soft_stop.clone(),
        patience,
    )));

    let mut federation = None;
    if config.federation.enabled {
        let tls = match set(&config.federation.tls_cert).zip(set(&config.federation.tls_key)) {
            Some((cert, key)) => Some(listen::tls(cert, key).map_err(StartError::new)?),
            None => None,
        };
        let listener = bind(config.federation.listen, "federation.listen").await?;
        federation = Some(listener.local_addr().map_err(StartError::new)?);
        listeners.push(tokio::spawn(listen::serve(
            listener,
            tls,
            router,
            app.soft_stop.clone(),
            patience,
        )));
    }
    let mut metrics = None;
    if let Ok(address) = config.metrics.listen.parse() {
        let listener = bind(address, "metrics.listen").await?;
        metrics = Some(listener.local_addr().map_err(StartError::new)?);
        let router = http::metrics_router(app.clone());
        listeners.push(tokio::spawn(listen::serve(
            listener,
            None,
            router,
            app.soft_stop.clone(),
            patience,
        )));
    }
    // Only by a server that runs: an operator who asks what would go finds it all there.
    app.tasks.spawn(purge_media::run(
        app.media.clone(),
        app.rooms.clone(),
        Duration::from_secs(config.media.purge_interval_s),
        app.soft_stop.clone(),
    ));
    match control::open(&config.data_dir) {
        Ok(listener) => {
            let serving = control::serve(listener, app.clone(), app.soft_stop.clone());
            listeners.push(tokio::spawn(serving));
        }
        Err(error) => warn!(%error, "operator's commands need the server stopped"),
    }
    Ok(Running {
        app,
        client,
        federation,
        metrics,
        listeners,
    })
}

impl Running {
    /// Stops accepting, lets requests finish, ends long polls, and closes the store last.
    pub async fn stop(self) {
        self.app.soft_stop.cancel();
        for listener in self.listeners {
            // A listener that panicked has nothing left to finish.
            let _ = listener.await;
        }
        self.app.close().await;
    }
}
