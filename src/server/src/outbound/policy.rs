//! Which addresses this server connects to on the word of strangers: public ones, and those that the operator names.
//!
//! Whoever makes up a server name, a redirect or a DNS record could otherwise have this server speak to machines that only it
//! can reach. The check is made on the address that is connected to, after every look-up.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A range of addresses, written as `10.0.0.0/8` or `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    bits: u32,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is no network; write one as 10.0.0.0/8");
        let (base, bits) = text.split_once('/').ok_or_else(wrong)?;
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { base, bits })
    }
}

impl Network {
    /// One address alone.
    pub(crate) fn of(address: IpAddr) -> Self {
        Self {
            base: address,
            bits: if address.is_ipv4() { 32 } else { 128 },
        }
    }

    /// Whether an address is in it.
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                base.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// What the operator allows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// This machine itself.
    pub(crate) allow_loopback: bool,
    /// Networks that are connected to although they are not public.
    pub(crate) allowed: Vec<Network>,
}

impl Policy {
    /// Whether an address may be connected to.
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        self.is_own(address) || is_public(address.to_canonical())
    }

    /// Whether the operator has named an address, as this machine's or one of their networks: there, TLS may be left out.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (address.is_loopback() && self.allow_loopback)
            || self.allowed.iter().any(|network| network.contains(address))
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// <https://www.iana.org/assignments/iana-ipv4-special-registry>
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        // Carrier-grade NAT, protocol assignments, the old relay, benchmarks, reserved.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240;
    !special
}

/// <https://www.iana.org/assignments/iana-ipv6-special-registry>
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, .., x, y] = address.segments();
    let embedded = |high: u16, low: u16| {
        is_public_v4(Ipv4Addr::from_bits(
            (u32::from(high) << 16) | u32::from(low),
        ))
    };
    match (a, b) {
        // An IPv4 address behind a translator or a tunnel is judged as such.
        (0x64, 0xff9b) => embedded(x, y),
        (0x2002, _) => embedded(b, c),
        // Protocol assignments and tunnels, documentation.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x3fff, 0..=0xfff) => false,
        _ => (0x2000..=0x3fff).contains(&a),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn permits(policy: &Policy, address: &str) -> bool {
        policy.permits(address.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_connected_to() {
        let policy = Policy::default();
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700::1111",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(permits(&policy, address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:7f00:1::",
            "2001:0:1::",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!permits(&policy, address), "{address}");
        }
    }

    #[test]
    fn what_the_operator_names_is_allowed_and_nothing_else() {
        let policy = Policy {
            allow_loopback: true,
            allowed: vec![
                "10.213.0.0/16".parse().unwrap(),
                "fd00::/8".parse().unwrap(),
            ],
        };
        for address in [
            "127.0.0.1",
            "::1",
            "10.213.4.5",
            "::ffff:10.213.0.1",
            "fd00::7",
        ] {
            assert!(permits(&policy, address), "{address}");
        }
        for address in ["10.214.0.1", "192.168.0.1", "fc00::1", "169.254.1.1"] {
            assert!(!permits(&policy, address), "{address}");
        }
        let everything: Network = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains("192.168.0.1".parse().unwrap()));
    }

    #[test]
    fn a_network_that_is_none_is_refused() {
        for text in [
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "here/8",
            "10.0.0.0/-1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
