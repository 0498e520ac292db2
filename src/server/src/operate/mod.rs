//! What an operator does beside running the server: accounts, backup, check.
//!
//! Each command is one function over [`App`]. If a server runs on the `data_dir`, the command is handed to it through
//! [`control`] (only one process may write a store); if none does, the command opens the store itself. Restoring is for a server
//! that does not run: see [`restore`].

pub mod backup;
pub mod carry;
pub mod control;
pub mod health;
pub mod restore;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use vatra_domain::{
    audit::Problem,
    flows::{self, leave::leave_all},
    followers::media_shown,
    media::{Carried, Gone},
    users::{NewAccount, Requester, moderation::Measure},
};

use crate::{config::Config, server, wiring::App};

/// A command that needs the store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A new account.
    CreateUser {
        /// Its local part.
        name: String,
        /// Its password.
        password: String,
        /// May use the admin API.
        admin: bool,
    },
    /// A new password; all devices are logged out.
    SetPassword {
        /// Local part or user id.
        name: String,
        /// The password.
        password: String,
    },
    /// Leaves all rooms, ends all devices; the name stays taken.
    Deactivate {
        /// Local part or user id.
        name: String,
        /// What the user has said is not shown to those who come later.
        erase: bool,
    },
    /// Gives or takes the right to use the admin API.
    SetAdmin {
        /// Local part or user id.
        name: String,
        /// Whether to give it.
        admin: bool,
    },
    /// Takes a measure against an account, or takes it back.
    Moderate {
        /// Local part or user id.
        name: String,
        /// Which.
        measure: Measure,
        /// Whether to take it.
        on: bool,
    },
    /// Copies everything to a new folder.
    Backup {
        /// The folder, absolute.
        folder: PathBuf,
    },
    /// Sends a letter, to try the settings.
    MailTest {
        /// To whom.
        address: String,
    },
    /// Takes away media that is too old, or too much, as the settings say.
    PurgeMedia {
        /// Only says what would go.
        dry_run: bool,
    },
    /// Carries all media to the other place.
    MoveMedia {
        /// Where to.
        to: carry::Place,
        /// What is there already is read and hashed too.
        again: bool,
    },
    /// Reads everything and says what does not agree.
    Check {
        /// Writes derived rows anew.
        repair: bool,
    },
}

/// How often it is told how far a command is.
const EACH: Duration = Duration::from_millis(200);

/// Runs a command: by the server on this `data_dir` if there is one, else here. Gives the lines to print.
///
/// # Errors
/// A message for people.
pub async fn run(config: Config, command: Command) -> Result<Vec<String>, String> {
    run_telling(config, command, |_| {}).await
}

/// The same; `each` hears how far it is.
///
/// # Errors
/// A message for people.
pub async fn run_telling(
    config: Config,
    command: Command,
    mut each: impl FnMut(Carried),
) -> Result<Vec<String>, String> {
    if let Some(answer) = control::ask(&config.data_dir, &command, &mut each).await? {
        return answer;
    }
    let engine = server::open_engine(&config)
        .await
        .map_err(|error| error.to_string())?;
    let app = App::build(config, engine)
        .await
        .map_err(|error| error.to_string())?;
    let progress = watch::Sender::default();
    let mut heard = progress.subscribe();
    let mut work = Box::pin(execute(&app, command, &progress));
    let result = loop {
        tokio::select! {
            done = &mut work => break done,
            carried = next(&mut heard) => each(carried),
        }
    };
    drop(work);
    if let Some(carried) = last(&mut heard) {
        each(carried);
    }
    app.close().await;
    result
}

/// How far it is at the end, if that was not told.
fn last(heard: &mut watch::Receiver<Carried>) -> Option<Carried> {
    let changed = heard.has_changed().unwrap_or(false);
    changed.then(|| *heard.borrow_and_update())
}

/// How far it is, when that has changed.
async fn next(heard: &mut watch::Receiver<Carried>) -> Carried {
    loop {
        tokio::time::sleep(EACH).await;
        if let Some(carried) = last(heard) {
            return carried;
        }
    }
}

/// Does it; `progress` is told how far it is.
pub(crate) async fn execute(
    app: &App,
    command: Command,
    progress: &watch::Sender<Carried>,
) -> Result<Vec<String>, String> {
    let users = &app.users;
    let told = |error: vatra_domain::users::UsersError| error.to_string();
    match command {
        Command::CreateUser {
            name,
            password,
            admin,
        } => {
            let new = NewAccount {
                name: Some(name),
                password: Some(password),
                admin,
                ..NewAccount::default()
            };
            let (user, _) = users.register(new).await.map_err(told)?;
            Ok(vec![format!("{user} can log in")])
        }
        Command::SetPassword { name, password } => {
            let user = find_active(app, &name).await?;
            users.set_password(user.sid, password).await.map_err(told)?;
            users.logout_all(user.sid, None).await.map_err(told)?;
            Ok(vec![format!(
                "{} has a new password and is logged out everywhere",
                user.user
            )])
        }
        Command::Deactivate { name, erase } => {
            let user = find(app, &name).await?;
            leave_all(users, &app.receiver, &user)
                .await
                .map_err(|error| error.to_string())?;
            users.deactivate(user.sid, erase).await.map_err(told)?;
            Ok(vec![format!("{} is deactivated", user.user)])
        }
        Command::SetAdmin { name, admin } => {
            let user = find_active(app, &name).await?;
            users.set_admin(user.sid, admin).await.map_err(told)?;
            let now = if admin {
                "may use"
            } else {
                "may no longer use"
            };
            Ok(vec![format!("{} {now} the admin API", user.user)])
        }
        Command::Moderate { name, measure, on } => {
            let user = find_active(app, &name).await?;
            users
                .set_measure(user.sid, measure, on)
                .await
                .map_err(told)?;
            let now = match (measure, on) {
                (Measure::Lock, true) => "is locked",
                (Measure::Lock, false) => "is not locked",
                (Measure::Suspend, true) => "is suspended",
                (Measure::Suspend, false) => "is not suspended",
            };
            Ok(vec![format!("{} {now}", user.user)])
        }
        Command::MailTest { address } => test_mail(app, &address).await,
        Command::Backup { folder } => backup::backup(app, &folder).await,
        Command::PurgeMedia { dry_run } => purge_media(app, dry_run).await,
        Command::MoveMedia { to, again } => carry::carry(app, to, again, progress).await,
        Command::Check { repair } => check(app, repair).await,
    }
}

async fn test_mail(app: &App, address: &str) -> Result<Vec<String>, String> {
    let smtp = &app.config.smtp;
    let mail = app
        .mail
        .as_ref()
        .ok_or("no mail is sent: smtp.host is not set")?;
    let server = format!("{}:{}", smtp.host, smtp.port);
    match mail.test(&app.users, address).await {
        Ok(()) => Ok(vec![format!("{server} took a letter to {address}")]),
        Err(reason) => Err(format!("no letter was sent through {server}: {reason}")),
    }
}

/// A user whose account was not deactivated.
async fn find_active(app: &App, name: &str) -> Result<Requester, String> {
    let user = find(app, name).await?;
    let account = app.users.account(user.sid).await;
    let account = account.map_err(|error| error.to_string())?;
    if account.is_none_or(|account| account.deactivated) {
        return Err(format!("{} is deactivated", user.user));
    }
    Ok(user)
}

async fn find(app: &App, name: &str) -> Result<Requester, String> {
    let found = app
        .users
        .find(name)
        .await
        .map_err(|error| error.to_string())?;
    let (user, sid) =
        found.ok_or_else(|| format!("there is no account {name} on {}", app.server_name))?;
    Ok(Requester {
        user,
        sid,
        device: None,
        admin: false,
        service: None,
        suspended: false,
        guest: false,
    })
}

async fn purge_media(app: &App, dry_run: bool) -> Result<Vec<String>, String> {
    if !app.media.purges() {
        return Err(
            "nothing is ever purged: set media.remote_max_age_s, media.remote_max_bytes, media.local_max_age_s or media.redacted_max_age_s"
                .to_owned(),
        );
    }
    let mut lines = Vec::new();
    let each = |gone: &Gone| {
        if lines.len() < LINES {
            let (server, id, size) = (&gone.server, &gone.id, gone.size);
            lines.push(format!("mxc://{server}/{id}: {size} bytes"));
        }
    };
    let purged = flows::purge_media::purge_media(&app.media, &app.rooms, dry_run, each).await;
    let purged = purged.map_err(|error| error.to_string())?;
    if purged.media > u64::try_from(lines.len()).unwrap_or(u64::MAX) {
        lines.push(format!("only the first {LINES} are shown"));
    }
    let done = if dry_run { "would go" } else { "are gone" };
    lines.push(format!(
        "{} media, {} files with {} bytes {done}",
        purged.media, purged.files, purged.bytes
    ));
    Ok(lines)
}

/// How many problems `vatra check` prints, and media `vatra media purge`.
const LINES: usize = 10_000;

async fn check(app: &App, repair: bool) -> Result<Vec<String>, String> {
    let (mut lines, mut left) = (Vec::new(), 0);
    let mut tell = |problem: &dyn std::fmt::Display, mended: bool| {
        left += u64::from(!(repair && mended));
        if lines.len() < LINES {
            lines.push(problem.to_string());
        }
    };
    let mut row = |problem: Problem| tell(&problem, problem.is_derived());
    let rooms = app.rooms.check(repair, &mut row).await;
    let rooms = rooms.map_err(|error| error.to_string())?;
    let users = app.users.check(repair, &mut row).await;
    let users = users.map_err(|error| error.to_string())?;
    let keys = app.e2ee.check(repair, &mut row).await;
    let keys = keys.map_err(|error| error.to_string())?;
    let shown = media_shown::check(&app.rooms, repair, &mut row).await;
    let shown = shown.map_err(|error| error.to_string())?;
    let media = app
        .media
        .check(repair, |problem| tell(&problem, problem.is_derived()));
    let media = media.await.map_err(|error| error.to_string())?;
    if repair {
        // A server that runs has read some of the rows that are new now.
        app.rooms.forget().await;
        app.syncs.forget().await;
    }
    let problems = rooms.problems + users + keys + media.problems + shown;
    if problems > u64::try_from(lines.len()).unwrap_or(u64::MAX) {
        lines.push(format!("only the first {LINES} are shown"));
    }
    lines.push(format!(
        "{} events, {} memberships, {} media, {} files with {} bytes: {problems} problems",
        rooms.events, rooms.memberships, media.media, media.blobs, media.bytes
    ));
    if left > 0 {
        return Err(lines.join("\n"));
    }
    Ok(lines)
}
