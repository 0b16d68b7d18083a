//! Changes of the URL, as a proxy on the way or a wrong public URL makes them.

use super::{Change, Signed, change, hmac_plan};
use crate::source::Plan;

const PROXY: &str = "behind a proxy, set HOOKSWITCH_PUBLIC_URL to the URL that the sender calls";

/// Parameters that are left out one by one; a longer query is tried with its first ones only.
const PARAMETERS_MAX: usize = 20;

/// A URL in its parts: `scheme` ends with `://`, `rest` is path and query.
struct UrlParts<'u> {
    scheme: &'u str,
    authority: &'u str,
    rest: &'u str,
    path: &'u str,
    query: Option<&'u str>,
}

impl<'u> UrlParts<'u> {
    fn of(url: &'u str) -> Option<Self> {
        let host_at = url.find("://")? + 3;
        let path_at = url[host_at..].find(['/', '?']).map_or(url.len(), |at| host_at + at);
        let rest = &url[path_at..];
        let (path, query) = rest
            .split_once('?')
            .map_or((rest, None), |(path, query)| (path, Some(query)));
        Some(Self {
            scheme: &url[..host_at],
            authority: &url[host_at..path_at],
            rest,
            path,
            query,
        })
    }

    fn with_authority(&self, authority: &str) -> String {
        format!("{}{authority}{}", self.scheme, self.rest)
    }

    fn with_path(&self, path: &str) -> String {
        let query = self.query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{}{path}{query}", self.scheme, self.authority)
    }

    fn with_query(&self, pairs: &[&str]) -> String {
        format!("{}{}{}?{}", self.scheme, self.authority, self.path, pairs.join("&"))
    }
}

pub(super) fn changes(request: &Signed, changes: &mut Vec<Change>) {
    let signs_url = match &request.plan {
        Plan::Twilio(_) => true,
        Plan::Vapi(_) => hmac_plan(request)
            .and_then(|plan| plan.payload_format.as_deref())
            .is_some_and(|format| format.contains("{url}")),
    };
    let url = request.url.as_str();
    let Some(parts) = UrlParts::of(url).filter(|_| signs_url) else {
        return;
    };
    let mut with = |hint: &str, url: String| change(request, changes, hint, |request| request.url = url);
    if let Some(rest) = url.strip_prefix("http://") {
        with(
            &format!("with https as the URL's scheme ({PROXY})"),
            format!("https://{rest}"),
        );
    }
    if let Some(rest) = url.strip_prefix("https://") {
        with(
            &format!("with http as the URL's scheme ({PROXY})"),
            format!("http://{rest}"),
        );
    }
    authorities(request, &parts, &mut with);
    paths(&parts, &mut with);
    with("with ' instead of %27 in the URL", url.replace("%27", "'"));
    with("with %27 instead of ' in the URL", url.replace('\'', "%27"));
    queries(&parts, &mut with);
}

fn authorities(request: &Signed, parts: &UrlParts<'_>, with: &mut impl FnMut(&str, String)) {
    if let Some((host, port)) = parts
        .authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
    {
        with(
            &format!("without the port :{port} in the URL"),
            parts.with_authority(host),
        );
    }
    for port in ["443", "80", "8080", "8443"] {
        if !parts.authority.ends_with(&format!(":{port}")) {
            let host = parts.authority.split(':').next().unwrap_or_default();
            with(
                &format!("with the port :{port} in the URL"),
                parts.with_authority(&format!("{host}:{port}")),
            );
        }
    }
    for header in ["x-forwarded-host", "x-original-host", "host"] {
        if let Some(host) = request.header(header).filter(|host| *host != parts.authority) {
            with(
                &format!("with the host of the header {header} in the URL ({PROXY})"),
                parts.with_authority(host),
            );
        }
    }
}

fn paths(parts: &UrlParts<'_>, with: &mut impl FnMut(&str, String)) {
    match parts.path.strip_suffix('/') {
        Some(shorter) => with("without the trailing slash of the URL's path", parts.with_path(shorter)),
        None => with(
            "with a trailing slash at the URL's path",
            parts.with_path(&format!("{}/", parts.path)),
        ),
    }
    with(
        "with the URL's path in lower case",
        parts.with_path(&parts.path.to_lowercase()),
    );
    with(
        "with the URL's host in lower case",
        parts.with_authority(&parts.authority.to_lowercase()),
    );
}

fn queries(parts: &UrlParts<'_>, with: &mut impl FnMut(&str, String)) {
    let Some(query) = parts.query else { return };
    with(
        "without the URL's query",
        format!("{}{}{}", parts.scheme, parts.authority, parts.path),
    );
    let pairs: Vec<&str> = query.split('&').collect();
    for order in orders(&pairs) {
        with(
            "with the URL's query in another order (something on the way sorts it)",
            parts.with_query(&order),
        );
    }
    for left_out in 0..pairs.len().min(PARAMETERS_MAX) {
        let mut kept = pairs.clone();
        let name = kept.remove(left_out).split('=').next().unwrap_or_default();
        with(
            &format!("without the query parameter {name:?}"),
            parts.with_query(&kept),
        );
    }
}

/// All orders of a few pairs.
fn orders<'q>(pairs: &[&'q str]) -> Vec<Vec<&'q str>> {
    if pairs.len() < 2 {
        return vec![pairs.to_vec()];
    }
    if pairs.len() > 5 {
        return vec![pairs.iter().rev().copied().collect()];
    }
    (0..pairs.len())
        .flat_map(|at| {
            let mut rest = pairs.to_vec();
            let first = rest.remove(at);
            orders(&rest).into_iter().map(move |mut order| {
                order.insert(0, first);
                order
            })
        })
        .collect()
}
