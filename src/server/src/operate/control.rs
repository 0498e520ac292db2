//! How a command reaches the server that runs on a `data_dir`: a socket in it that only its owner can open.
//!
//! One JSON object with the command; then, each on a line, how far it is, and the answer; then the end. The folder's permissions are the
//! authentication.

use std::{os::unix::fs::PermissionsExt, path::Path};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use vatra_domain::media::Carried;

use super::{Command, execute, last, next};
use crate::wiring::App;

type Answer = Result<Vec<String>, String>;

/// A line of what the server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// How far it is.
    Progress(Carried),
    /// It is done, or cannot be.
    Answer(Answer),
}

const NAME: &str = "control.sock";
/// More than any command needs.
const MOST_BYTES: u64 = 64 << 10;
/// How long a command may take to be written.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Opens the socket. The caller holds the store, so what is left of an earlier server can go.
///
/// # Errors
/// The folder cannot be written, or its path is too long for a socket.
pub fn open(data_dir: &Path) -> std::io::Result<UnixListener> {
    let path = data_dir.join(NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers commands until `stop`.
pub async fn serve(listener: UnixListener, app: App, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (tasks, app) = (app.tasks.clone(), app.clone());
                tasks.spawn(async move {
                    if let Err(error) = answer(stream, &app).await {
                        debug!(%error, "an operator's command was not answered");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "the control socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, app: &App) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let mut limited = (&mut stream).take(MOST_BYTES);
    tokio::time::timeout(PATIENCE, limited.read_to_end(&mut bytes)).await??;
    let answer: Answer = match serde_json::from_slice::<Command>(&bytes) {
        Ok(command) => {
            let progress = watch::Sender::default();
            let mut heard = progress.subscribe();
            let mut work = Box::pin(execute(app, command, &progress));
            let done = loop {
                tokio::select! {
                    done = &mut work => break done,
                    // If nobody hears it any more, the work ends.
                    carried = next(&mut heard) => say(&mut stream, &Said::Progress(carried)).await?,
                }
            };
            if let Some(carried) = last(&mut heard) {
                say(&mut stream, &Said::Progress(carried)).await?;
            }
            done
        }
        Err(error) => Err(format!(
            "the running server does not know this command: {error}"
        )),
    };
    say(&mut stream, &Said::Answer(answer)).await?;
    stream.shutdown().await
}

async fn say(stream: &mut UnixStream, said: &Said) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Asks the running server; `None` if none runs. `each` hears how far it is.
///
/// # Errors
/// It runs and cannot be asked.
pub async fn ask(
    data_dir: &Path,
    command: &Command,
    each: &mut impl FnMut(Carried),
) -> Result<Option<Answer>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the running server: {error}");
    // Nobody listens: there is no server, or it was killed and left its socket.
    let Ok(mut stream) = UnixStream::connect(data_dir.join(NAME)).await else {
        return Ok(None);
    };
    let bytes = serde_json::to_vec(command).map_err(|error| failed(&error))?;
    stream
        .write_all(&bytes)
        .await
        .map_err(|error| failed(&error))?;
    stream.shutdown().await.map_err(|error| failed(&error))?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.map_err(|error| failed(&error))? {
        match serde_json::from_str(&line).map_err(|error| failed(&error))? {
            Said::Progress(carried) => each(carried),
            Said::Answer(answer) => return Ok(Some(answer)),
        }
    }
    Err(failed(&"it has ended before its answer"))
}
