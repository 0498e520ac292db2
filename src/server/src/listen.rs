//! Listeners: plain or TLS, HTTP/1.1 or HTTP/2, ending gracefully.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router};
use hyper::service::{Service, service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

/// How long is waited for whoever is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For requests to finish once the server stops; then their connections are cut.
    pub grace: Duration,
    /// For a new client to send a request's head, or anything at all.
    pub head: Duration,
    /// For the head of a client's next request. Longer than the 90 s for which clients commonly keep an idle connection: who is
    /// cut off while they send a request cannot know whether it was taken.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(120),
        }
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// The certificate's file.
    #[error("{0}")]
    Cert(String),
    /// The key's file, or the key does not belong to the certificate.
    #[error("{0}")]
    Key(String),
}

impl TlsFault {
    /// The setting that names the file.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Cert(_) => "federation.tls_cert",
            Self::Key(_) => "federation.tls_key",
        }
    }
}

/// Reads a certificate and its key.
///
/// # Errors
/// A message that names the file.
pub fn tls(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsFault> {
    let told = |file: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let bad_cert = |error: &dyn std::fmt::Display| TlsFault::Cert(told(cert, error));
    let bad_key = |error: &dyn std::fmt::Display| TlsFault::Key(told(key, error));
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad_cert(&error))?;
    if chain.is_empty() {
        return Err(bad_cert(&"it holds no certificate"));
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| bad_key(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad_cert(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(|error| bad_key(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `stop`, then lets requests finish for a while, and cuts what is left. Nothing of it runs on when it returns.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
    patience: Patience,
) {
    let graceful = GracefulShutdown::new();
    let (hard, connections) = (CancellationToken::new(), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be free.
                debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Small answers must not wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let router = router.clone().layer(Extension(Peer(peer)));
        let watcher = graceful.watcher();
        let (tls, hard) = (tls.clone(), hard.clone());
        connections.spawn(async move {
            let served = async {
                match tls {
                    Some(tls) => match timeout(patience.head, tls.accept(stream)).await {
                        Ok(Ok(stream)) => connection(stream, router, watcher, patience).await,
                        Ok(Err(error)) => debug!(%error, %peer, "no TLS"),
                        Err(_) => debug!(%peer, "TLS took too long"),
                    },
                    None => connection(stream, router, watcher, patience).await,
                }
            };
            tokio::select! {
                () = served => {}
                () = hard.cancelled() => debug!(%peer, "a connection was cut, since the server stops"),
            }
        });
    }
    drop(listener);
    connections.close();
    if timeout(patience.grace, graceful.shutdown()).await.is_err() {
        hard.cancel();
    }
    connections.wait().await;
}

async fn connection<S>(
    stream: S,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
    patience: Patience,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Arc::new(AtomicBool::new(false));
    let (router, seen) = (TowerToHyperService::new(router), Arc::clone(&begun));
    let service = service_fn(move |request| {
        seen.store(true, Ordering::Relaxed);
        router.call(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.idle);
    let served = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    // A limit on the first head of its own, whichever HTTP it turns out to be.
    let silent = async {
        tokio::time::sleep(patience.head).await;
        if begun.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = watcher.watch(served) => {
            if let Err(error) = served {
                debug!(%error, "a connection ended early");
            }
        }
        () = silent => debug!("a connection was cut, since no request came"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use axum::routing::{get, post};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    const SHORT: Patience = Patience {
        grace: Duration::from_millis(300),
        head: Duration::from_millis(300),
        idle: Duration::from_millis(1_500),
    };

    async fn start() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/body", post(|body: axum::body::Bytes| async move { body }))
            .route("/slow", get(std::future::pending::<()>));
        let serving = serve(listener, None, router, stop.clone(), SHORT);
        (address, stop, tokio::spawn(serving))
    }

    async fn say(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn who_sends_no_whole_head_is_cut_off() {
        let (address, stop, serving) = start().await;
        for beginning in ["", "P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost: a"] {
            let mut stream = say(address, beginning).await;
            let mut rest = Vec::new();
            let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "{beginning:?} stays");
        }
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        let mut stream = say(address, request).await;
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn an_idle_connection_is_kept_for_longer_and_then_closed() {
        let (address, stop, serving) = start().await;
        let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut stream = say(address, request).await;
        let mut answer = vec![0; 4096];
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        tokio::time::sleep(SHORT.head * 2).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        let ended = timeout(Duration::from_secs(10), stream.read(&mut answer)).await;
        assert_eq!(ended.unwrap().unwrap(), 0);
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn what_has_not_finished_after_the_grace_is_cut() {
        let (address, stop, serving) = start().await;
        let mut hanging = Vec::new();
        for request in [
            "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
        ] {
            hanging.push(say(address, request).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begin = Instant::now();
        stop.cancel();
        timeout(Duration::from_secs(10), serving)
            .await
            .unwrap()
            .unwrap();
        assert!(begin.elapsed() >= SHORT.grace, "they were given time");
        for mut stream in hanging {
            let mut rest = Vec::new();
            let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok() && rest.is_empty(), "{rest:?}");
        }
    }
}
