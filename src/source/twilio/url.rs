//! The URL as Twilio signs it: without user and password, with its port or without.

/// A URL cut where variants differ. Nothing is decoded or normalised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) struct SignedUrl<'a> {
    /// `https://`
    scheme: &'a str,
    host: &'a str,
    /// With its colon; empty where the URL names none.
    port: &'a str,
    /// Path and query.
    rest: &'a str,
}

impl<'a> SignedUrl<'a> {
    pub(in crate::source) fn parse(url: &'a str) -> Self {
        let url = url.split('#').next().unwrap_or_default();
        let after_scheme = url.find("://").map_or(0, |at| at + 3);
        let (scheme, tail) = url.split_at(after_scheme);
        let (authority, rest) = tail.split_at(tail.find(['/', '?']).unwrap_or(tail.len()));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // The last colon behind an IPv6 address's bracket begins the port.
        let host_end = authority.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = authority.split_at(
            authority[host_end..]
                .find(':')
                .map_or(authority.len(), |at| host_end + at),
        );
        Self {
            scheme,
            host,
            port,
            rest,
        }
    }

    const fn standard_port(&self) -> &'static str {
        // `wss` as `https`, `ws` as `http`.
        match self.scheme.as_bytes() {
            b"https://" | b"wss://" => ":443",
            _ => ":80",
        }
    }

    /// Both texts that Twilio may have signed: as it stands, and the other way about its port.
    /// Voice over HTTPS drops the port, SMS keeps it, and the official SDKs take either.
    pub(in crate::source) fn variants(&self) -> [[&'a str; 4]; 2] {
        let other_port = if self.port.is_empty() { self.standard_port() } else { "" };
        [
            [self.scheme, self.host, self.port, self.rest],
            [self.scheme, self.host, other_port, self.rest],
        ]
    }

    /// The value of the query parameter, as text, undecoded; the first where there are several.
    pub(in crate::source) fn query(&self, name: &str) -> Option<&'a str> {
        let (_, query) = self.rest.split_once('?')?;
        query.split('&').find_map(|pair| {
            pair.split_once('=')
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value)
        })
    }

    pub(in crate::source) const fn path_and_query(&self) -> &'a str {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_cut_without_being_touched() {
        let texts = |url| SignedUrl::parse(url).variants().map(|parts| parts.concat());
        assert_eq!(
            texts("https://a.example/x?y=%2F#frag"),
            ["https://a.example/x?y=%2F", "https://a.example:443/x?y=%2F"]
        );
        assert_eq!(
            texts("http://a.example:8080"),
            ["http://a.example:8080", "http://a.example"]
        );
        assert_eq!(
            texts("https://user:p:w@a.example:1/"),
            ["https://a.example:1/", "https://a.example/"]
        );
        assert_eq!(
            texts("https://[2001:db8::1]:8443/x"),
            ["https://[2001:db8::1]:8443/x", "https://[2001:db8::1]/x"]
        );
        assert_eq!(
            texts("https://[2001:db8::1]/x"),
            ["https://[2001:db8::1]/x", "https://[2001:db8::1]:443/x"]
        );
        assert_eq!(
            texts("https://a.example?next=http://b:1/"),
            [
                "https://a.example?next=http://b:1/",
                "https://a.example:443?next=http://b:1/"
            ]
        );
        assert_eq!(
            texts("wss://a.example/s"),
            ["wss://a.example/s", "wss://a.example:443/s"]
        );
        assert_eq!(texts(""), ["", ":80"]);
    }

    #[test]
    fn a_query_parameter_is_found_by_its_whole_name() {
        let url = SignedUrl::parse("https://a.example/x?xbodySHA256=1&bodySHA256=2&bodySHA256=3");
        assert_eq!(url.query("bodySHA256"), Some("2"));
        assert_eq!(url.query("body"), None);
    }
}
