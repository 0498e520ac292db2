//! Requests are signed, answers are bounded and read, and who does not answer is left alone.

use std::time::Duration;

use http::StatusCode;
use ruma::{
    api::{
        error::ErrorCode,
        federation::{
            authentication::XMatrix, discovery::get_server_version::v1 as get_version,
            query::get_profile_information::v1 as get_profile,
        },
    },
    server_name, user_id,
};
use vatra_store::{Direction, Range};

use super::world::{Net, Server};
use crate::{
    clock::Clock,
    clock::{ManualClock, to_ruma},
    remote::{Bounds, RemoteError, TransportError},
    schema,
};

const NOW: u64 = 1_700_000_000_000;

fn profile() -> get_profile::Request {
    get_profile::Request::new(user_id!("@x:b.example").to_owned())
}

#[tokio::test]
async fn a_request_is_signed_for_its_destination_and_no_other() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let b = Server::new(&net, &clock, "b.example").await;
    a.publish(&net);
    net.fixed("b.example", 200, r#"{"displayname":"X"}"#);
    let answer = a
        .remote
        .call(server_name!("b.example"), profile())
        .await
        .unwrap();
    assert_eq!(answer.get("displayname").unwrap(), "X");

    let sent = net.last();
    assert_eq!(sent.uri().path(), "/_matrix/federation/v1/query/profile");
    let claim = XMatrix::extract_from_http_headers(sent.headers()).unwrap();
    assert_eq!(claim.origin, "a.example");
    assert_eq!(claim.destination.as_ref().unwrap(), "b.example");
    let wanted = [(claim.origin.clone(), claim.key.clone())];
    let keys = b.keys.verifying(&wanted, to_ruma(clock.now())).await;
    claim
        .verify_http_request(&sent, server_name!("b.example"), &keys)
        .unwrap();
    claim
        .verify_http_request(&sent, server_name!("c.example"), &keys)
        .unwrap_err();
    let mut changed = sent;
    *changed.uri_mut() = "/_matrix/federation/v1/query/profile?user_id=@y:b.example"
        .parse()
        .unwrap();
    claim
        .verify_http_request(&changed, server_name!("b.example"), &keys)
        .unwrap_err();
}

#[tokio::test]
async fn a_remote_error_is_told_on_only_as_far_as_it_is_known() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    for (status, body, code) in [
        (
            404,
            r#"{"errcode":"M_NOT_FOUND","error":"<b>come here</b>"}"#,
            ErrorCode::NotFound,
        ),
        (
            403,
            r#"{"errcode":"M_FORBIDDEN","error":"x"}"#,
            ErrorCode::Forbidden,
        ),
        (
            403,
            r#"{"errcode":"M_UNKNOWN_TOKEN","error":"log out now"}"#,
            ErrorCode::Unknown,
        ),
        (
            400,
            r#"{"errcode":"M_WHATEVER","error":"x"}"#,
            ErrorCode::Unknown,
        ),
        (400, "<html>", ErrorCode::Unknown),
        (302, "", ErrorCode::Unknown),
    ] {
        net.fixed("b.example", status, body);
        let error = a
            .remote
            .call(server_name!("b.example"), profile())
            .await
            .unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!((refusal.status.as_u16(), &refusal.code), (status, &code));
        assert!(!error.to_string().contains("come here"));
    }
    let body = r#"{"errcode":"M_INCOMPATIBLE_ROOM_VERSION","error":"x","room_version":"9"}"#;
    net.fixed("b.example", 400, body);
    let error = a
        .remote
        .call(server_name!("b.example"), profile())
        .await
        .unwrap_err();
    assert_eq!(
        error.refusal().unwrap().room_version,
        Some(ruma::RoomVersionId::V9)
    );
    assert!(
        a.remote.backoff(server_name!("b.example")).await.is_none(),
        "it answers"
    );
}

#[tokio::test]
async fn answers_too_large_too_slow_or_unreadable_are_errors_of_their_own() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let b = server_name!("b.example");
    let bounds = Bounds {
        limit_bytes: 100,
        timeout: Duration::from_millis(30),
        urgent: true,
    };
    net.fixed(
        "b.example",
        200,
        &format!(r#"{{"a":"{}"}}"#, "x".repeat(100)),
    );
    let error = a
        .remote
        .call_within(b, profile(), bounds)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            RemoteError::Unreachable(TransportError::TooLarge(100))
        ),
        "{error}"
    );
    net.fixed("b.example", 200, "[1]");
    let error = a
        .remote
        .call_within(b, profile(), bounds)
        .await
        .unwrap_err();
    assert!(matches!(error, RemoteError::Unreadable(_)), "{error}");
    net.set("b.example", |_| Box::pin(std::future::pending()));
    let error = a
        .remote
        .call_within(b, profile(), bounds)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RemoteError::Unreachable(TransportError::TooSlow)),
        "{error}"
    );
    let error = a
        .remote
        .call(server_name!("a.example"), profile())
        .await
        .unwrap_err();
    assert!(matches!(error, RemoteError::Ourselves(_)), "{error}");
}

#[tokio::test]
async fn who_does_not_answer_is_left_alone_for_longer_and_longer_also_after_a_restart() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let b = server_name!("b.example");
    let mut last = 0;
    for round in 1..=8_usize {
        let error = a.remote.call(b, profile()).await.unwrap_err();
        assert!(matches!(error, RemoteError::Unreachable(_)), "{error}");
        let error = a.remote.call(b, profile()).await.unwrap_err();
        let RemoteError::BackingOff { retry_at } = error else {
            panic!("{error}")
        };
        assert_eq!(net.count("b.example"), round, "it was not asked");
        let wait = retry_at - clock.now();
        assert!(wait > last, "{wait} after {last}");
        last = wait;
        if round < 8 {
            clock.advance(wait);
        }
    }
    // The jitter keeps the seventh doubling of a second within a quarter.
    assert!((96_000..=160_000).contains(&last), "{last}");

    let again = Server::on(&net, &clock, a.signer.clone(), &[], a.store.clone()).await;
    let error = again.remote.call(b, profile()).await.unwrap_err();
    assert!(matches!(error, RemoteError::BackingOff { .. }), "{error}");
    // A person who waits is a reason to try.
    let error = again
        .remote
        .call_within(b, profile(), Bounds::urgent())
        .await
        .unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable(_)), "{error}");

    // It is heard from: it is there.
    let mut heard = again.remote.heard();
    again.remote.heard_from(b).await;
    assert_eq!(heard.recv().await.unwrap(), "b.example");
    net.fixed("b.example", 200, "{}");
    again.remote.call(b, profile()).await.unwrap();
    assert!(
        again
            .store
            .view()
            .get(&schema::BACKOFFS, &"b.example".to_owned())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn attempts_side_by_side_that_fail_are_one_failure() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let calls = (0..20).map(|_| async {
        let clock = clock.clone();
        let outcome = a.remote.call(server_name!("b.example"), profile()).await;
        clock.advance(1);
        outcome.unwrap_err()
    });
    futures::future::join_all(calls).await;
    let row = a.remote.backoff(server_name!("b.example")).await.unwrap();
    assert_eq!(row.failures, 1, "{row:?}");
}

#[tokio::test]
async fn a_server_that_is_ill_is_left_alone_as_long_as_it_says() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    net.set("b.example", |_| {
        let response = http::Response::builder()
            .status(429)
            .header("retry-after", "600");
        let response = response.body(bytes::Bytes::new()).unwrap();
        Box::pin(async move { response })
    });
    let error = a
        .remote
        .call(server_name!("b.example"), profile())
        .await
        .unwrap_err();
    assert_eq!(
        error.refusal().unwrap().status,
        StatusCode::TOO_MANY_REQUESTS
    );
    let row = a.remote.backoff(server_name!("b.example")).await.unwrap();
    assert_eq!(row.retry_at, NOW + 600_000);
}

#[tokio::test]
async fn what_strangers_cause_leaves_no_rows() {
    let (net, clock) = (Net::default(), ManualClock::new(NOW));
    let a = Server::new(&net, &clock, "a.example").await;
    let b = server_name!("b.example");
    let request = get_version::Request::new();
    a.remote
        .ask(b, request, Bounds::default())
        .await
        .unwrap_err();
    assert!(a.remote.backoff(b).await.is_some());
    let view = a.store.view();
    let rows = view.range(&schema::BACKOFFS, Range::all(), Direction::Forward, 10);
    assert!(rows.await.unwrap().is_empty());
}
