//! Looking names up: addresses by way of the system (so that its hosts file counts), services by asking its name servers.

use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use hickory_resolver::{TokioResolver, proto::rr::RData};
use tracing::{debug, warn};
use vatra_domain::remote::TransportError;

/// How long a look-up may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// The most targets of one service that are tried.
const MAX_TARGETS: usize = 8;

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// Lower comes first.
    pub(crate) priority: u16,
    /// Among equals: how often it comes first.
    pub(crate) weight: u16,
    /// The port.
    pub(crate) port: u16,
    /// The host.
    pub(crate) target: String,
}

/// Looks names up. Tests have their own.
#[async_trait]
pub(crate) trait Dns: Send + Sync + 'static {
    /// A host's addresses, best first; at least one.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, TransportError>;

    /// Where a service such as `_matrix-fed._tcp.example.org` is, in no order; empty if there is none, or nobody knows.
    async fn services(&self, name: &str) -> Vec<Service>;
}

/// The system's.
pub(crate) struct SystemDns {
    resolver: Option<TokioResolver>,
}

impl SystemDns {
    /// With the name servers that the system has configured; without any, there are no services.
    pub(crate) fn new() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let resolver = match built {
            Ok(resolver) => Some(resolver),
            Err(error) => {
                warn!(%error, "no name servers are configured: SRV records of other servers are not seen");
                None
            }
        };
        Self { resolver }
    }
}

#[async_trait]
impl Dns for SystemDns {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, TransportError> {
        let unresolved = |reason: &str| TransportError::Unresolved(format!("{host}: {reason}"));
        let looked_up = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, 0_u16)));
        let found = match looked_up.await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(unresolved(&error.to_string())),
            Err(_) => return Err(unresolved("no answer in time")),
        };
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Err(unresolved("it has no address"));
        }
        Ok(addresses)
    }

    async fn services(&self, name: &str) -> Vec<Service> {
        let Some(resolver) = &self.resolver else {
            return Vec::new();
        };
        // The dot at the end: no search domains.
        let query = resolver.srv_lookup(format!("{name}."));
        let found = match tokio::time::timeout(PATIENCE, query).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                debug!(name, %error, "no service");
                return Vec::new();
            }
            Err(_) => {
                debug!(name, "no answer about a service in time");
                return Vec::new();
            }
        };
        let services = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(service) => Some(Service {
                    priority: service.priority,
                    weight: service.weight,
                    port: service.port,
                    target: service.target.to_ascii().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            });
        services.take(MAX_TARGETS).collect()
    }
}
