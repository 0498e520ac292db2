//! Mail as the settings have it: templates, the queue with its tasks, and what people validate addresses with.

use std::{path::Path, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vatra_domain::{
    flows::server_notices::ServerNotices,
    followers::{
        mail_sender::{self, MailSender},
        notices::Notices,
    },
    mail::{
        self, Letter, Mailer, Urgency,
        address::canonical,
        templates::{DEFAULT_LANGUAGE, Templates, context},
    },
    rooms::Rooms,
    users::{Users, Validations},
};
use vatra_store::Store;

use crate::{
    config::{self, Config},
    outbound::mail::Smtp,
};

/// The largest template, in bytes.
const LARGEST_TEMPLATE: u64 = 256 << 10;

/// What sends mail.
pub struct Mail {
    /// The queue.
    pub mailer: Mailer,
    /// Letters that let people show that addresses are theirs.
    pub validations: Validations,
    templates: Arc<Templates>,
}

impl Mail {
    /// `None` if there is no mail server.
    ///
    /// # Errors
    /// A message that names key and file.
    pub(crate) fn build(
        config: &Config,
        store: &Store,
        users: &Users,
        templates: &Arc<Templates>,
    ) -> Result<Option<Self>, String> {
        if config.smtp.host.is_empty() {
            return Ok(None);
        }
        let (clock, random) = (users.clock().clone(), users.random().clone());
        let mailer = Mailer::new(mail::Parts {
            store: store.clone(),
            clock: clock.clone(),
            random,
            sender: Arc::new(Smtp::new(&config.smtp, clock)?),
            server_name: users.server_name().to_owned(),
            max_per_hour: config.smtp.max_mails_per_hour,
        });
        let validations = Validations::new(
            users.clone(),
            mailer.clone(),
            templates.clone(),
            &config.client.base_url,
        );
        Ok(Some(Self {
            mailer,
            validations,
            templates: templates.clone(),
        }))
    }

    /// Starts the tasks that send what is queued.
    pub(crate) fn run(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        for urgency in [Urgency::Urgent, Urgency::Other] {
            tasks.spawn(self.mailer.clone().run(urgency, stop.clone()));
        }
    }

    /// Starts the task that writes to people who are away.
    pub(crate) fn write_to_the_away(
        &self,
        config: &Config,
        (notices, rooms, users): (&Notices, &Rooms, &Users),
        server_notices: Option<ServerNotices>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> MailSender {
        let sender = MailSender::new(mail_sender::Parts {
            notices: notices.clone(),
            rooms: rooms.clone(),
            users: users.clone(),
            server_notices,
            mailer: self.mailer.clone(),
            templates: self.templates.clone(),
            base_url: config.client.base_url.trim_end_matches('/').to_owned(),
            delay_ms: config.email.notification_delay_s.saturating_mul(1_000),
            clock: users.clock().clone(),
            shutdown: stop.clone(),
        });
        tasks.spawn(sender.clone().run());
        sender
    }

    /// Sends a letter at once, past the queue, for an operator who tries the settings.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(crate) async fn test(&self, users: &Users, address: &str) -> Result<(), String> {
        let to = canonical(address).ok_or_else(|| format!("{address} is no e-mail address"))?;
        let values = context! {
            server => users.server_name().as_str(), address => to.as_str(), language => DEFAULT_LANGUAGE,
        };
        let content = self
            .validations
            .templates()
            .letter(DEFAULT_LANGUAGE, "test", values)
            .map_err(|error| error.to_string())?;
        let letter = Letter::new(self.mailer.message_id(), to, content);
        let sent = self.mailer.sender().send(&letter).await;
        sent.map_err(|error| error.to_string())
    }
}

/// The templates as the settings have them, of letters and of pages.
///
/// # Errors
/// A message that names key and file.
pub(crate) fn load(config: &Config) -> Result<Templates, String> {
    let folder = config.email.templates_dir.as_path();
    templates(folder)
        .map_err(|reason| format!("email.templates_dir: {}: {reason}", folder.display()))
}

/// The built-in templates and those of a folder; an empty path is none.
fn templates(folder: &Path) -> Result<Templates, String> {
    let mut files = Vec::new();
    if let Some(folder) = config::set(folder) {
        gather(folder, "", &mut files)?;
    }
    Templates::new(files).map_err(|error| error.to_string())
}

/// The files of a folder and of the folders in it, with their paths from the first.
fn gather(folder: &Path, above: &str, files: &mut Vec<(String, String)>) -> Result<(), String> {
    for entry in std::fs::read_dir(folder).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{above}{name}");
        let bad = |reason: &dyn std::fmt::Display| format!("{path}: {reason}");
        let kind = entry.path().metadata().map_err(|error| bad(&error))?;
        if kind.is_dir() && above.is_empty() {
            gather(&entry.path(), &format!("{name}/"), files)?;
        } else if kind.len() > LARGEST_TEMPLATE {
            return Err(bad(&"is larger than 256 KiB"));
        } else {
            let text = std::fs::read_to_string(entry.path()).map_err(|error| bad(&error))?;
            files.push((path, text));
        }
    }
    Ok(())
}
