//! What is taken away, and what stays.

use std::collections::HashSet;

use super::{elsewhere::serving_many, *};
use crate::schema::{BLOBS, MEDIA_READS};

const HOUR: u64 = 60 * 60 * 1_000;
const DAY: u64 = 24 * HOUR;

fn other(id: &str) -> OwnedMxcUri {
    format!("mxc://other/{id}").into()
}

/// One that can fetch files, by id and content, and keeps media like this.
async fn keeping(files: &[(&str, &str)], change: impl FnOnce(&mut Settings)) -> Fixture {
    fixture_of(change, Some(Arc::new(serving_many(files)))).await
}

impl Fixture {
    /// What goes, sorted; and how many files, with how many bytes.
    async fn purge(&self, dry_run: bool) -> (Vec<String>, u64, u64) {
        self.purge_but(dry_run, &HashSet::new()).await
    }

    async fn purge_but(&self, dry_run: bool, spared: &HashSet<String>) -> (Vec<String>, u64, u64) {
        let mut ids = Vec::new();
        let choice = Choice {
            spared: spared.clone(),
            ..Choice::default()
        };
        let purged = self
            .media
            .purge(dry_run, &choice, |gone| ids.push(gone.id.clone()));
        let purged = purged.await.unwrap();
        assert_eq!(purged.media, ids.len() as u64);
        ids.sort();
        (ids, purged.files, purged.bytes)
    }

    async fn reads(&self) -> usize {
        let view = self.store.view();
        let rows = view.range(
            &MEDIA_READS,
            Range::all(),
            vatra_store::Direction::Forward,
            99,
        );
        rows.await.unwrap().len()
    }

    fn later(&self, millis: u64) {
        self.clock.advance(millis);
    }
}

#[tokio::test]
async fn media_of_others_that_nobody_has_read_for_long_goes_and_comes_again_when_wanted() {
    let files = [("old", "12345"), ("read", "123"), ("new", "1")];
    let fixture = keeping(&files, |settings| {
        settings.remote_max_age_ms = Some(10 * DAY)
    })
    .await;
    let own = fixture.upload(b"mine").await;
    for id in ["old", "read"] {
        fixture.read(&other(id)).await.unwrap();
    }
    fixture.later(6 * DAY);
    for id in ["read", "new"] {
        fixture.read(&other(id)).await.unwrap();
    }
    assert_eq!(fixture.purge(false).await, (vec![], 0, 0));
    fixture.later(5 * DAY);
    let goes = (vec!["old".to_owned()], 1, 5);
    assert_eq!(fixture.purge(true).await, goes, "a dry run says it");
    assert_eq!(fixture.files("blobs").len(), 4, "and changes nothing");
    assert_eq!(fixture.purge(false).await, goes);
    assert_eq!(fixture.files("blobs").len(), 3);
    assert_eq!(fixture.purge(false).await, (vec![], 0, 0));
    let kept = fixture
        .media
        .open(server_name!("other"), "old", NO_WAIT, false)
        .await;
    assert!(matches!(kept, Err(MediaError::NotFound)));
    assert_eq!(fixture.read(&other("old")).await.unwrap().1, b"12345");
    assert_eq!(fixture.read(&own).await.unwrap().1, b"mine");
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn reading_writes_at_most_once_a_day() {
    let fixture = keeping(&[("a", "1")], |_| {}).await;
    let own = fixture.upload(b"mine").await;
    let settled = || async { fixture.store.write(Batch::new()).await.unwrap() };
    for uri in [&own, &other("a")] {
        fixture.read(uri).await.unwrap();
        fixture.later(23 * HOUR);
        fixture.read(uri).await.unwrap();
    }
    let before = settled().await;
    assert_eq!(fixture.reads().await, 0, "it came within the day");
    fixture.later(25 * HOUR);
    for _ in 0..5 {
        fixture.read(&own).await.unwrap();
        fixture.read(&other("a")).await.unwrap();
        settled().await;
    }
    let after = settled().await;
    assert_eq!(fixture.reads().await, 2);
    let batches = after.0 - before.0;
    assert!(
        batches <= 2 + 6,
        "{batches} batches, six of them the test's own"
    );
}

#[tokio::test]
async fn what_is_too_much_of_others_goes_from_what_was_read_longest_ago() {
    let files = [("a", "aaaa"), ("b", "bbbb"), ("c", "cccc"), ("d", "dddd")];
    let fixture = keeping(&files, |settings| settings.remote_max_bytes = Some(9)).await;
    fixture.upload(&[1; 100]).await;
    for id in ["a", "b", "c", "d"] {
        fixture.read(&other(id)).await.unwrap();
        fixture.later(2 * HOUR);
    }
    fixture.later(30 * HOUR);
    fixture.read(&other("a")).await.unwrap();
    fixture.store.write(Batch::new()).await.unwrap();
    let goes = (vec!["b".to_owned(), "c".to_owned()], 2, 8);
    assert_eq!(fixture.purge(true).await, goes);
    assert_eq!(fixture.purge(false).await, goes);
    assert_eq!(fixture.purge(false).await, (vec![], 0, 0));
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn of_what_was_read_in_one_hour_no_more_goes_than_must() {
    let files = [("a", "aaaa"), ("b", "bbbb"), ("c", "cccc"), ("d", "dddd")];
    let fixture = keeping(&files, |settings| settings.remote_max_bytes = Some(9)).await;
    for id in ["a", "b", "c", "d"] {
        fixture.read(&other(id)).await.unwrap();
    }
    assert_eq!(fixture.purge(false).await.0.len(), 2);
}

#[tokio::test]
async fn a_file_that_another_row_names_stays() {
    let change = |settings: &mut Settings| {
        settings.remote_max_age_ms = Some(DAY);
        settings.local_max_age_ms = Some(30 * DAY);
    };
    let fixture = keeping(&[("a", "same"), ("b", "same")], change).await;
    for id in ["a", "b"] {
        fixture.read(&other(id)).await.unwrap();
    }
    let own = fixture.upload(b"same").await;
    fixture.later(2 * DAY);
    let both = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(fixture.purge(true).await, (both.clone(), 0, 0));
    assert_eq!(fixture.purge(false).await, (both, 0, 0));
    assert_eq!(fixture.read(&own).await.unwrap().1, b"same");
    assert_eq!(fixture.problems(false).await, []);
    fixture.later(31 * DAY);
    let (ids, files, bytes) = fixture.purge(false).await;
    assert_eq!((ids.len(), files, bytes), (1, 1, 4));
    assert!(fixture.files("blobs").is_empty());
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn the_thumbnails_of_what_goes_go_with_it() {
    let fixture = fixture_with(|settings| settings.local_max_age_ms = Some(DAY)).await;
    let (large, small) = (
        picture(900, 900, ImageFormat::Png),
        picture(20, 10, ImageFormat::Png),
    );
    let uri = fixture.upload(&large).await;
    let (_, thumbnail) = fixture.thumbnail(&uri, 96, 96, Method::Crop).await.unwrap();
    fixture
        .thumbnail(&fixture.upload(&small).await, 96, 96, Method::Crop)
        .await
        .unwrap();
    fixture.later(DAY / 2);
    // A thumbnail that somebody has uploaded too, and of which there is one again.
    let same = fixture.upload(&thumbnail).await;
    fixture
        .thumbnail(&same, 32, 32, Method::Crop)
        .await
        .unwrap();
    fixture.later(DAY / 2 + 1);
    let foreseen = fixture.purge(true).await;
    assert_eq!(fixture.purge(false).await, foreseen);
    assert_eq!(
        foreseen.1, 2,
        "two pictures; the thumbnail is an upload too"
    );
    assert_eq!(fixture.problems(false).await, []);
    assert!(fixture.read(&same).await.unwrap().1 == thumbnail);
    fixture.later(3 * DAY);
    assert_eq!(fixture.purge(false).await.1, 2);
    assert!(fixture.files("blobs").is_empty());
    let rows = fixture.store.view();
    let left = rows.first(&THUMBNAILS, Range::all(), vatra_store::Direction::Forward);
    assert_eq!(left.await.unwrap(), None);
}

#[tokio::test]
async fn media_of_its_own_users_goes_only_if_that_is_wanted_and_not_what_is_spared() {
    let unwanted = fixture_with(|settings| settings.remote_max_age_ms = Some(1)).await;
    unwanted.upload(b"mine").await;
    unwanted.later(1_000 * DAY);
    assert_eq!(unwanted.purge(false).await, (vec![], 0, 0));

    let fixture = fixture_with(|settings| settings.local_max_age_ms = Some(DAY)).await;
    let (one, two) = (fixture.upload(b"one").await, fixture.upload(b"two").await);
    let reserved = fixture.media.create(user_id!("@alice:test")).await.unwrap();
    fixture.later(2 * DAY);
    let spared = HashSet::from([two.parts().unwrap().1.to_owned()]);
    let (gone, ..) = fixture.purge_but(false, &spared).await;
    assert_eq!(gone, [one.parts().unwrap().1]);
    assert_eq!(fixture.read(&two).await.unwrap().1, b"two");
    let key = (
        "test".to_owned(),
        reserved.uri.parts().unwrap().1.to_owned(),
    );
    assert!(fixture.store.view().contains(&MEDIA, &key).await.unwrap());
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_uploaded_while_it_goes_is_there_afterwards() {
    let fixture = fixture_with(|settings| settings.local_max_age_ms = Some(0)).await;
    for round in 0..40 {
        fixture.upload(b"again and again").await;
        fixture.later(1);
        let (uploaded, _) = tokio::join!(
            tokio::spawn({
                let media = fixture.media.clone();
                async move {
                    let upload = by(user_id!("@alice:test"));
                    media
                        .upload(upload, body(b"again and again"))
                        .await
                        .unwrap()
                }
            }),
            fixture.purge(false),
        );
        let uri = uploaded.unwrap();
        assert_eq!(
            fixture.read(&uri).await.unwrap().1,
            b"again and again",
            "{round}"
        );
    }
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn nothing_goes_while_a_copy_is_made() {
    let fixture = fixture_with(|settings| settings.local_max_age_ms = Some(DAY)).await;
    fixture.upload(b"one").await;
    fixture.later(2 * DAY);
    let undisturbed = fixture.media.undisturbed().await;
    let mut purge = Box::pin(fixture.purge(false));
    let waited = tokio::time::timeout(Duration::from_millis(50), &mut purge).await;
    assert!(waited.is_err() && fixture.files("blobs").len() == 1);
    drop(undisturbed);
    assert_eq!(purge.await.1, 1);
    let view = fixture.store.view();
    let left = view.first(&BLOBS, Range::all(), vatra_store::Direction::Forward);
    assert_eq!(left.await.unwrap(), None);
}
