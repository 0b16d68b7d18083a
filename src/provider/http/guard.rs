//! Which addresses `http.post` may reach: the check of URLs before they are stored or sent to, and
//! of every address that a name resolves to.
//!
//! **Invariant:** the addresses that were checked are the ones connected to. A literal is checked
//! from the parsed URL, because it never meets a resolver. The client's own resolver resolves a
//! name here. One forbidden address refuses the whole set.

use crate::{config::Fault, domain::Network};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use std::{
    fmt,
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
};
use url_host::{Host, host_of};

/// Why a URL is no destination. Never carries the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    #[error("not an absolute URL such as https://example.com/hooks")]
    NotAUrl,
    #[error("the scheme must be https")]
    Scheme,
    #[error("a user name or password in the URL is not allowed")]
    Userinfo,
    #[error("this port belongs to another protocol and is not allowed")]
    Port,
    #[error("this is Hookswitch's own public host")]
    OwnHost,
    #[error("the address is private, loopback, link-local or otherwise not public")]
    Address,
}

/// Ports of other protocols. They are the Fetch standard's list of bad ports
/// (fetch.spec.whatwg.org, "port blocking"), and those of databases, caches, brokers and control
/// planes. Some of these take commands from any peer that can write a line.
const PORTS_REFUSED: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 445, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049, 2375,
    2376, 2379, 2380, 3306, 3389, 3659, 4045, 4190, 5060, 5061, 5432, 5672, 5900, 5984, 6000, 6379, 6566, 6665, 6666,
    6667, 6668, 6669, 6679, 6697, 7001, 8500, 9042, 9092, 9200, 9300, 10080, 10250, 10255, 11211, 27017,
];

/// Names that mean this machine, its network or its cloud's metadata wherever they are asked.
const NAMES_REFUSED: &[&str] = &[
    "localhost",
    "local",
    "internal",
    "localdomain",
    "home.arpa",
    "ip6-localhost",
    "ip6-loopback",
];

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Network {
    Network::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

/// By the first two groups of the address.
const fn v6(first: u16, second: u16, prefix: u8) -> Network {
    Network::new(IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0)), prefix)
}

/// IPv4 ranges that no public host has (IANA IPv4 Special-Purpose Address Registry), as network and
/// prefix length.
const V4_REFUSED: &[Network] = &[
    v4(0, 0, 0, 0, 8),        // "this" network; 0.0.0.0 connects to loopback
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // carrier-grade NAT
    v4(127, 0, 0, 0, 8),      // loopback
    v4(168, 63, 129, 16, 32), // Azure's host agent
    v4(169, 254, 0, 0, 16),   // link-local, metadata
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 88, 99, 0, 24),   // 6to4 relays
    v4(192, 168, 0, 0, 16),   // private
    v4(198, 18, 0, 0, 15),    // benchmarks
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, broadcast
];

/// IPv6: only global unicast (2000::/3) is public, less these. Loopback, unspecified, mapped,
/// NAT64, ULA, link-local, site-local and multicast lie outside of it.
const V6_REFUSED: &[Network] = &[
    v6(0x2001, 0, 23),     // protocol assignments: Teredo, benchmarks, ORCHID
    v6(0x2001, 0xdb8, 32), // documentation
    v6(0x2002, 0, 16),     // 6to4: carries an IPv4 address
    v6(0x3fff, 0, 20),     // documentation
];
const V6_PUBLIC: Network = v6(0x2000, 0, 3);

/// Whether an address is reachable by the public Internet's rules.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => !V4_REFUSED.iter().any(|network| network.contains(address)),
        IpAddr::V6(_) => V6_PUBLIC.contains(address) && !V6_REFUSED.iter().any(|network| network.contains(address)),
    }
}

/// How names become addresses. The system's resolver, except in tests.
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of a name; ports are of no meaning.
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>>;
}

/// `getaddrinfo`, on tokio's blocking pool.
#[derive(Debug)]
pub(crate) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// The guard of one installation: networks that are allowed beside the public Internet, and our own
/// hosts.
#[derive(Clone)]
pub(crate) struct Guard(Arc<Inner>);

struct Inner {
    allowed: Vec<Network>,
    is_plain_allowed: bool,
    own: Option<(Host, Option<u16>)>,
    lookup: Box<dyn Lookup>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("allowed", &self.0.allowed)
            .field("is_plain_allowed", &self.0.is_plain_allowed)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// `public_host` is `host` (all its ports are ours) or `host:port`.
    pub(crate) fn new(
        networks: &[String],
        is_plain_allowed: bool,
        public_host: Option<&str>,
        lookup: Box<dyn Lookup>,
        faults: &mut Vec<Fault>,
    ) -> Self {
        let mut allowed = Vec::with_capacity(networks.len());
        for text in networks {
            match text.parse::<Network>() {
                Ok(network) => allowed.push(network),
                Err(problem) => faults.push(Fault {
                    name: "HOOKSWITCH_HTTP_ALLOWED_NETWORKS".to_owned(),
                    problem: problem.to_string(),
                }),
            }
        }
        let own = public_host.and_then(|text| {
            // A scheme without a default port keeps the port that is written; the host is read by
            // the same parser as a destination's.
            let url = Url::parse(&format!("https://{text}")).ok()?;
            let port = text.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            Some((host_of(&url)?, port))
        });
        Self(Arc::new(Inner {
            allowed,
            is_plain_allowed,
            own,
            lookup,
        }))
    }

    /// Whether a URL may be a destination, as far as can be said without resolving its name.
    pub(crate) fn check_url(&self, text: &str) -> Result<Url, DestinationError> {
        // The URL standard takes backslashes for slashes and drops tabs and line breaks: what a
        // person reads would not be what is called.
        if text.len() > 2048 || text.bytes().any(|byte| byte <= b' ' || byte == b'\\' || byte == 0x7f) {
            return Err(DestinationError::NotAUrl);
        }
        let url = Url::parse(text).map_err(|_| DestinationError::NotAUrl)?;
        if url.scheme() != "https" && !(url.scheme() == "http" && self.0.is_plain_allowed) {
            return Err(DestinationError::Scheme);
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || text
                .split(['/', '?', '#'])
                .nth(2)
                .is_some_and(|authority| authority.contains('@'))
        {
            return Err(DestinationError::Userinfo);
        }
        let port = url.port_or_known_default().ok_or(DestinationError::NotAUrl)?;
        if PORTS_REFUSED.contains(&port) {
            return Err(DestinationError::Port);
        }
        let host = host_of(&url).ok_or(DestinationError::NotAUrl)?;
        if self
            .0
            .own
            .as_ref()
            .is_some_and(|(own, own_port)| *own == host && own_port.is_none_or(|own_port| own_port == port))
        {
            return Err(DestinationError::OwnHost);
        }
        match host {
            Host::Address(address) if !self.allows(address) => Err(DestinationError::Address),
            // A name for this machine is decided by what it resolves to where loopback is allowed,
            // and refused unasked elsewhere.
            Host::Name(name) if self.0.allowed.is_empty() && is_local_name(&name) => Err(DestinationError::Address),
            _ => Ok(url),
        }
    }

    /// Resolves a name and checks the whole set. An empty set is an error.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let addresses = self
            .0
            .lookup
            .lookup(name.to_owned())
            .await
            .map_err(ResolveError::NotFound)?;
        if addresses.is_empty() {
            return Err(ResolveError::NotFound(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "no address",
            )));
        }
        if addresses.iter().all(|address| self.allows(address.ip())) {
            Ok(addresses)
        } else {
            Err(ResolveError::NotAllowed)
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        // A mapped address connects to the IPv4 host in it. It is never public as it stands, and is
        // allowed only where that IPv4 network is.
        let inner = address.to_canonical();
        self.0
            .allowed
            .iter()
            .any(|network| network.contains(address) || network.contains(inner))
            || is_public(address)
    }
}

fn is_local_name(name: &str) -> bool {
    NAMES_REFUSED
        .iter()
        .any(|refused| name == *refused || name.strip_suffix(refused).is_some_and(|rest| rest.ends_with('.')))
}

/// Why a name gave no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("the name has no address")]
    NotFound(#[source] std::io::Error),
    #[error("the name has an address that is not allowed")]
    NotAllowed,
}

/// The resolver that the guarded client connects through.
impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = guard.resolve(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

mod url_host {
    use reqwest::Url;
    use std::net::IpAddr;

    /// A URL's host: a literal in any spelling that the URL standard knows (`127.1`, `0x7f.1`,
    /// `2130706433`), or a name without its trailing dot.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub(super) enum Host {
        Address(IpAddr),
        Name(String),
    }

    pub(super) fn host_of(url: &Url) -> Option<Host> {
        let text = url.host_str()?;
        // `host_str` keeps the brackets of IPv6; the parser has brought every spelling of IPv4 to
        // dotted decimals.
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Some(Host::Address(address));
        }
        let name = bare.strip_suffix('.').unwrap_or(bare);
        // `127.0.0.1.` is brought to an address by the parser; a name that still ends in a dot or
        // is empty is none.
        (!name.is_empty() && !name.ends_with('.')).then(|| {
            name.parse()
                .map_or_else(|_| Host::Name(name.to_ascii_lowercase()), Host::Address)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(networks: &[&str], is_plain_allowed: bool, own: Option<&str>) -> Guard {
        let mut faults = Vec::new();
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let guard = Guard::new(&networks, is_plain_allowed, own, Box::new(SystemLookup), &mut faults);
        assert_eq!(faults, []);
        guard
    }

    #[test]
    fn every_spelling_of_an_address_that_is_not_public_is_refused() {
        let guard = guard(&[], true, None);
        for host in [
            "127.0.0.1",
            "127.1",
            "127.255.255.254",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "017700000001",
            "0",
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1.",
            "127.1.",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "169.254.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:a9fe:a9fe]",
            "[::ffff:8.8.8.8]",
            "[::127.0.0.1]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b::808:808]",
            "[64:ff9b:1::1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[2001:0:53aa:64c::1]",
            "[2001:db8::1]",
            "[2001:2::1]",
            "[2001:10::1]",
            "[3fff::1]",
            "[fe80::1]",
            "[fec0::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "[100::1]",
            "[5f00::1]",
            "localhost",
            "localhost.",
            "LOCALHOST",
            "a.localhost",
            "metadata.google.internal",
            "metadata.google.internal.",
            "printer.local",
            "１２７.0.0.1",
            "127。0。0。1",
        ] {
            for url in [format!("https://{host}/"), format!("http://{host}:8443/x")] {
                assert_eq!(
                    guard.check_url(&url).map(|url| url.to_string()),
                    Err(DestinationError::Address),
                    "{url}"
                );
            }
        }
    }

    #[test]
    fn public_hosts_are_allowed() {
        let guard = guard(&[], false, None);
        for url in [
            "https://example.com",
            "https://example.com:8443/hooks?x=1",
            "https://8.8.8.8/",
            "https://[2606:4700:4700::1111]/",
            "https://172.15.0.1/",
            "https://172.32.0.1/",
            "https://100.63.255.255/",
            "https://100.128.0.0/",
            "https://198.17.255.255/",
            "https://198.20.0.0/",
            "https://223.255.255.255/",
            "https://[2001:200::1]/",
            "https://notlocalhost/",
            "https://example.com/a@b",
            "https://localhost.example.com/",
        ] {
            assert!(guard.check_url(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn shapes_that_are_no_destination_are_refused() {
        use DestinationError::*;
        let guard = guard(&[], true, None);
        for (url, error) in [
            ("", NotAUrl),
            ("example.com/hooks", NotAUrl),
            ("https://", NotAUrl),
            ("https:\\\\example.com", NotAUrl),
            ("http:\\\\b", NotAUrl),
            ("https://exa\nmple.com/", NotAUrl),
            ("https://example.com/a b", NotAUrl),
            ("https://example.com/a\r\nX: y", NotAUrl),
            (" https://example.com", NotAUrl),
            ("https://[fe80::1%25eth0]/", NotAUrl),
            ("https://example..", NotAUrl),
            ("file:///etc/passwd", Scheme),
            ("gopher://example.com/", Scheme),
            ("ftp://example.com/", Scheme),
            ("javascript:alert(1)", Scheme),
            ("https://a@example.com", Userinfo),
            ("https://a:b@example.com", Userinfo),
            ("https://@example.com", Userinfo),
            ("https://:@example.com", Userinfo),
            ("https://example.com:25/", Port),
            ("https://example.com:6379/", Port),
            ("https://example.com:22/", Port),
            ("https://example.com:0/", Port),
        ] {
            assert_eq!(guard.check_url(url).map(|url| url.to_string()), Err(error), "{url:?}");
        }
        assert_eq!(
            super::tests::guard(&[], false, None)
                .check_url("http://example.com")
                .map(|_| ()),
            Err(Scheme)
        );
        let long = format!("https://example.com/{}", "a".repeat(2048));
        assert_eq!(guard.check_url(&long).map(|_| ()), Err(NotAUrl));
    }

    #[test]
    fn our_own_public_host_is_no_destination() {
        let by_name = guard(&[], true, Some("Hooks.example.com"));
        for url in [
            "https://hooks.example.com/webhooks/vapi",
            "https://hooks.example.com./",
            "https://HOOKS.example.com:8443/",
            "http://hooks.example.com/",
        ] {
            assert_eq!(
                by_name.check_url(url).map(|_| ()),
                Err(DestinationError::OwnHost),
                "{url}"
            );
        }
        assert!(by_name.check_url("https://example.com").is_ok());
        let by_port = guard(&["127.0.0.0/8"], true, Some("127.0.0.1:8080"));
        assert_eq!(
            by_port.check_url("http://127.0.0.1:8080/webhooks/vapi").map(|_| ()),
            Err(DestinationError::OwnHost)
        );
        assert_eq!(
            by_port.check_url("http://127.1:8080/").map(|_| ()),
            Err(DestinationError::OwnHost)
        );
        assert!(by_port.check_url("http://127.0.0.1:8083/sink/demo").is_ok());
    }

    #[test]
    fn allowed_networks_open_themselves_and_nothing_beside() {
        let guard = guard(&["10.1.0.0/16", "fd00::/8", "192.168.5.7"], false, None);
        for (url, allowed) in [
            ("https://10.1.2.3/", true),
            ("https://[::ffff:10.1.2.3]/", true),
            ("https://10.2.0.1/", false),
            ("https://[fd12::1]/", true),
            ("https://[fc00::1]/", false),
            ("https://192.168.5.7/", true),
            ("https://192.168.5.8/", false),
            ("https://127.0.0.1/", false),
        ] {
            assert_eq!(guard.check_url(url).is_ok(), allowed, "{url}");
        }
        let mut faults = Vec::new();
        let wrong: Vec<String> = ["10.1.0.0/33", "ten", "fd00::/129", "10.0.0.0/x"]
            .iter()
            .map(ToString::to_string)
            .collect();
        let _ = Guard::new(&wrong, false, None, Box::new(SystemLookup), &mut faults);
        assert_eq!(faults.len(), 4);
        assert!(
            faults
                .iter()
                .all(|fault| fault.name == "HOOKSWITCH_HTTP_ALLOWED_NETWORKS")
        );
    }

    #[test]
    fn a_network_of_prefix_zero_is_everything_of_its_family() {
        let all = "0.0.0.0/0".parse::<Network>().expect("a network");
        assert!(all.contains("127.0.0.1".parse().expect("an address")));
        assert!(!all.contains("::1".parse().expect("an address")));
    }
}
