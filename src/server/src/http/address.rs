//! Where a request came from, seen through the proxies that the operator trusts.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

use crate::outbound::policy::Network;

/// The header in which proxies write down where a request came to them from, each at the end.
const FORWARDED: &str = "x-forwarded-for";

/// Where a request came from. Set on each request by the outermost layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) IpAddr);

/// The proxies that are believed.
#[derive(Debug, Default)]
pub struct Proxies(Vec<Network>);

impl Proxies {
    /// Proxies at these addresses and networks, such as `127.0.0.1` and `10.0.0.0/8`.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn read(list: &[String]) -> Result<Self, &str> {
        let read = |text: &String| match text.parse::<IpAddr>() {
            Ok(address) => Some(Network::of(address)),
            Err(_) => text.parse().ok(),
        };
        let nets = list.iter().map(|text| read(text).ok_or(text.as_str()));
        nets.collect::<Result<_, _>>().map(Self)
    }

    /// Where a request came from: the peer, or, if that is a trusted proxy, whom it names; and so on back through the header.
    /// What others than trusted proxies have written is not believed.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(FORWARDED).iter().rev();
        let hops = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.rsplit(','));
        for hop in hops {
            if !self.trusts(client) {
                break;
            }
            match read(hop.trim()) {
                Some(before) => client = before,
                None => break,
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(address))
    }
}

/// An address, with a port or without.
fn read(hop: &str) -> Option<IpAddr> {
    let address = hop.parse().ok();
    let address = address.or_else(|| hop.parse::<SocketAddr>().ok().map(|hop| hop.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let list: Vec<String> = trusted.iter().map(|net| (*net).to_owned()).collect();
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED, line.parse().unwrap());
        }
        let proxies = Proxies::read(&list).unwrap();
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_say_where_a_request_came_from() {
        for (trusted, peer, forwarded, expected) in [
            (&[][..], "9.9.9.9", &["1.1.1.1"][..], "9.9.9.9"),
            (&["127.0.0.1"], "127.0.0.1", &[], "127.0.0.1"),
            (&["127.0.0.1"], "127.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            (&["127.0.0.1"], "::ffff:127.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            (&["127.0.0.1"], "9.9.9.9", &["1.1.1.1"], "9.9.9.9"),
            // The client wrote the first itself.
            (
                &["127.0.0.1"],
                "127.0.0.1",
                &["8.8.8.8, 1.1.1.1"],
                "1.1.1.1",
            ),
            (
                &["127.0.0.1"],
                "127.0.0.1",
                &["8.8.8.8", "1.1.1.1"],
                "1.1.1.1",
            ),
            (
                &["127.0.0.1", "10.0.0.0/8"],
                "127.0.0.1",
                &["1.1.1.1, 10.2.3.4"],
                "1.1.1.1",
            ),
            (&["::1"], "::1", &["[2001:db8::1]:443"], "2001:db8::1"),
            (&["::1"], "::1", &["1.1.1.1, unknown"], "::1"),
        ] {
            assert_eq!(client(trusted, peer, forwarded), expected, "{forwarded:?}");
        }
    }

    #[test]
    fn what_is_no_address_and_no_network_is_named() {
        let list = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        assert_eq!(Proxies::read(&list).unwrap_err(), "localhost");
    }
}
