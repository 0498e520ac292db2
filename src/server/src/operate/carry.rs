//! `vatra media move`: all files carried from where they are to the other place. What is done with them after is the operator's affair:
//! docs/operators.md tells the steps.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use vatra_domain::media::{BlobBackend, Carried};

use crate::{
    config::MediaBackend,
    outbound::s3::Unusable,
    wiring::{self, App},
};

/// How many damaged files are named.
const LINES: usize = 1_000;

/// Where files are carried to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// `media_dir`.
    Disk,
    /// The bucket of `[media.s3]`.
    S3,
}

/// Carries them; with `again`, what is there already is read and hashed too. `progress` hears how far it is.
///
/// # Errors
/// A message for people: one of the places cannot be used, or files are damaged.
pub(super) async fn carry(
    app: &App,
    to: Place,
    again: bool,
    progress: &watch::Sender<Carried>,
) -> Result<Vec<String>, String> {
    let target = target(app, to).await?;
    let each = |carried| {
        progress.send_replace(carried);
    };
    let carried = app.media.carry_to(&*target, again, each).await;
    let (carried, damaged) = carried.map_err(|error| {
        format!("{error}. What was carried is there: run this again and it goes on")
    })?;
    let (copied, was_there) = (
        carried.copied_files,
        carried.files.saturating_sub(carried.copied_files),
    );
    let total = size(carried.copied_bytes);
    let mut lines = vec![format!(
        "{copied} files with {total} were copied, read back and found whole; {was_there} were there, or are gone or damaged"
    )];
    if damaged.is_empty() {
        let to = word(to);
        lines.push(format!(
            "once no server runs, run this again for what came meanwhile; then set media.backend = \"{to}\""
        ));
        return Ok(lines);
    }
    lines.push(format!(
        "{} files are missing or damaged where they are, and are not carried:",
        damaged.len()
    ));
    lines.extend(damaged.iter().take(LINES).map(ToString::to_string));
    Err(lines.join("\n"))
}

async fn target(app: &App, to: Place) -> Result<Box<dyn BlobBackend>, String> {
    let config = &app.config;
    if word(to) == word_of(config.media.backend) {
        let place = config.origin.of("media.backend");
        return Err(format!("{place}: files are kept there already"));
    }
    match to {
        Place::Disk => {
            let folder = wiring::folder(config).await;
            Ok(Box::new(folder.map_err(|error| error.to_string())?))
        }
        Place::S3 if !config.media.s3.is_set() => {
            let place = config.origin.of("media.s3.bucket");
            Err(format!(
                "{place}: name the bucket; a server that runs reads its settings when it starts"
            ))
        }
        Place::S3 => {
            let bucket = wiring::bucket(config).map_err(|error| error.to_string())?;
            match bucket.try_it().await {
                Ok(()) => Ok(Box::new(bucket)),
                Err(Unusable::Refused(text) | Unusable::Away(text)) => {
                    Err(format!("{}: {text}", config.origin.of("media.s3")))
                }
            }
        }
    }
}

fn word(place: Place) -> &'static str {
    match place {
        Place::Disk => "disk",
        Place::S3 => "s3",
    }
}

fn word_of(backend: MediaBackend) -> &'static str {
    match backend {
        MediaBackend::Disk => "disk",
        MediaBackend::S3 => "s3",
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "bytes");
    for next in UNITS {
        if whole < 1_000 {
            break;
        }
        (tenths, unit) = (whole % 1_000 / 100, next);
        whole /= 1_000;
    }
    match unit {
        "bytes" => format!("{whole} {unit}"),
        _ => format!("{whole}.{tenths} {unit}"),
    }
}

/// Shows how far it is: a bar that grows where there is a terminal, else a line for each tenth.
#[derive(Debug, Default)]
pub struct Bar {
    terminal: bool,
    shown: Option<u64>,
}

impl Bar {
    /// Nothing is shown yet.
    pub fn new(terminal: bool) -> Self {
        Self {
            terminal,
            shown: None,
        }
    }

    /// What to print, if anything, without a line break.
    pub fn line(&mut self, carried: Carried) -> Option<String> {
        let (done, all) = (carried.bytes, carried.all_bytes.max(1));
        let percent = done.saturating_mul(100).checked_div(all)?.min(100);
        let figures = format!(
            "{percent:3} %  {} of {}, {} of {} files",
            size(done),
            size(carried.all_bytes),
            carried.files,
            carried.all_files
        );
        if self.terminal {
            let full = usize::try_from(percent / 4).unwrap_or_default();
            let bar = format!(
                "{}{}",
                "#".repeat(full),
                "-".repeat(25_usize.saturating_sub(full))
            );
            return Some(format!("\r\u{1b}[K[{bar}] {figures}"));
        }
        let tenth = percent / 10;
        (self.shown.replace(tenth) != Some(tenth)).then(|| format!("{figures}\n"))
    }

    /// What to print at the end.
    pub fn end(&self) -> &'static str {
        if self.terminal { "\r\u{1b}[K" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_units_that_people_read() {
        for (bytes, told) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1_000, "1.0 kB"),
            (52_428_800, "52.4 MB"),
            (1_999_999_999, "1.9 GB"),
            (u64::MAX, "18446744.0 TB"),
        ] {
            assert_eq!(size(bytes), told);
        }
    }

    #[test]
    fn the_bar_grows_and_without_a_terminal_every_tenth_is_a_line() {
        let at = |bytes| Carried {
            bytes,
            all_bytes: 1_000,
            ..Carried::default()
        };
        let mut bar = Bar::new(true);
        let (half, whole) = (bar.line(at(500)), bar.line(at(1_000)));
        assert!(half.is_some_and(|line| line.contains(&format!("[{}-", "#".repeat(12)))));
        assert!(whole.is_some_and(|line| line.contains(&format!("[{}] 100 %", "#".repeat(25)))));
        let mut lines = Bar::new(false);
        let told: Vec<_> = (0..=1_000)
            .filter_map(|bytes| lines.line(at(bytes)))
            .collect();
        assert_eq!(told.len(), 11, "{told:?}");
        // Without files there is nothing to divide by.
        assert!(Bar::new(true).line(Carried::default()).is_some());
    }
}
