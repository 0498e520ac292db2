//! What shows media, and that it goes when nothing does any more.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use ruma::{OwnedEventId, OwnedRoomId, server_name};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use vatra_store::{Key, Map, Value};

use super::{
    super::{
        Status,
        push_sender::tests::world::{World, draft},
        run,
    },
    *,
};
use crate::{
    event::build::Draft,
    flows::purge_media::purge_media,
    media::{self, LocalBlobs, Settings, Upload},
    random::SystemRandom,
    schema::GLOBAL,
    users::Requester,
};

/// How long media is kept after it was last shown, in milliseconds.
const KEPT: u64 = 10_000;

/// A server that follows, and where its files are.
struct Bench {
    world: World,
    media: media::Media,
    status: Arc<Status>,
    stop: CancellationToken,
    alice: Requester,
    room: OwnedRoomId,
    _folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let world = World::new().await;
        let folder = tempfile::tempdir().unwrap();
        let blobs = LocalBlobs::open(folder.path().to_owned()).await.unwrap();
        let settings = Settings {
            retracted_max_age_ms: Some(KEPT),
            ..Settings::new(server_name!("here").to_owned())
        };
        let media = media::Media::new(
            world.store.clone(),
            Arc::new(blobs),
            world.clock.clone(),
            Arc::new(SystemRandom),
            settings,
            None,
        );
        let (status, stop) = (Status::new(NAME), CancellationToken::new());
        let follower = Arc::new(MediaShown::new(world.rooms.clone(), world.clock.clone()));
        let (store, status_of) = (world.store.clone(), status.clone());
        tokio::spawn(run(follower, store, status_of, stop.clone()));
        let alice = world.user("alice").await;
        let room = world.room(&alice).await;
        Self {
            world,
            media,
            status,
            stop,
            alice,
            room,
            _folder: folder,
        }
    }

    async fn upload(&self, text: &str) -> String {
        let upload = Upload {
            uploader: self.alice.user.clone(),
            content_type: None,
            filename: None,
            announced_bytes: None,
        };
        let body = futures::stream::iter([Ok::<_, std::io::Error>(text.to_owned().into())]);
        self.media.upload(upload, body).await.unwrap().to_string()
    }

    async fn shows(&self, who: &Requester, uri: &str) -> OwnedEventId {
        let content = json!({ "msgtype": "m.file", "body": "a file", "url": uri });
        let message = draft(who.user.as_str(), "m.room.message", None, content);
        self.world.send(&self.room, message).await
    }

    async fn redacts(&self, who: &Requester, what: &OwnedEventId) {
        let redaction = Draft {
            redacts: Some(what.clone()),
            ..draft(who.user.as_str(), "m.room.redaction", None, json!({}))
        };
        self.world.send(&self.room, redaction).await;
    }

    /// What happened so far has been followed.
    async fn followed(&self) {
        let mark = self.world.store.watermark();
        for _ in 0..400 {
            if self.status.lag(mark) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the follower lags");
    }

    /// The media that goes when it is looked for after everything was followed.
    async fn purged(&self) -> Vec<String> {
        self.followed().await;
        let (mut foreseen, mut gone) = (Vec::new(), Vec::new());
        let uri = |one: &media::Gone| format!("mxc://{}/{}", one.server, one.id);
        purge_media(&self.media, &self.world.rooms, true, |one| {
            foreseen.push(uri(one));
        })
        .await
        .unwrap();
        purge_media(&self.media, &self.world.rooms, false, |one| {
            gone.push(uri(one));
        })
        .await
        .unwrap();
        assert_eq!(foreseen, gone, "a dry run says it");
        gone
    }

    async fn rows<K: Key, V: Value>(&self, map: &Map<K, V>) -> usize {
        let view = self.world.store.view();
        let rows = view.range(map, Range::all(), Direction::Forward, 99).await;
        rows.unwrap().len()
    }

    async fn problems(&self, repair: bool) -> Vec<Problem> {
        self.followed().await;
        let mut problems = Vec::new();
        let told = check(&self.world.rooms, repair, |problem| problems.push(problem)).await;
        assert_eq!(told.unwrap(), u64::try_from(problems.len()).unwrap());
        problems
    }

    async fn end(self) {
        assert_eq!(self.problems(false).await, []);
        self.stop.cancel();
        self.world.stopped().await;
    }
}

#[tokio::test]
async fn media_goes_some_time_after_all_that_showed_it_was_redacted() {
    let bench = Bench::new().await;
    let (shown, never) = (bench.upload("shown").await, bench.upload("never").await);
    let first = bench.shows(&bench.alice, &shown).await;
    let text = format!("<p>see <img src=\"{shown}\">, and {shown}.</p>");
    let content = json!({ "msgtype": "m.text", "body": "see", "formatted_body": text });
    let second = draft("@alice:here", "m.room.message", None, content);
    let second = bench.world.send(&bench.room, second).await;
    assert_eq!(bench.purged().await, [""; 0]);
    assert_eq!(bench.rows(&MEDIA_SHOWN).await, 2);
    bench.redacts(&bench.alice, &first).await;
    bench.followed().await;
    bench.world.clock.advance(KEPT);
    assert_eq!(bench.purged().await, [""; 0], "the second shows it");
    bench.redacts(&bench.alice, &second).await;
    assert_eq!(bench.purged().await, [""; 0], "its time has just begun");
    assert_eq!(bench.rows(&MEDIA_SHOWN).await, 0);
    bench.world.clock.advance(KEPT);
    assert_eq!(bench.purged().await, [shown]);
    assert_eq!(bench.rows(&RETRACTED_MEDIA).await, 0);
    assert_eq!(bench.purged().await, [""; 0], "{never} was never shown");
    bench.end().await;
}

#[tokio::test]
async fn nobody_deletes_what_is_another_users_by_showing_it() {
    let bench = Bench::new().await;
    let bob = bench.world.user("bob").await;
    bench.world.join(&bench.room, &bob).await;
    let letter = bench.upload("a letter").await;
    let theirs = bench.shows(&bob, &letter).await;
    bench.redacts(&bob, &theirs).await;
    bench.followed().await;
    bench.world.clock.advance(KEPT);
    assert_eq!(bench.purged().await, [""; 0]);
    // But what its owner takes back stays as long as another one shows it.
    let own = bench.shows(&bench.alice, &letter).await;
    let theirs = bench.shows(&bob, &letter).await;
    bench.followed().await;
    bench.redacts(&bench.alice, &own).await;
    bench.followed().await;
    bench.world.clock.advance(KEPT);
    assert_eq!(bench.purged().await, [""; 0]);
    bench.redacts(&bob, &theirs).await;
    assert_eq!(bench.purged().await, [letter]);
    bench.end().await;
}

#[tokio::test]
async fn what_stands_for_people_and_rooms_or_in_account_data_stays() {
    let bench = Bench::new().await;
    let mut uris = Vec::new();
    for text in ["a face", "a house", "a sticker", "a letter"] {
        uris.push(bench.upload(text).await);
    }
    let mut events = Vec::new();
    for uri in &uris {
        events.push(bench.shows(&bench.alice, uri).await);
    }
    let (alice, users) = (&bench.alice, &bench.world.users);
    let face = Some(json!(uris[0]));
    users
        .set_profile_field(alice.sid, "avatar_url", face)
        .await
        .unwrap();
    let avatar = json!({ "url": uris[1] });
    let avatar = draft("@alice:here", "m.room.avatar", Some(""), avatar);
    bench.world.send(&bench.room, avatar).await;
    let row = schema::AccountDataRow {
        position: Position(1),
        content: json!({ "images": { "cat": { "url": uris[2] } } }).to_string(),
    };
    let mut batch = Batch::new();
    let key = (alice.sid, GLOBAL, "im.ponies.user_emotes".to_owned());
    batch.put(&schema::ACCOUNT_DATA, &key, &row);
    bench.world.store.write(batch).await.unwrap();
    bench.followed().await;
    for event in &events {
        bench.redacts(alice, event).await;
    }
    bench.followed().await;
    bench.world.clock.advance(KEPT);
    assert_eq!(bench.purged().await, uris[3..]);
    let mut batch = Batch::new();
    batch.delete(&schema::ACCOUNT_DATA, &key);
    bench.world.store.write(batch).await.unwrap();
    assert_eq!(bench.purged().await, uris[2..3]);
    bench.end().await;
}

#[tokio::test]
async fn what_was_emptied_because_its_time_was_over_shows_nothing() {
    let bench = Bench::new().await;
    let uri = bench.upload("a letter").await;
    let event = bench.shows(&bench.alice, &uri).await;
    bench
        .world
        .say(&bench.room, &bench.alice, "the newest stays")
        .await;
    bench.followed().await;
    let reader = bench.world.rooms.reader();
    let sid = reader.event_anywhere(&event).await.unwrap().unwrap().sid;
    let rooms = &bench.world.rooms;
    let emptied = rooms.empty_expired(&bench.room, &[sid], Batch::new()).await;
    assert_eq!(emptied.unwrap(), 1);
    // It is found with what happens next.
    bench
        .world
        .say(&bench.room, &bench.alice, "and so on")
        .await;
    bench.followed().await;
    bench.world.clock.advance(KEPT);
    assert_eq!(bench.purged().await, [uri]);
    bench.end().await;
}

#[tokio::test]
async fn the_check_mends_the_index_both_ways() {
    let bench = Bench::new().await;
    let uri = bench.upload("a letter").await;
    let event = bench.shows(&bench.alice, &uri).await;
    bench.followed().await;
    let reader = bench.world.rooms.reader();
    let sid = reader.event_anywhere(&event).await.unwrap().unwrap().sid;
    let id = uri.strip_prefix("mxc://here/").unwrap().to_owned();
    let here = "here".to_owned();
    let mut batch = Batch::new();
    batch.delete(&MEDIA_SHOWN, &(here.clone(), id, sid));
    let stray = ("here".to_owned(), "one".to_owned(), sid);
    batch.put(&MEDIA_SHOWN, &stray, &());
    batch.put(&SHOWN_MEDIA, &(sid, here.clone(), "two".to_owned()), &());
    batch.put(
        &SHOWN_MEDIA,
        &(EventSid(1 << 40), here, "three".to_owned()),
        &(),
    );
    bench.world.store.write(batch).await.unwrap();
    let problems = bench.problems(true).await;
    let count = |wanted: fn(&Problem) -> bool| problems.iter().filter(|it| wanted(it)).count();
    assert_eq!(
        count(|it| matches!(it, Problem::Missing { .. })),
        1,
        "{problems:?}"
    );
    assert_eq!(
        count(|it| matches!(it, Problem::Stray { .. })),
        3,
        "{problems:?}"
    );
    assert_eq!(bench.rows(&MEDIA_SHOWN).await, 1);
    assert_eq!(bench.rows(&SHOWN_MEDIA).await, 1);
    bench.end().await;
}
