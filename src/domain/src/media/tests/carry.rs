//! Files carried to another place.

use super::*;

async fn place() -> (TempDir, LocalBlobs) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = LocalBlobs::open(folder.path().to_owned()).await.unwrap();
    (folder, blobs)
}

/// Uploads something; gives its blob.
async fn blob_of(fixture: &Fixture, content: &str) -> BlobId {
    let uri = fixture.upload(content.as_bytes()).await;
    fixture.read(&uri).await.unwrap().0.file.blob
}

fn path_in(folder: &TempDir, blob: BlobId) -> std::path::PathBuf {
    folder.path().join(LocalBlobs::relative_path(blob))
}

#[tokio::test]
async fn files_are_carried_once_and_what_is_missing_there_again() {
    let fixture = fixture().await;
    let mut blobs = Vec::new();
    for content in ["one", "two", "three"] {
        blobs.push(blob_of(&fixture, content).await);
    }
    let (folder, target) = place().await;
    let mut told = Vec::new();
    let carried = fixture
        .media
        .carry_to(&target, false, |carried| told.push(carried))
        .await;
    let (carried, damaged) = carried.unwrap();
    assert_eq!(damaged, []);
    assert_eq!((carried.files, carried.bytes), (3, 11));
    assert_eq!((carried.all_files, carried.all_bytes), (3, 11));
    assert_eq!((carried.copied_files, carried.copied_bytes), (3, 11));
    assert_eq!(told.last(), Some(&carried));
    assert!(told.is_sorted_by_key(|carried| carried.bytes), "{told:?}");
    for (blob, content) in blobs.iter().zip(["one", "two", "three"]) {
        let there = path_in(&folder, *blob);
        assert_eq!(std::fs::read_to_string(there).unwrap(), content);
    }
    std::fs::remove_file(path_in(&folder, blobs[0])).unwrap();
    std::fs::write(path_in(&folder, blobs[1]), "tw").unwrap();
    let (carried, _) = fixture
        .media
        .carry_to(&target, false, |_| {})
        .await
        .unwrap();
    assert_eq!((carried.files, carried.copied_files), (3, 2));
    // Nothing was taken away where it was.
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn what_is_damaged_here_is_named_and_what_is_damaged_there_is_mended_when_asked() {
    let fixture = fixture().await;
    let here = blob_of(&fixture, "here").await;
    let there = blob_of(&fixture, "there").await;
    let (folder, target) = place().await;
    let bad = path_in(&fixture.folder, here);
    std::fs::write(&bad, "hare").unwrap();
    for _ in 0..2 {
        let (_, damaged) = fixture
            .media
            .carry_to(&target, false, |_| {})
            .await
            .unwrap();
        assert_eq!(damaged, [here]);
        assert!(!path_in(&folder, here).exists());
        // Then it is missing.
        let _ = std::fs::remove_file(&bad);
    }
    let copy = path_in(&folder, there);
    std::fs::write(&copy, "flips").unwrap();
    for (again, copied, content) in [(false, 0, "flips"), (true, 1, "there"), (true, 0, "there")] {
        let (carried, _) = fixture
            .media
            .carry_to(&target, again, |_| {})
            .await
            .unwrap();
        assert_eq!(carried.copied_files, copied, "{again}");
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), content);
    }
}
