//! Where a host says its homeserver is: `https://<host>/.well-known/matrix/server`, fetched once and kept for a while.
//! <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{HeaderMap, Response, StatusCode, Uri, header};
use quick_cache::sync::Cache;
use ruma::OwnedServerName;
use serde::Deserialize;
use tokio::sync::Mutex;
use tracing::debug;
use vatra_domain::{
    clock::{Millis, SharedClock},
    remote::{ByteStream, TransportError, transport},
};

use super::{dial::Dialer, once};

const MINUTE_MS: Millis = 60_000;
/// For how long an answer holds that does not say.
const DEFAULT_MS: Millis = 24 * 60 * MINUTE_MS;
/// For how long an answer holds at most.
const MOST_MS: Millis = 48 * 60 * MINUTE_MS;
/// For how long an answer holds at least: a host that forbids keeping it is not asked for every request.
const LEAST_MS: Millis = 5 * MINUTE_MS;
/// For how long a first failure is remembered; doubled with each further one.
const FIRST_FAILURE_MS: Millis = MINUTE_MS;
/// For how long a failure is remembered at most.
const LONGEST_FAILURE_MS: Millis = 60 * MINUTE_MS;
/// The largest answer, in bytes.
const MAX_BYTES: usize = 50 << 10;
/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;
/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gets a URL without following redirects. Tests have their own.
#[async_trait]
pub(crate) trait Web: Send + Sync + 'static {
    /// Gets an `https` URL.
    async fn get(&self, url: &Uri) -> Result<Response<ByteStream>, TransportError>;
}

#[async_trait]
impl Web for Dialer {
    async fn get(&self, url: &Uri) -> Result<Response<ByteStream>, TransportError> {
        once::get(self, url).await
    }
}

/// What is known of one host.
#[derive(Default)]
struct Known {
    server: Option<OwnedServerName>,
    /// Until when that holds; an answer is used for [`MOST_MS`] when a new one cannot be had.
    until: Millis,
    discarded_at: Millis,
    failures: u32,
}

/// The well-known files of all hosts.
pub(crate) struct WellKnowns {
    web: Arc<dyn Web>,
    clock: SharedClock,
    known: Cache<String, Arc<Mutex<Known>>>,
}

impl WellKnowns {
    pub(crate) fn new(web: Arc<dyn Web>, clock: SharedClock) -> Self {
        Self {
            web,
            clock,
            known: Cache::new(10_000),
        }
    }

    /// The server that a host delegates to; `None` if it has no (valid) file. Many callers cause one fetch.
    pub(crate) async fn of(&self, host: &str) -> Option<OwnedServerName> {
        let fresh = || Ok::<_, std::convert::Infallible>(Arc::default());
        let entry = match self.known.get_or_insert_with(host, fresh) {
            Ok(entry) => entry,
            Err(never) => match never {},
        };
        let mut entry = entry.lock().await;
        if self.clock.now() < entry.until {
            return entry.server.clone();
        }
        let fetched = tokio::time::timeout(PATIENCE, self.fetch(host));
        let fetched = fetched
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let now = self.clock.now();
        match fetched {
            Ok((server, holds)) => {
                *entry = Known {
                    server: Some(server),
                    until: now.saturating_add(holds),
                    discarded_at: now.saturating_add(MOST_MS),
                    failures: 0,
                };
            }
            Err(reason) => {
                debug!(host, reason, "no well-known file");
                let doubled = FIRST_FAILURE_MS << entry.failures.min(10);
                entry.until = now.saturating_add(doubled.min(LONGEST_FAILURE_MS));
                entry.failures = entry.failures.saturating_add(1);
                if now >= entry.discarded_at {
                    entry.server = None;
                }
            }
        }
        entry.server.clone()
    }

    async fn fetch(&self, host: &str) -> Result<(OwnedServerName, Millis), String> {
        let mut url: Uri = format!("https://{host}/.well-known/matrix/server")
            .parse()
            .map_err(|_| "it is no host".to_owned())?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self
                .web
                .get(&url)
                .await
                .map_err(|error| error.to_string())?;
            let (head, body) = response.into_parts();
            if head.status.is_redirection() {
                url = redirected(&url, &head.headers)?;
                continue;
            }
            if head.status != StatusCode::OK {
                return Err(format!("it answered {}", head.status));
            }
            let body = transport::collect(body, MAX_BYTES);
            let body = body.await.map_err(|error| error.to_string())?;
            let file: File = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            return Ok((file.server, holds(&head.headers, self.clock.now())));
        }
        Err("too many redirects".to_owned())
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "m.server")]
    server: OwnedServerName,
}

/// Where a redirect leads: only to `https`.
fn redirected(from: &Uri, headers: &HeaderMap) -> Result<Uri, String> {
    let nowhere = || "a redirect leads nowhere".to_owned();
    let location = headers
        .get(header::LOCATION)
        .and_then(|location| location.to_str().ok())
        .ok_or_else(nowhere)?;
    let authority = from.authority().ok_or_else(nowhere)?;
    let whole = if let Some(rest) = location.strip_prefix("//") {
        format!("https://{rest}")
    } else if location.starts_with('/') {
        format!("https://{authority}{location}")
    } else {
        location.to_owned()
    };
    let url: Uri = whole.parse().map_err(|_| nowhere())?;
    if url.scheme_str() == Some("https") {
        Ok(url)
    } else {
        Err("a redirect leads away from https".to_owned())
    }
}

/// For how long an answer says that it holds, within our bounds.
fn holds(headers: &HeaderMap, now: Millis) -> Millis {
    let control = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|part| part.trim().to_ascii_lowercase());
    let mut said = None;
    for part in control {
        if part == "no-store" || part == "no-cache" {
            return LEAST_MS;
        }
        if let Some(seconds) = part.strip_prefix("max-age=") {
            let seconds: Option<Millis> = seconds.trim_matches('"').parse().ok();
            said = seconds.map(|seconds| seconds.saturating_mul(1000));
        }
    }
    let expires = || {
        let date = headers.get(header::EXPIRES)?.to_str().ok()?;
        let date = httpdate::parse_http_date(date).ok()?;
        let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        let millis = Millis::try_from(since.as_millis()).ok()?;
        Some(millis.saturating_sub(now))
    };
    said.or_else(expires)
        .unwrap_or(DEFAULT_MS)
        .clamp(LEAST_MS, MOST_MS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::HashMap, sync::atomic::AtomicU32, sync::atomic::Ordering};

    use bytes::Bytes;
    use vatra_domain::clock::{Clock, ManualClock};

    use super::*;

    type Headers = Vec<(&'static str, &'static str)>;

    /// Answers by URL: status, headers, body.
    struct Pages {
        pages: HashMap<&'static str, (u16, Headers, &'static str)>,
        gets: AtomicU32,
    }

    #[async_trait]
    impl Web for Pages {
        async fn get(&self, url: &Uri) -> Result<Response<ByteStream>, TransportError> {
            self.gets.fetch_add(1, Ordering::SeqCst);
            let Some((status, headers, body)) = self.pages.get(url.to_string().as_str()) else {
                return Err(TransportError::NoConnection(url.to_string()));
            };
            let mut response = Response::builder().status(*status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            let body = transport::ready(Bytes::from_static(body.as_bytes()));
            Ok(response.body(body).unwrap())
        }
    }

    const AT: &str = "https://a.example/.well-known/matrix/server";
    const GOOD: &str = r#"{"m.server":"matrix.a.example:443"}"#;

    fn knowns(
        pages: Vec<(&'static str, u16, Headers, &'static str)>,
    ) -> (WellKnowns, Arc<Pages>, Arc<ManualClock>) {
        let pages = pages.into_iter();
        let pages = pages.map(|(url, status, headers, body)| (url, (status, headers, body)));
        let pages = Arc::new(Pages {
            pages: pages.collect(),
            gets: AtomicU32::new(0),
        });
        let clock = ManualClock::new(1_700_000_000_000);
        (WellKnowns::new(pages.clone(), clock.clone()), pages, clock)
    }

    #[tokio::test]
    async fn an_answer_is_kept_as_long_as_it_says_and_a_day_if_it_does_not() {
        for (headers, minutes) in [
            (vec![], 24 * 60),
            (vec![("cache-control", "public, max-age=3600")], 60),
            (vec![("cache-control", "max-age=0")], 5),
            (vec![("cache-control", "no-store")], 5),
            (vec![("cache-control", "max-age=99999999")], 48 * 60),
            (vec![("expires", "Tue, 14 Nov 2023 23:13:20 GMT")], 60),
        ] {
            let (knowns, pages, clock) = knowns(vec![(AT, 200, headers.clone(), GOOD)]);
            for _ in 0..2 {
                assert_eq!(
                    knowns.of("a.example").await.unwrap(),
                    "matrix.a.example:443"
                );
            }
            clock.advance(minutes * MINUTE_MS - 1);
            knowns.of("a.example").await.unwrap();
            assert_eq!(pages.gets.load(Ordering::SeqCst), 1, "{headers:?}");
            clock.advance(1);
            knowns.of("a.example").await.unwrap();
            assert_eq!(pages.gets.load(Ordering::SeqCst), 2, "{headers:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_none_and_is_asked_for_less_and_less() {
        let bad = [
            (404, GOOD),
            (200, "<html>"),
            (200, r#"{"m.server":7}"#),
            (200, r#"{"m.server":"no server!"}"#),
            (200, "{}"),
        ];
        for (status, body) in bad {
            let (knowns, pages, clock) = knowns(vec![(AT, status, vec![], body)]);
            assert_eq!(knowns.of("a.example").await, None, "{status} {body}");
            assert_eq!(knowns.of("a.example").await, None);
            assert_eq!(pages.gets.load(Ordering::SeqCst), 1);
            clock.advance(MINUTE_MS);
            knowns.of("a.example").await;
            assert_eq!(pages.gets.load(Ordering::SeqCst), 2);
            clock.advance(MINUTE_MS);
            knowns.of("a.example").await;
            assert_eq!(pages.gets.load(Ordering::SeqCst), 2, "the wait has doubled");
        }
    }

    #[tokio::test]
    async fn redirects_are_followed_a_few_times_and_only_within_https() {
        let to = |location| vec![("location", location)];
        let (chain, ..) = knowns(vec![
            (AT, 302, to("/elsewhere"), ""),
            (
                "https://a.example/elsewhere",
                301,
                to("https://b.example/x"),
                "",
            ),
            ("https://b.example/x", 200, vec![], GOOD),
        ]);
        assert_eq!(chain.of("a.example").await.unwrap(), "matrix.a.example:443");
        let (plain, ..) = knowns(vec![
            (AT, 302, to("http://b.example/x"), ""),
            ("http://b.example/x", 200, vec![], GOOD),
        ]);
        assert_eq!(plain.of("a.example").await, None);
        let (circle, pages, _) = knowns(vec![(AT, 302, to(AT), "")]);
        assert_eq!(circle.of("a.example").await, None);
        assert_eq!(pages.gets.load(Ordering::SeqCst), 6);
    }

    #[tokio::test]
    async fn an_answer_outlives_a_short_outage_of_its_host() {
        let (knowns, _, clock) = knowns(vec![]);
        let known = Known {
            server: Some("b.example".try_into().unwrap()),
            until: 0,
            discarded_at: clock.now() + MINUTE_MS,
            failures: 0,
        };
        let known = Arc::new(Mutex::new(known));
        knowns.known.insert("a.example".to_owned(), known);
        assert_eq!(knowns.of("a.example").await.unwrap(), "b.example");
        clock.advance(MINUTE_MS);
        assert_eq!(knowns.of("a.example").await, None);
    }
}
