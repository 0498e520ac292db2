//! Taking away media that is too old, or too much: what to spare, and when.
//!
//! Of this server's media, which nobody else has, the pictures of its users and of the rooms that it is in are spared: clients keep
//! them for long without asking again. So is what account data names, if it would go because nobody shows it any more.

use std::{collections::HashSet, time::Duration};

use ruma::events::StateEventType;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vatra_store::{Direction, Range, StoreError};

use crate::{
    media::{Choice, Gone, Media, MediaError, Purged},
    rooms::{RoomError, Rooms},
    schema::{ACCOUNT_DATA, PROFILES, ROOMS},
};

/// How many rows are read at once.
const PAGE: usize = 1_000;

/// Why nothing, or not all, was taken away.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// Media.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// What is to be spared cannot be read.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// Likewise.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Takes media away as the settings say, or only says what would go. `each` hears of every media id. Memory: 100 bytes for each picture
/// that is spared, if this server's media is purged.
pub async fn purge_media(
    media: &Media,
    rooms: &Rooms,
    dry_run: bool,
    each: impl FnMut(&Gone),
) -> Result<Purged, PurgeError> {
    let retracted = media.retracted().await?;
    let own = retracted.iter().filter(|key| media.is_local(key));
    let own: HashSet<&str> = own.map(|(_, id)| id.as_str()).collect();
    let mut spared = HashSet::new();
    if media.purges_local() || !own.is_empty() {
        spare_users(media, rooms, &mut spared).await?;
        spare_rooms(media, rooms, &mut spared).await?;
    }
    if !own.is_empty() {
        spare_account_data(rooms, &own, &mut spared).await?;
    }
    let choice = Choice { spared, retracted };
    Ok(media.purge(dry_run, &choice, each).await?)
}

/// Does so again and again, until the shutdown.
pub async fn run(media: Media, rooms: Rooms, interval: Duration, shutdown: CancellationToken) {
    if !media.purges() {
        return;
    }
    loop {
        let round = tokio::select! {
            () = shutdown.cancelled() => return,
            round = purge_media(&media, &rooms, false, |_| {}) => round,
        };
        match round {
            Ok(Purged { media: 0, .. }) => {}
            Ok(Purged {
                media,
                files,
                bytes,
            }) => {
                info!(media, files, bytes, "media was purged");
            }
            Err(error) => warn!(%error, "media is not purged; the next round tries again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// What `m.room.avatar` says.
#[derive(Deserialize)]
struct Avatar {
    url: Option<String>,
}

async fn spare_users(
    media: &Media,
    rooms: &Rooms,
    spared: &mut HashSet<String>,
) -> Result<(), PurgeError> {
    let mut range = Range::all();
    loop {
        let view = rooms.store().view();
        let rows = view
            .range(&PROFILES, range, Direction::Forward, PAGE)
            .await?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        range = Range::all().after(last);
        for ((_, name), value) in rows {
            if name == "avatar_url"
                && let Ok(url) = serde_json::from_str::<String>(&value)
            {
                spared.extend(media.own_id(&url));
            }
        }
    }
}

/// Of some ids, those that account data has anywhere: ids are long and random, so that a text which has one means it.
async fn spare_account_data(
    rooms: &Rooms,
    own: &HashSet<&str>,
    spared: &mut HashSet<String>,
) -> Result<(), PurgeError> {
    let mut range = Range::all();
    loop {
        let view = rooms.store().view();
        let rows = view
            .range(&ACCOUNT_DATA, range, Direction::Forward, PAGE)
            .await?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        range = Range::all().after(last);
        for (_, row) in rows {
            let words = row
                .content
                .split(|it: char| !it.is_ascii_alphanumeric() && it != '_' && it != '-');
            let named = words.filter(|word| own.contains(word));
            spared.extend(named.map(str::to_owned));
        }
    }
}

async fn spare_rooms(
    media: &Media,
    rooms: &Rooms,
    spared: &mut HashSet<String>,
) -> Result<(), PurgeError> {
    let mut range = Range::all();
    loop {
        let reader = rooms.reader();
        let rows = reader
            .view()
            .range(&ROOMS, range, Direction::Forward, PAGE)
            .await?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        range = Range::all().after(last);
        for (room, _) in rows {
            let avatar = reader
                .state_event(room, &StateEventType::RoomAvatar, "")
                .await?;
            let content = avatar.and_then(|event| event.pdu.content_as::<Avatar>().ok());
            let url = content.and_then(|content| content.url);
            spared.extend(url.and_then(|url| media.own_id(&url)));
        }
    }
}
