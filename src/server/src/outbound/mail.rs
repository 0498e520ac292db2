//! Letters handed to the operator's mail server over SMTP (lettre). Certificates are always checked.

use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        self, PoolConfig,
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use vatra_domain::{
    clock::SharedClock,
    mail::{Letter, SendError, SendMail},
};

use crate::config::{self, SmtpTls};

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(20);
/// How long a letter may take, with the connection.
const LETTER: Duration = Duration::from_secs(60);
/// How many connections are kept, and for how long.
const CONNECTIONS: u32 = 8;
const IDLE: Duration = Duration::from_secs(60);

/// A sender, with a name or without.
pub(crate) fn mailbox(text: &str) -> Option<Mailbox> {
    let plain = !text.contains(char::is_control);
    text.parse().ok().filter(|_| plain)
}

/// The mail server.
pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    clock: SharedClock,
}

impl Smtp {
    /// # Errors
    /// A message that names key and file.
    pub(crate) fn new(settings: &config::Smtp, clock: SharedClock) -> Result<Self, String> {
        let tls = match settings.tls {
            SmtpTls::None => Tls::None,
            SmtpTls::Starttls => Tls::Required(parameters(settings)?),
            SmtpTls::Tls => Tls::Wrapper(parameters(settings)?),
        };
        let pool = PoolConfig::new().max_size(CONNECTIONS).idle_timeout(IDLE);
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&*settings.host)
            .port(settings.port)
            .tls(tls)
            .timeout(Some(COMMAND))
            .pool_config(pool);
        if !settings.username.is_empty() {
            if settings.tls == SmtpTls::None {
                tracing::warn!("smtp.tls is none: the password goes in the clear");
            }
            let (name, password) = (settings.username.clone(), settings.password.clone());
            builder = builder.credentials(Credentials::new(name, password));
        }
        Ok(Self {
            transport: builder.build(),
            from: mailbox(&settings.from).ok_or("smtp.from: is no address")?,
            clock,
        })
    }

    fn message(&self, letter: &Letter) -> Result<Message, String> {
        let to: Mailbox = letter.to.parse().map_err(|error| format!("{error}"))?;
        let now = UNIX_EPOCH
            .checked_add(Duration::from_millis(self.clock.now()))
            .unwrap_or(UNIX_EPOCH);
        let mut builder = Message::builder()
            .from(self.from.clone())
            .to(to)
            .date(now)
            .subject(&*letter.subject)
            .raw_header(header("Message-ID", &letter.id)?)
            // Nobody's absence is told to this server (RFC 3834).
            .raw_header(header("Auto-Submitted", "auto-generated")?);
        if let Some(first) = &letter.follows {
            builder = builder
                .raw_header(header("In-Reply-To", first)?)
                .raw_header(header("References", first)?);
        }
        if let Some(list) = &letter.list {
            builder = builder
                .raw_header(header("List-Id", &format!("<{}>", list.id))?)
                .raw_header(header(
                    "List-Unsubscribe",
                    &format!("<{}>", list.unsubscribe),
                )?)
                .raw_header(header(
                    "List-Unsubscribe-Post",
                    "List-Unsubscribe=One-Click",
                )?);
        }
        let message = if letter.html.is_empty() {
            builder.singlepart(SinglePart::plain(letter.text.clone()))
        } else {
            let parts = MultiPart::alternative_plain_html(letter.text.clone(), letter.html.clone());
            builder.multipart(parts)
        };
        message.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl SendMail for Smtp {
    async fn send(&self, letter: &Letter) -> Result<(), SendError> {
        let message = self.message(letter).map_err(SendError::Never)?;
        match tokio::time::timeout(LETTER, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(judged(&error)),
            Err(_) => Err(SendError::Unreachable("it takes too long".to_owned())),
        }
    }
}

/// A header of visible ASCII, as it is: what else stands in one, such as the end of a line, makes no letter.
fn header(name: &'static str, value: &str) -> Result<HeaderValue, String> {
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{name} would hold more than visible ASCII"));
    }
    let name = HeaderName::new_from_ascii_str(name);
    let value = value.to_owned();
    Ok(HeaderValue::dangerous_new_pre_encoded(
        name,
        value.clone(),
        value,
    ))
}

fn parameters(settings: &config::Smtp) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(settings.host.clone());
    if let Some(file) = config::set(&settings.trusted_ca) {
        let bad =
            |error: &dyn std::fmt::Display| format!("smtp.trusted_ca: {}: {error}", file.display());
        let pem = std::fs::read(file).map_err(|error| bad(&error))?;
        if !String::from_utf8_lossy(&pem).contains("BEGIN CERTIFICATE") {
            return Err(bad(&"it holds no certificate"));
        }
        let certificate = Certificate::from_pem(&pem).map_err(|error| bad(&chain(&error)))?;
        builder = builder.add_root_certificate(certificate);
    }
    let built = builder.build_rustls();
    built.map_err(|error| format!("smtp.trusted_ca or smtp.host: {}", chain(&error)))
}

fn judged(error: &smtp::Error) -> SendError {
    let text = chain(error);
    let code = error.status().map(u16::from);
    match code {
        // What is wrong is this server's login, not the letter (RFC 4954).
        Some(454 | 530 | 534 | 535 | 538) => SendError::Unreachable(text),
        // The service is closing (RFC 5321).
        Some(421) => SendError::Unreachable(text),
        Some(_) if error.is_permanent() => SendError::Never(text),
        Some(_) => SendError::Later(text),
        // Before anything was sent: an address that the server's mail protocol cannot carry, or a login that the server does not offer.
        None if error.is_client() && text.contains("SMTPUTF8") => SendError::Never(text),
        None => SendError::Unreachable(text),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use vatra_domain::{
        clock::ManualClock,
        mail::{List, templates::Rendered},
    };

    use super::*;
    use crate::config::Config;

    fn smtp() -> Smtp {
        let mut settings = Config::default().smtp;
        settings.host = "mail.example.org".to_owned();
        settings.from = "Căminul <hearth@example.org>".to_owned();
        Smtp::new(&settings, ManualClock::new(1_800_000_000_000)).unwrap()
    }

    fn letter() -> Letter {
        let content = Rendered {
            subject: "Bună, Ștefan".to_owned(),
            text: "linkul".to_owned(),
            html: "<p>linkul</p>".to_owned(),
        };
        Letter::new(
            "<a.b@example.org>".to_owned(),
            "ana@example.org".to_owned(),
            content,
        )
    }

    fn written(letter: &Letter) -> String {
        String::from_utf8(smtp().message(letter).unwrap().formatted()).unwrap()
    }

    #[tokio::test]
    async fn a_letter_has_text_and_html_and_its_own_id() {
        let list = List {
            id: "notifications.example.org".to_owned(),
            unsubscribe: format!("https://example.org/{}", "x".repeat(200)),
        };
        let letter = Letter {
            follows: Some("<first@example.org>".to_owned()),
            list: Some(list.clone()),
            ..letter()
        };
        let written = written(&letter);
        for line in [
            "To: ana@example.org",
            "Message-ID: <a.b@example.org>",
            "Auto-Submitted: auto-generated",
            "In-Reply-To: <first@example.org>",
            "References: <first@example.org>",
            "List-Id: <notifications.example.org>",
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
            "Date: Fri, 15 Jan 2027 08:00:00 +0000",
        ] {
            assert!(
                written.contains(&format!("{line}\r\n")),
                "{line}: {written}"
            );
        }
        assert!(written.contains(&format!("List-Unsubscribe: <{}>", list.unsubscribe)));
        assert!(written.contains("multipart/alternative"));
        assert!(written.contains("text/plain") && written.contains("text/html"));
        assert!(written.is_ascii(), "{written}");
    }

    #[tokio::test]
    async fn no_field_of_a_letter_makes_another_header() {
        let evil = "x\r\nBcc: eve@example.org\r\n\r\nbody";
        let good = letter();
        let content = |subject: &str| Rendered {
            subject: subject.to_owned(),
            text: evil.to_owned(),
            html: evil.to_owned(),
        };
        let subject = Letter::new(good.id.clone(), good.to.clone(), content(evil));
        let bare = Letter {
            subject: evil.to_owned(),
            ..good.clone()
        };
        for letter in [subject, bare] {
            let written = written(&letter);
            let (head, _) = written.split_once("\r\n\r\n").unwrap();
            assert!(!head.contains("\r\nBcc"), "{head}");
        }
        let list = |id: &str, unsubscribe: &str| {
            Some(List {
                id: id.to_owned(),
                unsubscribe: unsubscribe.to_owned(),
            })
        };
        for letter in [
            Letter {
                id: evil.to_owned(),
                ..good.clone()
            },
            Letter {
                to: format!("ana@example.org{evil}"),
                ..good.clone()
            },
            Letter {
                follows: Some(evil.to_owned()),
                ..good.clone()
            },
            Letter {
                list: list(evil, "https://example.org"),
                ..good.clone()
            },
            Letter {
                list: list("example.org", evil),
                ..good.clone()
            },
        ] {
            assert!(smtp().message(&letter).is_err(), "{letter:?}");
        }
        for from in [evil, "Eve\r\nBcc: <e@example.org>", "a@b\n.c"] {
            assert_eq!(mailbox(from), None, "{from:?}");
        }
    }
}
