//! Uploads, at once and to reserved ids, and what reads them.

use super::*;

#[tokio::test]
async fn what_is_uploaded_comes_back() {
    let fixture = fixture().await;
    let quarter = 256 * 1024;
    for size in [
        0,
        1,
        9_999,
        quarter - 1,
        quarter,
        quarter + 1,
        2 * quarter,
        1_000_000,
    ] {
        let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        let mut upload = by(user_id!("@alice:test"));
        upload.content_type = Some("text/plain".to_owned());
        upload.filename = Some("naïve; \"x\".txt".to_owned());
        let uri = fixture.media.upload(upload, body(&bytes)).await.unwrap();
        let (download, read) = fixture.read(&uri).await.unwrap();
        assert!(read == bytes, "{size} bytes");
        assert_eq!(download.content_type, "text/plain");
        assert_eq!(download.filename.as_deref(), Some("naïve; \"x\".txt"));
    }
    assert_eq!(fixture.files("tmp").len(), 0);
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn a_part_of_a_file_is_read_alone() {
    let fixture = fixture().await;
    let bytes: Vec<u8> = (0..800_000).map(|index| (index % 251) as u8).collect();
    let uri = fixture.upload(&bytes).await;
    let (server, id) = uri.parts().unwrap();
    let found = fixture.media.open(server, id, NO_WAIT, true).await.unwrap();
    let (quarter, end) = (256 * 1024, bytes.len());
    for part in [
        0..0,
        0..1,
        0..quarter,
        0..quarter + 1,
        1..quarter + 1,
        quarter - 1..3 * quarter - 7,
        end - 1..end,
        0..end,
    ] {
        let place = u64::try_from(part.start).unwrap()..u64::try_from(part.end).unwrap();
        let mut reader = found.file.part(place).await.unwrap();
        let mut read = Vec::new();
        while let Some(piece) = reader.stream.next().await {
            read.extend_from_slice(&piece.unwrap());
        }
        assert!(read == bytes[part.clone()], "{part:?}");
    }
}

#[tokio::test]
async fn equal_files_are_kept_once_and_counted() {
    let fixture = fixture().await;
    let (one, two) = (fixture.upload(b"same").await, fixture.upload(b"same").await);
    assert_ne!(one, two);
    assert_eq!(fixture.files("blobs").len(), 1);
    let blob = fixture.read(&one).await.unwrap().0.file.blob;
    assert_eq!(
        fixture.store.view().get(&BLOB_USES, &blob).await.unwrap(),
        Some(2)
    );
    assert!(fixture.files("blobs")[0].ends_with(LocalBlobs::relative_path(blob)));
}

#[tokio::test]
async fn a_too_large_upload_is_refused_while_it_streams() {
    let fixture = fixture_with(|settings| settings.max_upload_bytes = 20_000).await;
    assert_eq!(
        fixture
            .read(&fixture.upload(&[7; 20_000]).await)
            .await
            .unwrap()
            .1
            .len(),
        20_000
    );
    // An endless body: the limit must hold without seeing its end.
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 1000])));
    let refused = fixture
        .media
        .upload(by(user_id!("@alice:test")), endless)
        .await;
    assert!(
        matches!(
            refused,
            Err(MediaError::TooLarge {
                limit_bytes: 20_000
            })
        ),
        "{refused:?}"
    );
    let announced = Upload {
        announced_bytes: Some(20_001),
        ..by(user_id!("@alice:test"))
    };
    let refused = fixture
        .media
        .upload(
            announced,
            stream::pending::<Result<Bytes, std::io::Error>>(),
        )
        .await;
    assert!(
        matches!(refused, Err(MediaError::TooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(
        (fixture.files("tmp").len(), fixture.files("blobs").len()),
        (0, 1)
    );
}

#[tokio::test]
async fn a_broken_body_leaves_nothing() {
    let fixture = fixture().await;
    let broken = stream::iter([
        Ok(Bytes::from_static(b"half")),
        Err(std::io::Error::other("gone")),
    ]);
    let refused = fixture
        .media
        .upload(by(user_id!("@alice:test")), broken)
        .await;
    assert!(
        matches!(refused, Err(MediaError::BrokenBody(_))),
        "{refused:?}"
    );
    assert_eq!(
        (fixture.files("tmp").len(), fixture.files("blobs").len()),
        (0, 0)
    );
    let rows = fixture
        .store
        .view()
        .range(&MEDIA, Range::all(), vatra_store::Direction::Forward, 1)
        .await
        .unwrap();
    assert!(rows.is_empty());
}

#[tokio::test]
async fn a_start_removes_what_a_crash_left() {
    let folder = tempfile::tempdir().unwrap();
    LocalBlobs::open(folder.path().to_owned()).await.unwrap();
    std::fs::write(folder.path().join("tmp/17"), "half an upload").unwrap();
    LocalBlobs::open(folder.path().to_owned()).await.unwrap();
    assert!(!folder.path().join("tmp/17").exists());
}

#[tokio::test]
async fn ids_that_are_none_and_other_servers_find_nothing() {
    let fixture = fixture().await;
    let uri = fixture.upload(b"here").await;
    let id = uri.media_id().unwrap();
    let elsewhere = server_name!("elsewhere");
    let own: &ServerName = server_name!("test");
    let long = "a".repeat(256);
    for (server, id) in [
        (elsewhere, id),
        (own, ""),
        (own, "../../etc/passwd"),
        (own, ".."),
        (own, "a/b"),
        (own, "é"),
        (own, &long),
        (own, "nosuch"),
    ] {
        let found = fixture.media.open(server, id, NO_WAIT, true).await;
        assert!(
            matches!(found, Err(MediaError::NotFound)),
            "{server} {id}: {found:?}"
        );
    }
}

#[tokio::test]
async fn a_reserved_id_is_filled_once_by_its_creator() {
    let fixture = fixture().await;
    let (alice, bob) = (user_id!("@alice:test"), user_id!("@bob:test"));
    let reserved = fixture.media.create(alice).await.unwrap();
    let (server, id) = reserved.uri.parts().unwrap();
    let early = fixture.media.open(server, id, NO_WAIT, true).await;
    assert!(
        matches!(early, Err(MediaError::NotYetUploaded)),
        "{early:?}"
    );
    let foreign = fixture
        .media
        .upload_to(server, id, by(bob), body(b"mine"))
        .await;
    assert!(
        matches!(foreign, Err(MediaError::NotCreator)),
        "{foreign:?}"
    );

    let patient = tokio::spawn({
        let (media, uri) = (fixture.media.clone(), reserved.uri.clone());
        async move {
            let (server, id) = uri.parts().unwrap();
            let wait = Duration::from_secs(30);
            let found = media.open(server, id, wait, true).await.unwrap();
            collect(found.file.whole().await.unwrap()).await
        }
    });
    tokio::task::yield_now().await;
    let (first, second) = futures::join!(
        fixture
            .media
            .upload_to(server, id, by(alice), body(b"first")),
        fixture
            .media
            .upload_to(server, id, by(alice), body(b"first")),
    );
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    assert_eq!(patient.await.unwrap(), b"first");
    let again = fixture
        .media
        .upload_to(server, id, by(alice), body(b"again"))
        .await;
    assert!(
        matches!(again, Err(MediaError::AlreadyUploaded)),
        "{again:?}"
    );
    assert_eq!(fixture.read(&reserved.uri).await.unwrap().1, b"first");
}

#[tokio::test]
async fn reserved_ids_are_few_and_expire() {
    let fixture = fixture_with(|settings| settings.max_pending_per_user = 2).await;
    let alice = user_id!("@alice:test");
    let first = fixture.media.create(alice).await.unwrap();
    assert_eq!(first.expires, 1_000_000 + 24 * 60 * 60 * 1000);
    fixture.clock.advance(1000);
    let second = fixture.media.create(alice).await.unwrap();
    let third = fixture.media.create(alice).await;
    assert!(
        matches!(
            third,
            Err(MediaError::TooManyPending {
                retry_after_ms: 86_399_000
            })
        ),
        "{third:?}"
    );
    let (server, id) = second.uri.parts().unwrap();
    fixture
        .media
        .upload_to(server, id, by(alice), body(b"x"))
        .await
        .unwrap();
    fixture.media.create(alice).await.unwrap();

    fixture.clock.advance(86_399_000);
    assert!(matches!(
        fixture.read(&first.uri).await,
        Err(MediaError::NotFound)
    ));
    let (server, id) = first.uri.parts().unwrap();
    let late = fixture
        .media
        .upload_to(server, id, by(alice), body(b"late"))
        .await;
    assert!(matches!(late, Err(MediaError::NotFound)), "{late:?}");
    fixture.media.create(alice).await.unwrap();
    let swept = fixture
        .store
        .view()
        .get(&MEDIA, &(server.to_string(), id.to_owned()))
        .await
        .unwrap();
    assert_eq!(swept, None);
}
