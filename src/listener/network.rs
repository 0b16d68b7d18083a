//! Several networks, for settings that name proxies.

use super::Peer;
use crate::domain::{InvalidNetwork, Network};
use http::HeaderMap;
use std::net::IpAddr;

/// Several networks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// # Errors
    /// One of the texts is not a network.
    pub fn parse(texts: &[String]) -> Result<Self, InvalidNetwork> {
        texts
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether one of them holds the address. An IPv4 address in IPv6 form counts as IPv4.
    #[must_use]
    pub fn contain(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(ip))
    }
}

/// The address that a request comes from: the peer's, or behind trusted proxies the last forwarded
/// address that is no trusted proxy.
#[must_use]
pub fn caller_of(peer: &Peer, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let peer = peer.address.ip().to_canonical();
    if !trusted.contain(peer) {
        return peer;
    }
    let forwarded = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let forwarded: Vec<IpAddr> = forwarded.map_while(|address| address.trim().parse().ok()).collect();
    let last = forwarded.into_iter().rev().find(|ip| !trusted.contain(*ip));
    last.unwrap_or(peer).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_in_ipv6_form_is_in_its_ipv4_network() {
        let networks = Networks::parse(&["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()]).expect("networks");
        for (address, is_in) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("::ffff:11.0.0.1", false),
            ("fd00::1", true),
            ("fc00::1", false),
        ] {
            assert_eq!(
                networks.contain(address.parse().expect("an address")),
                is_in,
                "{address}"
            );
        }
    }
}
