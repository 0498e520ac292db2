//! From a server's name to where it is, what its certificate must say and what `Host` is sent.
//! <https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names>

use std::hash::{DefaultHasher, Hash, Hasher};

use ruma::ServerName;
use vatra_domain::random::Random;

use super::{
    dial::Host,
    dns::{Dns, Service},
    well_known::WellKnowns,
};

/// The port of servers that name none.
const PORT: u16 = 8448;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// What the certificate must be for.
    pub(crate) certificate: Host,
    /// The `Host` header.
    pub(crate) host_header: String,
    /// Hosts and ports, to be tried in order.
    pub(crate) targets: Vec<(Host, u16)>,
}

impl Place {
    /// A host name under which connections to this place are kept: other places have other names.
    pub(crate) fn key(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("{:016x}.place", hasher.finish())
    }
}

/// Finds a server. Costs a well-known look-up (kept, see there) and up to two DNS queries.
pub(crate) async fn resolve(
    server: &ServerName,
    well_knowns: &WellKnowns,
    dns: &dyn Dns,
    random: &dyn Random,
) -> Place {
    if let Some(place) = literal_or_port(server) {
        return place;
    }
    match well_knowns.of(server.host()).await {
        Some(delegated) => match literal_or_port(&delegated) {
            Some(place) => place,
            None => by_service(delegated.host(), dns, random).await,
        },
        None => by_service(server.host(), dns, random).await,
    }
}

/// Steps 1, 2, 3.1 and 3.2: an address, or a port that is given.
fn literal_or_port(server: &ServerName) -> Option<Place> {
    let host = Host::parse(server.host());
    let port = match (&host, server.port()) {
        (Host::Name(_), None) => return None,
        (_, port) => port.unwrap_or(PORT),
    };
    Some(Place {
        certificate: host.clone(),
        host_header: server.to_string(),
        targets: vec![(host, port)],
    })
}

/// Steps 3.3 to 3.5 and 4 to 6: services, else the host itself. Certificate and `Host` stay those of the host, since DNS proves
/// nothing.
async fn by_service(host: &str, dns: &dyn Dns, random: &dyn Random) -> Place {
    let mut services = dns.services(&format!("_matrix-fed._tcp.{host}")).await;
    if services.is_empty() {
        services = dns.services(&format!("_matrix._tcp.{host}")).await;
    }
    let mut targets: Vec<_> = in_order(services, random)
        .into_iter()
        // A dot says that the service is not to be had; what is no address stays a name.
        .filter(|service| !service.target.is_empty())
        .map(|service| (Host::Name(service.target), service.port))
        .collect();
    if targets.is_empty() {
        targets.push((Host::Name(host.to_owned()), PORT));
    }
    Place {
        certificate: Host::Name(host.to_owned()),
        host_header: host.to_owned(),
        targets,
    }
}

/// By priority; among equals at random, the heavier more often first (RFC 2782).
fn in_order(mut services: Vec<Service>, random: &dyn Random) -> Vec<Service> {
    services.sort_by_key(|service| (service.priority, service.weight));
    let mut ordered = Vec::with_capacity(services.len());
    while let Some(priority) = services.first().map(|service| service.priority) {
        let equals = services
            .iter()
            .take_while(|service| service.priority == priority);
        let total: u64 = equals
            .clone()
            .map(|service| u64::from(service.weight))
            .sum();
        let mut bytes = [0_u8; 8];
        random.fill(&mut bytes);
        let drawn = u64::from_le_bytes(bytes) % (total + 1);
        let mut sum = 0;
        let picked = equals.clone().position(|service| {
            sum += u64::from(service.weight);
            sum >= drawn
        });
        ordered.push(services.remove(picked.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::HashMap, net::IpAddr, sync::Arc};

    use async_trait::async_trait;
    use bytes::Bytes;
    use http::{Response, Uri};
    use vatra_domain::{
        clock::ManualClock,
        random::SystemRandom,
        remote::{ByteStream, TransportError, transport},
    };

    use super::*;
    use crate::outbound::well_known::Web;

    #[derive(Default)]
    struct World {
        files: HashMap<&'static str, &'static str>,
        services: HashMap<&'static str, Vec<Service>>,
    }

    #[async_trait]
    impl Web for World {
        async fn get(&self, url: &Uri) -> Result<Response<ByteStream>, TransportError> {
            let file = self.files.get(url.host().unwrap());
            let server = file.ok_or(TransportError::TooSlow)?;
            let body = format!(r#"{{"m.server":"{server}"}}"#);
            Ok(Response::new(transport::ready(Bytes::from(body))))
        }
    }

    #[async_trait]
    impl Dns for World {
        async fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, TransportError> {
            Err(TransportError::TooSlow)
        }

        async fn services(&self, name: &str) -> Vec<Service> {
            self.services.get(name).cloned().unwrap_or_default()
        }
    }

    fn service(priority: u16, target: &str, port: u16) -> Service {
        Service {
            priority,
            weight: 1,
            port,
            target: target.to_owned(),
        }
    }

    /// The certificate, the `Host` and the targets of a name, as text.
    async fn found(name: &str, world: World) -> String {
        let world = Arc::new(world);
        let knowns = WellKnowns::new(world.clone(), ManualClock::new(0));
        let server = ServerName::parse(name).unwrap();
        let place = resolve(&server, &knowns, &*world, &SystemRandom).await;
        let text = |host: &Host| match host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        };
        let targets: Vec<_> = place
            .targets
            .iter()
            .map(|(host, port)| format!("{} {port}", text(host)))
            .collect();
        format!(
            "{} | {} | {}",
            text(&place.certificate),
            place.host_header,
            targets.join(", ")
        )
    }

    fn world(
        files: &[(&'static str, &'static str)],
        services: &[(&'static str, Vec<Service>)],
    ) -> World {
        World {
            files: files.iter().copied().collect(),
            services: services.iter().cloned().collect(),
        }
    }

    #[tokio::test]
    async fn every_step_of_the_resolution_is_as_the_spec_has_it() {
        let fed = |host: &'static str| ("_matrix-fed._tcp.a.example", vec![service(1, host, 7)]);
        let old = |host: &'static str| ("_matrix._tcp.a.example", vec![service(1, host, 8)]);
        let cases = [
            // 1: addresses.
            (
                "1.2.3.4",
                world(&[], &[]),
                "1.2.3.4 | 1.2.3.4 | 1.2.3.4 8448",
            ),
            (
                "1.2.3.4:5",
                world(&[], &[]),
                "1.2.3.4 | 1.2.3.4:5 | 1.2.3.4 5",
            ),
            (
                "[2606:4700::1]",
                world(&[], &[]),
                "2606:4700::1 | [2606:4700::1] | 2606:4700::1 8448",
            ),
            (
                "[2606:4700::1]:5",
                world(&[], &[]),
                "2606:4700::1 | [2606:4700::1]:5 | 2606:4700::1 5",
            ),
            // 2: a port; nobody looks further.
            (
                "a.example:5",
                world(&[("a.example", "b.example")], &[fed("c")]),
                "a.example | a.example:5 | a.example 5",
            ),
            // 3: delegated by a file.
            (
                "a.example",
                world(&[("a.example", "1.2.3.4")], &[fed("c")]),
                "1.2.3.4 | 1.2.3.4 | 1.2.3.4 8448",
            ),
            (
                "a.example",
                world(&[("a.example", "1.2.3.4:5")], &[]),
                "1.2.3.4 | 1.2.3.4:5 | 1.2.3.4 5",
            ),
            (
                "a.example",
                world(&[("a.example", "b.example:5")], &[fed("c")]),
                "b.example | b.example:5 | b.example 5",
            ),
            (
                "b.example",
                world(&[("b.example", "a.example")], &[fed("c"), old("d")]),
                "a.example | a.example | c 7",
            ),
            (
                "b.example",
                world(&[("b.example", "a.example")], &[old("d")]),
                "a.example | a.example | d 8",
            ),
            (
                "b.example",
                world(&[("b.example", "a.example")], &[]),
                "a.example | a.example | a.example 8448",
            ),
            // A delegate does not delegate.
            (
                "b.example",
                world(
                    &[("b.example", "a.example"), ("a.example", "z.example:1")],
                    &[],
                ),
                "a.example | a.example | a.example 8448",
            ),
            // 4, 5, 6: by services, or not at all.
            (
                "a.example",
                world(&[], &[fed("c"), old("d")]),
                "a.example | a.example | c 7",
            ),
            (
                "a.example",
                world(&[], &[old("d")]),
                "a.example | a.example | d 8",
            ),
            (
                "a.example",
                world(&[], &[]),
                "a.example | a.example | a.example 8448",
            ),
        ];
        for (name, world, expected) in cases {
            assert_eq!(found(name, world).await, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn services_are_tried_by_priority_and_none_means_none() {
        let many = vec![
            service(2, "later", 2),
            service(1, "first", 1),
            service(3, "last", 3),
        ];
        let found_many = found(
            "a.example",
            world(&[], &[("_matrix-fed._tcp.a.example", many)]),
        )
        .await;
        assert_eq!(
            found_many,
            "a.example | a.example | first 1, later 2, last 3"
        );
        let none = vec![service(0, "", 0)];
        let found_none = found(
            "a.example",
            world(&[], &[("_matrix-fed._tcp.a.example", none)]),
        )
        .await;
        assert_eq!(found_none, "a.example | a.example | a.example 8448");
    }

    #[test]
    fn the_heavier_of_equals_comes_first_more_often() {
        let services = || {
            let heavy = Service {
                weight: 90,
                ..service(1, "heavy", 1)
            };
            vec![
                Service {
                    weight: 10,
                    ..service(1, "light", 1)
                },
                heavy,
            ]
        };
        let firsts = (0..1000)
            .filter(|_| in_order(services(), &SystemRandom).first().unwrap().target == "heavy");
        let heavy = firsts.count();
        assert!((700..1000).contains(&heavy), "{heavy} of 1000");
    }
}
