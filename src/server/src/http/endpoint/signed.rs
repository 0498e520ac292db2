//! Requests of other servers: who asks is proven before anything is parsed.

use std::future::Future;

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::on,
};
use http::Method;
use ruma::api::{IncomingRequest, federation::authentication::ServerSignatures};

use super::{
    AllPaths, Input, Params, Routes, apart, decoded, must_be_good, parsed, paths, read_body,
    to_the_end, written,
};
use crate::{
    http::{
        address::Address,
        error::Error,
        federation::origin::{Claim, Origin},
    },
    wiring::App,
};

impl Routes {
    /// Registers a handler of the server-server API at all paths of its request type.
    pub(crate) fn signed<R, F, Fut>(self, handler: F) -> Self
    where
        R: IncomingRequest<Authentication = ServerSignatures> + Send + 'static,
        R::PathBuilder: AllPaths,
        F: Fn(App, Origin, R) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse, Error>> + Send + 'static,
        R::OutgoingResponse: Send + 'static,
    {
        self.signed_raw::<R, _, _>(move |app, origin, request| {
            let answer = handler(app, origin, request);
            async move { written(answer.await?) }
        })
    }

    /// The same for a handler that writes the answer itself.
    pub(crate) fn signed_raw<R, F, Fut>(self, handler: F) -> Self
    where
        R: IncomingRequest<Authentication = ServerSignatures> + Send + 'static,
        R::PathBuilder: AllPaths,
        F: Fn(App, Origin, R) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        let serve = move |State(app): State<App>, params: Params, request: Request| {
            let handler = handler.clone();
            async move {
                let read = read_signed::<R>(&app, params, request).await;
                let answer = match read {
                    Ok((origin, request)) => {
                        to_the_end(&R::METHOD, handler(app, origin, request)).await
                    }
                    Err(error) => Err(error),
                };
                answer.unwrap_or_else(Error::into_response)
            }
        };
        paths::<R>().iter().fold(self, |routes, path| {
            routes.route(&R::METHOD, path, |filter| on(filter, serve.clone()))
        })
    }

    /// The same for a handler that reads and writes plain JSON, at a path that is not ruma's.
    pub(crate) fn signed_json<F, Fut>(self, method: &Method, path: &str, handler: F) -> Self
    where
        F: Fn(App, Origin, Input) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        let serve = move |State(app): State<App>, params: Params, request: Request| {
            let handler = handler.clone();
            async move {
                let method = request.method().clone();
                let answer = match read_input(&app, params, request).await {
                    Ok((origin, input)) => to_the_end(&method, handler(app, origin, input)).await,
                    Err(error) => Err(error),
                };
                answer.unwrap_or_else(Error::into_response)
            }
        };
        self.route(method, path, |filter| on(filter, serve.clone()))
    }
}

async fn read_signed<R>(app: &App, params: Params, request: Request) -> Result<(Origin, R), Error>
where
    R: IncomingRequest<Authentication = ServerSignatures>,
{
    let (origin, request) = proven(app, request).await?;
    let (parts, bytes) = request.into_parts();
    must_be_good(&bytes)?;
    let request = parsed::<R>(http::Request::from_parts(parts, ()), params, &bytes)?;
    Ok((origin, request))
}

async fn read_input(app: &App, params: Params, request: Request) -> Result<(Origin, Input), Error> {
    let (origin, request) = proven(app, request).await?;
    must_be_good(request.body())?;
    let params = decoded(params)?;
    let input = Input {
        args: params.iter().map(|(_, value)| value.to_owned()).collect(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        address: request.extensions().get::<Address>().copied(),
        body: request.into_body(),
        languages: String::new(),
    };
    Ok((origin, input))
}

/// Takes a request of another server: its head says who, its body is taken, and both are proven before either is looked at.
async fn proven(
    app: &App,
    request: Request,
) -> Result<(Origin, http::Request<bytes::Bytes>), Error> {
    let (head, body) = apart(request);
    let from = head.extensions().get::<Address>().copied();
    app.rates.server_from(from)?;
    let claim = Claim::read(app, &head)?;
    let bytes = read_body(body, app.limits.federation_bytes).await?;
    let request = head.map(|()| bytes);
    let origin = claim.prove(app, &request).await?;
    app.rates.server(origin.name())?;
    Ok((origin, request))
}
