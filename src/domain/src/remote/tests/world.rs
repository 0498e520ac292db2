//! A network in memory, and the servers on it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use ruma::{CanonicalJsonObject, OwnedServerName, ServerName};
use vatra_store::{MemoryEngine, Options, Store};

use crate::{
    clock::ManualClock,
    event::signer::Signer,
    random::SystemRandom,
    remote::{ByteStream, Keys, Parts, Remote, Transport, TransportError, keys, transport::ready},
    schema,
};

/// Answers a request.
pub(super) type Answer =
    Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;

/// A request, and of whom.
type Asked = (OwnedServerName, Request<Bytes>);

/// Who is reachable, and what was asked.
#[derive(Default, Clone)]
pub(super) struct Net {
    servers: Arc<Mutex<HashMap<OwnedServerName, Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[async_trait]
impl Transport for Net {
    async fn send(
        &self,
        destination: &ServerName,
        request: Request<Bytes>,
    ) -> Result<Response<ByteStream>, TransportError> {
        let mut copy = Request::new(request.body().clone());
        *copy.uri_mut() = request.uri().clone();
        *copy.method_mut() = request.method().clone();
        copy.headers_mut().clone_from(request.headers());
        self.asked
            .lock()
            .unwrap()
            .push((destination.to_owned(), copy));
        tokio::task::yield_now().await;
        let answer = self.servers.lock().unwrap().get(destination).cloned();
        let answer = answer.ok_or_else(|| TransportError::NoConnection("gone".to_owned()))?;
        Ok(answer(request).await.map(ready))
    }

    async fn fetch(&self, _: &http::Uri) -> Result<Response<ByteStream>, TransportError> {
        Err(TransportError::NoConnection("no web".to_owned()))
    }
}

impl Net {
    /// A server answers like this from now on.
    pub(super) fn set(
        &self,
        server: &str,
        answer: impl Fn(Request<Bytes>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync + 'static,
    ) {
        let name = ServerName::parse(server).unwrap();
        self.servers.lock().unwrap().insert(name, Arc::new(answer));
    }

    /// A server always gives this answer.
    pub(super) fn fixed(&self, server: &str, status: u16, body: &str) {
        let body = Bytes::from(body.to_owned());
        self.set(server, move |_| {
            let response = Response::builder()
                .status(status)
                .body(body.clone())
                .unwrap();
            Box::pin(async move { response })
        });
    }

    /// A server is gone.
    pub(super) fn remove(&self, server: &str) {
        let name = ServerName::parse(server).unwrap();
        self.servers.lock().unwrap().remove(&name);
    }

    /// How often a server was asked.
    pub(super) fn count(&self, server: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(name, _)| name.as_str() == server)
            .count()
    }

    /// The last request.
    pub(super) fn last(&self) -> Request<Bytes> {
        self.asked.lock().unwrap().pop().unwrap().1
    }
}

/// A server: its key, and what it knows of others.
pub(super) struct Server {
    pub(super) name: OwnedServerName,
    pub(super) signer: Arc<Signer>,
    pub(super) store: Store,
    pub(super) remote: Remote,
    pub(super) keys: Keys,
}

/// A server's key, which has its name.
pub(super) fn signer(server: &str, version: &str) -> Arc<Signer> {
    let name = ServerName::parse(server).unwrap();
    let document = Signer::generate();
    Arc::new(Signer::from_der(name, &document, version.to_owned()).unwrap())
}

impl Server {
    pub(super) async fn new(net: &Net, clock: &Arc<ManualClock>, name: &str) -> Self {
        Self::with(net, clock, signer(name, "k1"), &[]).await
    }

    /// One with these notaries.
    pub(super) async fn with(
        net: &Net,
        clock: &Arc<ManualClock>,
        signer: Arc<Signer>,
        notaries: &[&str],
    ) -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let store = Store::open(engine, Options::default(), schema::migrations())
            .await
            .unwrap();
        Self::on(net, clock, signer, notaries, store).await
    }

    /// One on a store that is there already: a restart.
    pub(super) async fn on(
        net: &Net,
        clock: &Arc<ManualClock>,
        signer: Arc<Signer>,
        notaries: &[&str],
        store: Store,
    ) -> Self {
        let remote = Remote::new(Parts {
            store: store.clone(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom),
            signer: signer.clone(),
            transport: Arc::new(net.clone()),
        });
        let keys = Keys::open(keys::Parts {
            store: store.clone(),
            clock: clock.clone(),
            signer: signer.clone(),
            remote: remote.clone(),
            notaries: notaries
                .iter()
                .map(|name| ServerName::parse(name).unwrap())
                .collect(),
        });
        let keys = keys.await.unwrap();
        Self {
            name: signer.server_name().to_owned(),
            signer,
            store,
            remote,
            keys,
        }
    }

    /// Answers for its keys on the network.
    pub(super) fn publish(&self, net: &Net) {
        let keys = self.keys.clone();
        net.set(self.name.as_str(), move |_| {
            let keys = keys.clone();
            Box::pin(async move { json(&keys.published().await.unwrap()) })
        });
    }
}

/// An object as an answer.
pub(super) fn json(object: &CanonicalJsonObject) -> Response<Bytes> {
    Response::new(Bytes::from(serde_json::to_vec(object).unwrap()))
}
