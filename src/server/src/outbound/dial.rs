//! From a host and a port to a TLS stream: the addresses are looked up, judged, and tried side by side.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName as TlsName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use vatra_domain::remote::TransportError;

use super::{dns::Dns, policy::Policy};

/// How long a connection to one address may take.
const CONNECT: Duration = Duration::from_secs(8);
/// How long an address is alone before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(300);
/// How long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
}

impl Host {
    /// Reads the host of a server name or a URL; IPv6 addresses are in brackets.
    pub(crate) fn parse(text: &str) -> Self {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        bare.parse()
            .map_or_else(|_| Self::Name(text.to_owned()), Self::Address)
    }

    /// What the certificate must be for.
    pub(crate) fn tls_name(&self) -> Result<TlsName<'static>, TransportError> {
        match self {
            Self::Address(address) => Ok(TlsName::IpAddress((*address).into())),
            Self::Name(name) => TlsName::try_from(name.clone())
                .map_err(|_| TransportError::Unresolved(format!("{name} is no host name"))),
        }
    }
}

/// The authorities whose certificates are believed: the public ones, and those in a file (PEM).
///
/// # Errors
/// A message that names the file.
pub(crate) fn authorities(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let Some(file) = file else {
        return Ok(roots);
    };
    let bad = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(&error))?;
    if certificates.is_empty() {
        return Err(bad(&"it holds no certificate"));
    }
    for certificate in certificates {
        roots.add(certificate).map_err(|error| bad(&error))?;
    }
    Ok(roots)
}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Dialer {
    dns: Arc<dyn Dns>,
    policy: Arc<Policy>,
    tls: TlsConnector,
}

impl Dialer {
    /// Connections to what `policy` permits, whose certificates must come from the public authorities or from those in
    /// the file `trusted_ca`.
    ///
    /// # Errors
    /// A message that names the file.
    pub(crate) fn new(
        dns: Arc<dyn Dns>,
        policy: Policy,
        trusted_ca: Option<&Path>,
    ) -> Result<Self, String> {
        let roots = authorities(trusted_ca)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            dns,
            policy: Arc::new(policy),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Where names are looked up.
    pub(crate) fn dns(&self) -> &dyn Dns {
        &*self.dns
    }

    /// A TLS stream to the first of `targets` that takes one, with a certificate for `name`.
    pub(crate) async fn secure(
        &self,
        targets: &[(Host, u16)],
        name: &TlsName<'static>,
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        let mut failure = TransportError::Unresolved("it has no address".to_owned());
        for (host, port) in targets {
            match self.connect(host, *port).await {
                Ok(stream) => return self.handshake(stream, name).await,
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// A stream without TLS, only to addresses that the operator has named.
    pub(crate) async fn plain(&self, host: &Host, port: u16) -> Result<TcpStream, TransportError> {
        let allowed = |address| self.policy.is_own(address);
        self.connect_to(host, port, allowed).await
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        name: &TlsName<'static>,
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        let shaken = self.tls.connect(name.clone(), stream);
        match tokio::time::timeout(HANDSHAKE, shaken).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(TransportError::NotTrusted(error.to_string())),
            Err(_) => Err(TransportError::TooSlow),
        }
    }

    /// A stream without TLS to what the policy permits. For pages, which strangers name: who asks for them says nothing that others may not read.
    pub(crate) async fn connect(
        &self,
        host: &Host,
        port: u16,
    ) -> Result<TcpStream, TransportError> {
        self.connect_to(host, port, |address| self.policy.permits(address))
            .await
    }

    async fn connect_to(
        &self,
        host: &Host,
        port: u16,
        allowed: impl Fn(IpAddr) -> bool,
    ) -> Result<TcpStream, TransportError> {
        let addresses = match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.dns.addresses(name).await?,
        };
        let permitted: Vec<_> = addresses
            .iter()
            .filter(|address| allowed(**address))
            .collect();
        if let (true, Some(first)) = (permitted.is_empty(), addresses.first()) {
            return Err(TransportError::NotPublic(*first));
        }
        let attempts = permitted.into_iter().zip(0_u32..).map(|(address, place)| {
            let address = SocketAddr::new(*address, port);
            async move {
                tokio::time::sleep(HEAD_START * place).await;
                match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => Ok(stream),
                    Ok(Err(error)) => Err(format!("{address}: {error}")),
                    Err(_) => Err(format!("{address}: no answer")),
                }
            }
        });
        let mut attempts: FuturesUnordered<_> = attempts.collect();
        let mut failure = "no address".to_owned();
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok(stream) => {
                    // Small requests must not wait for acknowledgements.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(reason) => failure = reason,
            }
        }
        Err(TransportError::NoConnection(failure))
    }
}
