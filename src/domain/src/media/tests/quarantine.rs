//! What an admin keeps from everyone, and how much a user may have.

use super::{elsewhere::serving_many, *};
use crate::schema::{QUARANTINED, USER_MEDIA_BYTES};

fn admin() -> &'static UserId {
    user_id!("@admin:test")
}

fn alice() -> &'static UserId {
    user_id!("@alice:test")
}

async fn counted(fixture: &Fixture, user: &UserId) -> Option<i64> {
    let view = fixture.store.view();
    let user = user.as_str().to_owned();
    view.get(&USER_MEDIA_BYTES, &user).await.unwrap()
}

#[tokio::test]
async fn quarantined_media_is_not_found_however_it_is_asked_for() {
    let fixture = fixture().await;
    let uri = fixture.upload(&picture(300, 300, ImageFormat::Png)).await;
    let twin = fixture.upload(b"another").await;
    let (server, id) = uri.parts().unwrap();
    fixture.thumbnail(&uri, 32, 32, Method::Crop).await.unwrap();
    fixture.media.quarantine(server, id, admin()).await.unwrap();
    let read = fixture.read(&uri).await;
    assert!(matches!(read, Err(MediaError::NotFound)), "{read:?}");
    let small = fixture.thumbnail(&uri, 32, 32, Method::Crop).await;
    assert!(matches!(small, Err(MediaError::NotFound)), "{small:?}");
    fixture.read(&twin).await.unwrap();
    let rows = fixture.store.view();
    let row = rows.first(&QUARANTINED, Range::all(), vatra_store::Direction::Forward);
    assert_eq!(row.await.unwrap().unwrap().1.by, admin().as_str());
    assert_eq!(fixture.problems(false).await, []);

    fixture.media.unquarantine(server, id).await.unwrap();
    fixture.read(&uri).await.unwrap();
    fixture.thumbnail(&uri, 32, 32, Method::Crop).await.unwrap();
    for bad in ["", "a/b", "../x"] {
        let refused = fixture.media.quarantine(server, bad, admin()).await;
        assert!(matches!(refused, Err(MediaError::NotFound)), "{bad}");
    }
}

#[tokio::test]
async fn a_quarantine_outlives_a_purge_and_nothing_is_fetched_again() {
    let others = Arc::new(serving_many(&[("a", "bad"), ("b", "worse")]));
    let change = |settings: &mut Settings| settings.remote_max_age_ms = Some(1_000);
    let fixture = fixture_of(change, Some(others.clone())).await;
    let (server, a): (_, OwnedMxcUri) = (server_name!("other"), "mxc://other/a".into());
    fixture.read(&a).await.unwrap();
    for id in ["a", "b"] {
        fixture.media.quarantine(server, id, admin()).await.unwrap();
    }
    fixture.clock.advance(2_000);
    let purged = fixture
        .media
        .purge(false, &Choice::default(), |_| {})
        .await
        .unwrap();
    assert_eq!((purged.media, purged.files), (1, 1));
    for uri in [a.clone(), "mxc://other/b".into()] {
        let read = fixture.read(&uri).await;
        assert!(matches!(read, Err(MediaError::NotFound)), "{uri}");
    }
    assert_eq!(others.asked(), 1, "neither was asked for again");
    fixture.media.unquarantine(server, "a").await.unwrap();
    assert_eq!(fixture.read(&a).await.unwrap().1, b"bad");
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn a_user_has_no_more_than_the_quota() {
    let fixture = fixture_with(|settings| {
        settings.max_bytes_per_user = Some(10);
        settings.local_max_age_ms = Some(1_000);
    })
    .await;
    let upload = |user, bytes: &'static [u8]| fixture.media.upload(by(user), body(bytes));
    upload(alice(), b"12345").await.unwrap();
    let over = upload(alice(), b"123456").await;
    assert!(
        matches!(over, Err(MediaError::OverQuota { limit_bytes: 10 })),
        "{over:?}"
    );
    let mut announced = by(alice());
    announced.announced_bytes = Some(6);
    let never = stream::poll_fn(
        |_| -> std::task::Poll<Option<Result<Bytes, std::io::Error>>> {
            panic!("the body is not read")
        },
    );
    let early = fixture.media.upload(announced, never).await;
    assert!(
        matches!(early, Err(MediaError::OverQuota { .. })),
        "{early:?}"
    );
    assert_eq!(
        fixture.files("blobs").len(),
        1,
        "what was refused is not kept"
    );
    // The same bytes count again: an upload is an upload.
    upload(alice(), b"12345").await.unwrap();
    let full = upload(alice(), b"1").await;
    assert!(
        matches!(full, Err(MediaError::OverQuota { .. })),
        "{full:?}"
    );
    upload(user_id!("@bob:test"), b"1234567890").await.unwrap();
    assert_eq!(counted(&fixture, alice()).await, Some(10));

    let reserved = fixture.media.create(alice()).await.unwrap();
    let (server, id) = reserved.uri.parts().unwrap();
    let put = fixture
        .media
        .upload_to(server, id, by(alice()), body(b"1"))
        .await;
    assert!(matches!(put, Err(MediaError::OverQuota { .. })), "{put:?}");
    assert_eq!(fixture.problems(false).await, []);

    fixture.clock.advance(2_000);
    fixture
        .media
        .purge(false, &Choice::default(), |_| {})
        .await
        .unwrap();
    assert_eq!(counted(&fixture, alice()).await, Some(0));
    fixture
        .media
        .upload_to(server, id, by(alice()), body(b"1234567890"))
        .await
        .unwrap();
    assert_eq!(fixture.problems(false).await, []);
}

#[tokio::test]
async fn uploads_at_the_same_time_do_not_pass_the_quota_together() {
    let fixture = fixture_with(|settings| settings.max_bytes_per_user = Some(35)).await;
    let media = &fixture.media;
    let uploads = (0..8_u8).map(|number| media.upload(by(alice()), body(&[number; 10])));
    let done = futures::future::join_all(uploads).await;
    assert_eq!(done.iter().filter(|upload| upload.is_ok()).count(), 3);
    assert_eq!(counted(&fixture, alice()).await, Some(30));
    assert_eq!(fixture.files("blobs").len(), 3);
    assert_eq!(fixture.problems(false).await, []);
}
