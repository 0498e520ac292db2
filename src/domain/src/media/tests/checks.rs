//! The check and the copy.

use super::*;
use crate::schema::{BLOBS, MEDIA_READS, USER_MEDIA_BYTES};

#[tokio::test]
async fn the_check_finds_each_kind_of_damage() {
    let fixture = fixture().await;
    let mut blobs = Vec::new();
    for content in [b"gone", b"flip", b"keep"] {
        let uri = fixture.upload(content).await;
        blobs.push(fixture.read(&uri).await.unwrap().0.file.blob);
    }
    let path = |blob: BlobId| fixture.folder.path().join(LocalBlobs::relative_path(blob));
    std::fs::remove_file(path(blobs[0])).unwrap();
    std::fs::write(path(blobs[1]), "flop").unwrap();
    let orphan = BlobId([9; 32]);
    std::fs::create_dir_all(path(orphan).parent().unwrap()).unwrap();
    std::fs::write(path(orphan), "orphan").unwrap();
    std::fs::write(fixture.folder.path().join("blobs/notes.txt"), "?").unwrap();
    let mut batch = Batch::new();
    batch.add(&BLOB_USES, &blobs[2], 5);
    fixture.store.write(batch).await.unwrap();

    let problems = fixture.problems(true).await;
    assert_eq!(problems.len(), 5, "{problems:?}");
    for expected in [
        Problem::MissingFile(blobs[0]),
        Problem::WrongHash(blobs[1]),
        Problem::OrphanFile {
            blob: orphan,
            size: 6,
        },
        Problem::WrongUses {
            blob: blobs[2],
            stored: 6,
            counted: 1,
        },
    ] {
        assert!(problems.contains(&expected), "{expected:?} in {problems:?}");
    }
    assert!(problems.iter().any(
        |problem| matches!(problem, Problem::StrangeFile(name) if name.ends_with("notes.txt"))
    ));
    fixture.upload(b"gone").await;
    fixture.upload(b"flip").await;
    assert!(!path(orphan).exists(), "nothing names it");
    std::fs::remove_file(fixture.folder.path().join("blobs/notes.txt")).unwrap();
    assert_eq!(
        fixture.problems(false).await,
        [],
        "the counter was repaired, the files mended by new uploads"
    );
}

#[tokio::test]
async fn what_nothing_names_is_taken_away_and_other_damage_is_named_and_left_alone() {
    let fixture = fixture().await;
    let mut blobs = Vec::new();
    for content in ["sized", "rowless", "unnamed"] {
        let uri = fixture.upload(content.as_bytes()).await;
        blobs.push((fixture.read(&uri).await.unwrap().0.file.blob, uri));
    }
    let created = crate::schema::BlobRow {
        size: 9,
        created: 1,
    };
    let (gone, thumbnail) = (BlobId([7; 32]), blobs[0].0);
    let row = crate::schema::ThumbnailRow {
        blob: thumbnail,
        size: 5,
        content_type: "image/png".to_owned(),
        created: 1,
    };
    let (server, id) = blobs[2].1.parts().unwrap();
    let mut batch = Batch::new();
    batch.put(&BLOBS, &blobs[0].0, &created);
    batch.delete(&BLOBS, &blobs[1].0);
    batch.delete(&MEDIA, &(server.to_string(), id.to_owned()));
    batch.put(&THUMBNAILS, &(gone, 32, 32, 1), &row);
    fixture.store.write(batch).await.unwrap();
    let primary = [
        Problem::WrongSize {
            blob: blobs[0].0,
            row: 9,
            file: 5,
        },
        Problem::MissingRow(blobs[1].0, 1),
    ];
    let orphans = [
        Problem::OrphanRow(blobs[2].0),
        Problem::OrphanThumbnail(gone),
    ];
    for repair in [false, true] {
        let problems = fixture.problems(repair).await;
        for expected in primary.iter().chain(&orphans) {
            assert!(problems.contains(expected), "{expected:?} in {problems:?}");
        }
    }
    // The thumbnail's file is used once less.
    fixture.problems(true).await;
    assert_eq!(fixture.problems(true).await, primary);
    let there = |blob: BlobId| fixture.folder.path().join(LocalBlobs::relative_path(blob));
    assert!(there(blobs[1].0).exists(), "media names it");
    assert!(!there(blobs[2].0).exists());
}

#[tokio::test]
async fn counts_and_notes_that_are_wrong_are_named_and_mended() {
    let fixture = fixture().await;
    let uri = fixture.upload(b"sixsix").await;
    let (server, id) = uri.parts().unwrap();
    let key = (server.to_string(), id.to_owned());
    let gone = ("other".to_owned(), "gone".to_owned());
    let mut batch = Batch::new();
    batch.put(&MEDIA_READS, &key, &5);
    batch.put(&MEDIA_READS, &gone, &5);
    batch.put(&USER_MEDIA_BYTES, &"@alice:test".to_owned(), &9);
    batch.put(&USER_MEDIA_BYTES, &"@bob:test".to_owned(), &3);
    fixture.store.write(batch).await.unwrap();
    let stray = Problem::StrayRead("other".to_owned(), "gone".to_owned());
    let bytes = |user: &str, stored, counted| Problem::WrongBytes {
        user: user.to_owned(),
        stored,
        counted,
    };
    let wrong = [stray, bytes("@alice:test", 9, 6), bytes("@bob:test", 3, 0)];
    for repair in [false, true] {
        let problems = fixture.problems(repair).await;
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(
            wrong.iter().all(|one| problems.contains(one)),
            "{problems:?}"
        );
    }
    assert_eq!(fixture.problems(false).await, []);
    let view = fixture.store.view();
    assert!(view.contains(&MEDIA_READS, &key).await.unwrap());
}

#[tokio::test]
async fn a_copy_has_every_blob_and_can_be_resumed() {
    let fixture = fixture().await;
    for content in [b"one", b"two"] {
        fixture.upload(content).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let target = LocalBlobs::open(folder.path().to_owned()).await.unwrap();
    let mut seen = Vec::new();
    assert_eq!(
        fixture
            .media
            .copy_to(&target, |blob, size| seen.push((blob, size)))
            .await
            .unwrap(),
        6
    );
    assert_eq!(seen.len(), 2);
    for (blob, _) in &seen {
        assert!(
            folder
                .path()
                .join(LocalBlobs::relative_path(*blob))
                .is_file()
        );
    }
    assert_eq!(fixture.media.copy_to(&target, |_, _| {}).await.unwrap(), 0);

    std::fs::write(
        fixture
            .folder
            .path()
            .join(LocalBlobs::relative_path(seen[0].0)),
        "bad",
    )
    .unwrap();
    let fresh = tempfile::tempdir().unwrap();
    let target = LocalBlobs::open(fresh.path().to_owned()).await.unwrap();
    let copied = fixture.media.copy_to(&target, |_, _| {}).await;
    assert!(matches!(copied, Err(MediaError::Damaged(_))), "{copied:?}");
}
