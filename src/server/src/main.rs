//! The command `vatra`.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use vatra::{
    config::Config,
    operate::{
        self, Command,
        carry::{Bar, Place},
        health, restore,
    },
    server,
};
use vatra_domain::users::moderation::Measure;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A federated Matrix homeserver. Without a command: the server itself.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings (TOML). Without it: a server to try out, on this machine only.
    #[arg(long, short, env = "VATRA_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    operation: Option<Operation>,
}

/// `restore` wants no server on the data, `health` one that runs; the others work either way.
#[derive(Subcommand)]
enum Operation {
    /// Accounts of this server. Passwords are read from the standard input.
    #[command(subcommand)]
    User(UserOperation),
    /// Copies store, media and signing key to a new folder, while the server runs.
    Backup {
        /// The folder.
        folder: PathBuf,
    },
    /// Puts a backup where no store is yet.
    Restore {
        /// The backup's folder.
        folder: PathBuf,
    },
    /// Reads everything and says what does not agree.
    Check {
        /// Writes derived rows anew, and takes away files that nothing names; never an event or a file that is named.
        #[arg(long)]
        repair: bool,
    },
    /// Pictures and files.
    #[command(subcommand)]
    Media(MediaOperation),
    /// Mail.
    #[command(subcommand)]
    Mail(MailOperation),
    /// Asks the running server whether it takes writes; fails if it does not, or does not answer.
    Health,
}

#[derive(Subcommand)]
enum MediaOperation {
    /// Carries all files to the other place. Run again, it goes on; nothing is taken away where they are.
    Move {
        /// Where to.
        to: Place,
        /// Reads and hashes what is there already, too.
        #[arg(long)]
        again: bool,
    },
    /// Takes away what is too old, or too much, as the settings say; the server does so by itself from time to time.
    Purge {
        /// Only says what would go.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Subcommand)]
enum MailOperation {
    /// Sends a letter at once and says what the mail server answers.
    Test {
        /// To whom.
        address: String,
    },
}

#[derive(Subcommand)]
enum UserOperation {
    /// Makes an account.
    Create {
        /// Its local part.
        name: String,
        /// It may use the admin API.
        #[arg(long)]
        admin: bool,
    },
    /// Sets a new password and logs out all devices.
    Password {
        /// Local part or user id.
        name: String,
    },
    /// Ends an account for good: it leaves its rooms, and its name stays taken.
    Deactivate {
        /// Local part or user id.
        name: String,
        /// Who joins the user's rooms later is not shown what the user has said there.
        #[arg(long)]
        erase: bool,
    },
    /// Lets an account use the admin API.
    Admin {
        /// Local part or user id.
        name: String,
        /// Takes the right away.
        #[arg(long)]
        revoke: bool,
    },
    /// Keeps the user out; the sessions are kept.
    Lock {
        /// Local part or user id.
        name: String,
    },
    /// Lets the user in again.
    Unlock {
        /// Local part or user id.
        name: String,
    },
    /// Lets the user read and leave, but not speak or join.
    Suspend {
        /// Local part or user id.
        name: String,
    },
    /// Lets the user speak and join again.
    Unsuspend {
        /// Local part or user id.
        name: String,
    },
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
    let config = Config::read(arguments.config.as_deref()).map_err(|error| error.to_string())?;
    if let Some(operation) = arguments.operation {
        for line in operate(config, operation).await? {
            println!("{line}");
        }
        return Ok(());
    }
    log(&config)?;
    let engine = server::open_engine(&config)
        .await
        .map_err(|error| error.to_string())?;
    let data = config.data_dir.clone();
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
            "Trying it out: {} and register; data goes to {}.",
            match running.app.web_client {
                Some(_) => "open that address in a browser, or point a Matrix client at it,",
                None => "point a Matrix client at that address",
            },
            data.display()
        );
    }
    stopped().await.map_err(|error| error.to_string())?;
    tracing::info!("stopping");
    tokio::select! {
        () = running.stop() => Ok(()),
        // The store survives it, as it does a kill.
        _ = stopped() => Err("a second signal: stopped at once".to_owned()),
    }
}

async fn operate(config: Config, operation: Operation) -> Result<Vec<String>, String> {
    let command = match operation {
        Operation::Restore { folder } => return restore::restore(&config, &folder).await,
        Operation::Health => return health::health(config.client.listen).await,
        Operation::Backup { folder } => {
            // The server that runs may stand in another folder.
            let folder = std::path::absolute(&folder)
                .map_err(|error| format!("{}: {error}", folder.display()))?;
            Command::Backup { folder }
        }
        Operation::Check { repair } => Command::Check { repair },
        Operation::Media(MediaOperation::Move { to, again }) => Command::MoveMedia { to, again },
        Operation::Media(MediaOperation::Purge { dry_run }) => Command::PurgeMedia { dry_run },
        Operation::Mail(MailOperation::Test { address }) => Command::MailTest { address },
        Operation::User(UserOperation::Create { name, admin }) => Command::CreateUser {
            name,
            password: password()?,
            admin,
        },
        Operation::User(UserOperation::Password { name }) => Command::SetPassword {
            name,
            password: password()?,
        },
        Operation::User(UserOperation::Deactivate { name, erase }) => {
            Command::Deactivate { name, erase }
        }
        Operation::User(UserOperation::Admin { name, revoke }) => Command::SetAdmin {
            name,
            admin: !revoke,
        },
        Operation::User(UserOperation::Lock { name }) => moderate(name, Measure::Lock, true),
        Operation::User(UserOperation::Unlock { name }) => moderate(name, Measure::Lock, false),
        Operation::User(UserOperation::Suspend { name }) => moderate(name, Measure::Suspend, true),
        Operation::User(UserOperation::Unsuspend { name }) => {
            moderate(name, Measure::Suspend, false)
        }
    };
    let mut bar = Bar::new(std::io::stderr().is_terminal());
    let mut told = std::io::stderr();
    let result = operate::run_telling(config, command, |carried| {
        if let Some(line) = bar.line(carried) {
            // Nobody may be there to see it.
            let _ = told.write_all(line.as_bytes());
        }
    })
    .await;
    let _ = told.write_all(bar.end().as_bytes());
    result
}

fn moderate(name: String, measure: Measure, on: bool) -> Command {
    Command::Moderate { name, measure, on }
}

/// A line of the standard input: an argument would be seen by everyone on the machine.
fn password() -> Result<String, String> {
    if std::io::stdin().is_terminal() {
        eprint!("password: ");
    }
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| error.to_string())?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("a password is needed, as a line of the standard input".to_owned());
    }
    Ok(password.to_owned())
}

fn log(config: &Config) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(&config.log.filter).map_err(|error| format!("log.filter: {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
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
