//! From ruma's request types to what is sent, and from what comes back to their answers.

use std::{borrow::Cow, collections::BTreeSet};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use ruma::api::{
    EndpointError, IncomingResponseExt, MatrixVersion, OutgoingBody, OutgoingRequest,
    SupportedVersions,
    auth_scheme::NoAuthentication,
    error::{Error as MatrixError, IntoHttpError},
    federation::authentication::ServerSignatures,
    path_builder::{PathBuilder, SinglePath, VersionHistory},
};

use super::error::{Refusal, RemoteError};

/// A request that must be signed.
pub trait SignedRequest:
    OutgoingRequest<
        Authentication = ServerSignatures,
        EndpointError = MatrixError,
        PathBuilder: FixedPath,
        IncomingResponse: Send,
    > + Send
{
}

impl<R> SignedRequest for R
where
    R: OutgoingRequest<Authentication = ServerSignatures, EndpointError = MatrixError> + Send,
    R::PathBuilder: FixedPath,
    R::IncomingResponse: Send,
{
}

/// A request that needs no signature.
pub trait UnsignedRequest:
    OutgoingRequest<
        Authentication = NoAuthentication,
        EndpointError = MatrixError,
        PathBuilder: FixedPath,
        IncomingResponse: Send,
    > + Send
{
}

impl<R> UnsignedRequest for R
where
    R: OutgoingRequest<Authentication = NoAuthentication, EndpointError = MatrixError> + Send,
    R::PathBuilder: FixedPath,
    R::IncomingResponse: Send,
{
}

/// How a request's path is chosen: servers do not say which versions they know, so it is the stable one.
pub trait FixedPath: PathBuilder {
    /// What chooses it.
    fn choice() -> Self::Input<'static>;
}

impl FixedPath for SinglePath {
    fn choice() {}
}

impl FixedPath for VersionHistory {
    fn choice() -> Cow<'static, SupportedVersions> {
        Cow::Owned(SupportedVersions {
            versions: BTreeSet::from([MatrixVersion::V1_19]),
            features: BTreeSet::new(),
        })
    }
}

/// The request as it is sent, without a signature.
pub(super) fn written<R>(request: R) -> Result<Request<Bytes>, RemoteError>
where
    R: OutgoingRequest,
    R::PathBuilder: FixedPath,
{
    let unwritable = |error: &dyn std::fmt::Display| RemoteError::Unwritable(error.to_string());
    let written = request
        .try_into_http_request_inner("", R::PathBuilder::choice())
        .map_err(|error| unwritable(&error))?;
    let (mut head, body) = written.into_parts();
    if let Some(kind) = body.content_type()
        && !head.headers.contains_key(http::header::CONTENT_TYPE)
    {
        head.headers.insert(http::header::CONTENT_TYPE, kind);
    }
    let body: BytesMut = body.try_into_buf().map_err(|error| {
        let error: IntoHttpError = error.into();
        unwritable(&error)
    })?;
    Ok(Request::from_parts(head, body.freeze()))
}

/// The answer, if it is one.
pub(super) fn read<R>(response: Response<Bytes>) -> Result<R::IncomingResponse, RemoteError>
where
    R: OutgoingRequest<EndpointError = MatrixError>,
{
    if !response.status().is_success() {
        return Err(refused(&response));
    }
    let (head, body) = response.into_parts();
    let response = Response::from_parts(head, &*body);
    R::IncomingResponse::try_from_http_response(response)
        .map_err(|error| RemoteError::Unreadable(error.to_string()))
}

/// What a server says that says no.
pub(super) fn refused(response: &Response<Bytes>) -> RemoteError {
    let mut short = Response::new(&**response.body());
    *short.status_mut() = response.status();
    short.headers_mut().clone_from(response.headers());
    let error = MatrixError::from_http_response(short);
    RemoteError::Answered(Refusal::read(response.status(), error.body))
}
