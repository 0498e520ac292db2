//! Requests that are answered before their body was read to its end.
//!
//! HTTP/1 cannot go on with such a connection: it is closed after the answer. A client that is not told so sends its next request
//! into it, and cannot know whether that was taken. <https://www.rfc-editor.org/rfc/rfc9112#section-9.6>

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use bytes::Bytes;
use http::{Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::fixed;

/// A body that tells when its end was reached.
struct Watched {
    body: Body,
    ended: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The middleware: says that the connection is closed where it will be.
pub(crate) async fn tell(request: Request, next: Next) -> Response {
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let ended = Arc::new(AtomicBool::new(false));
    let watched = Watched {
        body,
        ended: Arc::clone(&ended),
    };
    let mut response = next
        .run(Request::from_parts(head, Body::new(watched)))
        .await;
    if !ended.load(Ordering::Relaxed) {
        response
            .headers_mut()
            .insert(header::CONNECTION, fixed("close"));
    }
    response
}
