//! The command `vatra`.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;
use vatra::{config::Config, server};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A federated Matrix homeserver.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings (TOML). Without it: a server to try out, on this machine only.
    #[arg(long, short, env = "VATRA_CONFIG")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("vatra: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let config = match &arguments.config {
        Some(file) => Config::read(Some(file)).map_err(|error| error.to_string())?,
        None => Config::try_it(),
    };
    log(&config)?;
    let engine = server::open_engine(&config)
        .await
        .map_err(|error| error.to_string())?;
    let running = server::start(config, engine)
        .await
        .map_err(|error| error.to_string())?;
    println!(
        "vatra {} is {} at http://{}",
        env!("CARGO_PKG_VERSION"),
        running.app.server_name,
        running.client
    );
    if arguments.config.is_none() {
        println!(
            "Trying it out: point a Matrix client at that address and register; data goes to ./data."
        );
    }
    stopped().await.map_err(|error| error.to_string())?;
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}

fn log(config: &Config) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(&config.log.filter).map_err(|error| format!("log.filter: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if config.log.json {
        lines.json().init()
    } else {
        lines.init()
    }
    Ok(())
}

/// Waits for SIGINT or SIGTERM.
async fn stopped() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
