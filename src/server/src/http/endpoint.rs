//! From ruma's request types to routes: a handler is registered by its own signature.
//!
//! A handler is `async fn(app: App, caller: C, request: R) -> Result<R::OutgoingResponse, Error>`; [`Routes::add`] takes the
//! paths, the method and the kind of authentication from `R`, so that a route cannot disagree with the spec. The
//! caller `C` is a `Requester`, an `Option<Requester>`, `()`, an application service or one of `callers`, as the endpoint's authentication has it. An endpoint
//! whose body or answer is too large to be held is registered with [`Routes::stream`]. An endpoint of the server-server API is
//! registered with [`Routes::signed`]: its caller is the [`Origin`](super::federation::Origin) that has signed the request, body and all.

mod caller;
mod callers;
mod guests;
mod input;
mod signed;

use std::{collections::HashSet, future::Future};

pub(crate) use self::{
    caller::{ByService, Caller},
    callers::{EvenLocked, Unsuspended},
    input::{Input, Upload},
};
use super::{address::Address, conditions::Conditions, error::Error, observe};
use crate::wiring::App;
use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, Request, State, rejection::RawPathParamsRejection},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use bytes::BytesMut;
use http::Method;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ruma::api::{
    IncomingRequest, IncomingRequestExt, Metadata, OutgoingResponseExt,
    auth_scheme::extract_bearer_or_query_token,
    error::{DeserializationError, FromHttpRequestError},
    path_builder::PathBuilder,
};

/// The routes gathered so far.
pub(crate) struct Routes {
    router: Router<App>,
    known: HashSet<(Method, String)>,
}

impl Routes {
    /// No routes.
    pub(crate) fn new() -> Self {
        Self {
            router: Router::new(),
            known: HashSet::new(),
        }
    }

    /// Registers a handler at all paths of its request type.
    pub(crate) fn add<R, C, F, Fut>(self, handler: F) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::PathBuilder: AllPaths,
        C: Caller<R::Authentication> + 'static,
        F: Fn(App, C, R) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse, Error>> + Send + 'static,
        R::OutgoingResponse: Send + 'static,
    {
        let serve = move |State(app): State<App>, params: Params, request: Request| {
            let handler = handler.clone();
            async move {
                match serve::<R, C, F, Fut>(app, params, request, handler).await {
                    Ok(response) => response,
                    Err(error) => error.into_response(),
                }
            }
        };
        paths::<R>().iter().fold(self, |routes, path| {
            routes.route(&R::METHOD, path, |filter| on(filter, serve.clone()))
        })
    }

    /// Registers a handler that reads and writes plain JSON at all paths of a request type, for the few endpoints whose
    /// answer or parameters ruma's types do not hold.
    pub(crate) fn json<R, C, F, Fut>(self, handler: F) -> Self
    where
        R: Metadata + 'static,
        R::PathBuilder: AllPaths,
        C: Caller<R::Authentication> + 'static,
        F: Fn(App, C, Input) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        let serve = move |State(app): State<App>, params: Params, request: Request| {
            let handler = handler.clone();
            async move {
                let read = async {
                    let (head, body) = apart(request);
                    let caller = identify::<R, C>(&app, &head).await?;
                    let body = read_body(body, app.limits.request_bytes).await?;
                    must_be_good(&body)?;
                    let params = decoded(params)?;
                    let args = params.iter().map(|(_, value)| value.to_owned()).collect();
                    let query = head.uri().query().unwrap_or_default().to_owned();
                    let address = head.extensions().get::<Address>().copied();
                    let languages = languages(head.headers());
                    let input = Input {
                        args,
                        query,
                        body,
                        address,
                        languages,
                    };
                    Ok::<_, Error>((caller, input))
                };
                match read.await {
                    Ok((caller, input)) => to_the_end(&R::METHOD, handler(app, caller, input))
                        .await
                        .unwrap_or_else(Error::into_response),
                    Err(error) => error.into_response(),
                }
            }
        };
        paths::<R>().iter().fold(self, |routes, path| {
            routes.route(&R::METHOD, path, |filter| on(filter, serve.clone()))
        })
    }

    /// Registers a handler whose body or answer is too large to be held, at all paths of its request type: the body is
    /// handed over unread (the request is parsed as if it were empty), and the answer is written as it comes.
    pub(crate) fn stream<R, C, F, Fut>(self, handler: F) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::PathBuilder: AllPaths,
        C: Caller<R::Authentication> + 'static,
        F: Fn(App, C, R, Upload) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        let serve = move |State(app): State<App>, params: Params, request: Request| {
            let handler = handler.clone();
            async move {
                let read = async {
                    let (head, body) = apart(request);
                    let caller = identify::<R, C>(&app, &head).await?;
                    let (parts, ()) = head.into_parts();
                    let conditions = Conditions::of(&parts.headers);
                    let announced_bytes = body.size_hint().exact();
                    let params = decoded(params)?;
                    let args: Vec<&str> = params.iter().map(|(_, value)| value).collect();
                    let empty: &[u8] = &[];
                    let request =
                        R::try_from_http_request(http::Request::from_parts(parts, empty), &args)
                            .map_err(|error| unreadable(error, empty))?;
                    Ok::<_, Error>((
                        caller,
                        request,
                        Upload {
                            body,
                            announced_bytes,
                            conditions,
                        },
                    ))
                };
                match read.await {
                    Ok((caller, request, upload)) => handler(app, caller, request, upload)
                        .await
                        .unwrap_or_else(Error::into_response),
                    Err(error) => error.into_response(),
                }
            }
        };
        paths::<R>().iter().fold(self, |routes, path| {
            routes.route(&R::METHOD, path, |filter| on(filter, serve.clone()))
        })
    }

    /// The routes of both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.known.extend(other.known);
        self
    }

    /// Registers an axum handler at a path that is not ruma's.
    pub(crate) fn path(
        self,
        method: &Method,
        path: &str,
        route: impl Fn(MethodFilter) -> MethodRouter<App>,
    ) -> Self {
        self.route(method, path, route)
    }

    fn route(
        mut self,
        method: &Method,
        path: &str,
        route: impl Fn(MethodFilter) -> MethodRouter<App>,
    ) -> Self {
        let path = positional(path);
        let Ok(filter) = MethodFilter::try_from(method.clone()) else {
            return self;
        };
        if self.known.insert((method.clone(), path.clone())) {
            self.router = self.router.route(&path, route(filter));
        }
        self
    }

    /// Every method and path that is routed, in order; the variable parts of paths are in braces.
    pub(crate) fn known(&self) -> Vec<(Method, String)> {
        let mut known: Vec<_> = self.known.iter().cloned().collect();
        known.sort_by(|(one, at), (other, there)| (at, one.as_str()).cmp(&(there, other.as_str())));
        known
    }

    /// The router.
    pub(crate) fn into_router(self) -> Router<App> {
        self.router
    }
}

/// Every path of an endpoint, in every version of the spec.
pub(crate) trait AllPaths: PathBuilder {
    /// The paths.
    fn all(&self) -> Vec<&'static str>;
}

impl AllPaths for ruma::api::path_builder::VersionHistory {
    fn all(&self) -> Vec<&'static str> {
        self.all_paths().collect()
    }
}

impl AllPaths for ruma::api::path_builder::SinglePath {
    fn all(&self) -> Vec<&'static str> {
        vec![self.path()]
    }
}

/// Every path of an endpoint: those that ruma knows, the `r0` form of the classic ones, and for state the forms without
/// a state key, which is then empty.
fn paths<R: Metadata>() -> Vec<String>
where
    R::PathBuilder: AllPaths,
{
    let mut paths: Vec<String> = Vec::new();
    for path in R::PATH_BUILDER.all() {
        paths.push(path.to_owned());
        for (classic, old) in [
            ("/_matrix/client/v3/", "/_matrix/client/r0/"),
            ("/_matrix/media/v3/", "/_matrix/media/r0/"),
        ] {
            paths.extend(
                path.strip_prefix(classic)
                    .map(|rest| format!("{old}{rest}")),
            );
        }
    }
    let keyed = paths
        .iter()
        .filter_map(|path| path.strip_suffix("/{state_key}"));
    let shorter: Vec<_> = keyed
        .flat_map(|path| [path.to_owned(), format!("{path}/")])
        .collect();
    paths.extend(shorter);
    paths
}

/// Two endpoints may name the same place of a path differently, which the router does not take: places are numbered.
fn positional(path: &str) -> String {
    let parts = path.split('/').enumerate();
    let named = parts.map(|(place, part)| {
        if part.starts_with('{') {
            format!("{{p{place}}}")
        } else {
            part.to_owned()
        }
    });
    named.collect::<Vec<_>>().join("/")
}

async fn serve<R, C, F, Fut>(
    app: App,
    params: Params,
    request: Request,
    handler: F,
) -> Result<Response, Error>
where
    R: IncomingRequest + Send + 'static,
    C: Caller<R::Authentication>,
    F: Fn(App, C, R) -> Fut,
    Fut: Future<Output = Result<R::OutgoingResponse, Error>> + Send + 'static,
    R::OutgoingResponse: Send + 'static,
{
    let (head, body) = apart(request);
    let caller = identify::<R, C>(&app, &head).await?;
    let bytes = read_body(body, app.limits.request_bytes).await?;
    must_be_good(&bytes)?;
    let request = parsed::<R>(head, params, &bytes)?;
    written(to_the_end(&R::METHOD, handler(app, caller, request)).await?)
}

fn parsed<R: IncomingRequest>(
    head: http::Request<()>,
    params: Params,
    bytes: &[u8],
) -> Result<R, Error> {
    let (parts, ()) = head.into_parts();
    let body: &[u8] = if bytes.is_empty() && R::METHOD != Method::GET {
        b"{}"
    } else {
        bytes
    };
    let params = decoded(params)?;
    let args: Vec<&str> = params.iter().map(|(_, value)| value).collect();
    R::try_from_http_request(http::Request::from_parts(parts, body), &args)
        .map_err(|error| unreadable(error, body))
}

fn written(response: impl ruma::api::OutgoingResponse) -> Result<Response, Error> {
    let response = response
        .try_into_http_response::<BytesMut>()
        .map_err(|error| Error::internal(&error))?;
    Ok(response.map(|body| Body::from(body.freeze())))
}

/// The languages of who sends a request, as in `Accept-Language`; empty if that is not said.
pub(crate) fn languages(headers: &http::HeaderMap) -> String {
    let header = headers.get(http::header::ACCEPT_LANGUAGE);
    let text = header.and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_owned()
}

/// The variable parts of a path, if they can be read.
type Params = Result<RawPathParams, RawPathParamsRejection>;

fn decoded(params: Params) -> Result<RawPathParams, Error> {
    params.map_err(|_| Error::invalid_param("the path is not valid UTF-8"))
}

fn apart(request: Request) -> (http::Request<()>, Body) {
    let (parts, body) = request.into_parts();
    (http::Request::from_parts(parts, ()), body)
}

async fn identify<R: Metadata, C: Caller<R::Authentication>>(
    app: &App,
    head: &http::Request<()>,
) -> Result<C, Error> {
    // Another kind of proof is none here; where none is needed, it does not matter: other servers sign all they ask.
    let token = extract_bearer_or_query_token(head).unwrap_or_default();
    let query = head.uri().query().unwrap_or_default();
    let caller = C::identify(app, token, query).await?;
    if let Some(requester) = caller.requester() {
        if requester.guest {
            guests::may_ask(&R::METHOD, head.uri().path())?;
        }
        observe::name_caller(head, requester.user.as_str());
        if let Some(Address(address)) = head.extensions().get::<Address>() {
            app.users.seen(requester, &address.to_string());
        }
        if !says_to_be_away(head) {
            app.users.is_there(requester.sid);
        }
    }
    Ok(caller)
}

/// A poll of a program that waits in the background.
fn says_to_be_away(head: &http::Request<()>) -> bool {
    let query = head.uri().query().unwrap_or_default();
    query.contains("set_presence=")
        && form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
            name == "set_presence" && (value == "unavailable" || value == "offline")
        })
}

/// Runs a handler; one that may change something runs on when its client goes away, so that nothing stops halfway.
async fn to_the_end<T, Fut>(method: &Method, handler: Fut) -> Result<T, Error>
where
    T: Send + 'static,
    Fut: Future<Output = Result<T, Error>> + Send + 'static,
{
    if *method == Method::GET {
        return handler.await;
    }
    match tokio::spawn(handler).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Error::internal(&error)),
    }
}

/// A body, unless it is larger than `limit` bytes; no more than that is ever in memory.
pub(crate) async fn read_body(body: Body, limit: usize) -> Result<bytes::Bytes, Error> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Error::too_large(limit))
        }
        Err(_) => Err(Error::not_json("the body ended too early")),
    }
}

/// A body that is held is empty, or a JSON object that every reader can read.
fn must_be_good(body: &[u8]) -> Result<(), Error> {
    if body.is_empty() {
        return Ok(());
    }
    must_be_object(body)?;
    must_be_readable(body)
}

/// Every body of the API that is held is a JSON object, also where a type would take any JSON, or none is looked at.
fn must_be_object(body: &[u8]) -> Result<(), Error> {
    // A reader that skips what it does not know would let it pass.
    if let Err(error) = std::str::from_utf8(body) {
        return Err(Error::not_json(&format!("the body is not UTF-8: {error}")));
    }
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        return Err(Error::not_json(&error.to_string()));
    }
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        Some(b'{') => Ok(()),
        _ => Err(Error::bad_json("the body must be a JSON object")),
    }
}

/// How deep objects and lists may lie in each other.
const DEEPEST: usize = 128;

/// What is kept as it came is given to other clients, whose readers give up at some depth, and at halves of characters.
fn must_be_readable(body: &[u8]) -> Result<(), Error> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > DEEPEST {
                    return Err(Error::bad_json("the body is nested too deeply"));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    // A reader that skips a string does not look at its escapes.
    let half = |word: &[u8]| word.eq_ignore_ascii_case(b"\\ud");
    if body.windows(3).any(half)
        && let Err(error) = serde_json::from_slice::<serde_json::Value>(body)
    {
        return Err(Error::not_json(&error.to_string()));
    }
    Ok(())
}

/// Says what is wrong with a request that cannot be read.
fn unreadable(error: FromHttpRequestError, body: &[u8]) -> Error {
    match error {
        FromHttpRequestError::Deserialization(DeserializationError::Json(error)) => {
            if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
                Error::bad_json(&error.to_string())
            } else {
                Error::not_json(&error.to_string())
            }
        }
        FromHttpRequestError::Deserialization(DeserializationError::Utf8(error)) => {
            Error::not_json(&error.to_string())
        }
        other => Error::invalid_param(&other.to_string()),
    }
}
