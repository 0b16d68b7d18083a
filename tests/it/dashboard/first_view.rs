//! How soon a page shows what it is for: on a slow phone, with nothing in the cache and no
//! connection open, on the networks and through the proxy that people have. It prints the figures
//! of docs/dashboard.md, and holds only what no machine changes.

use super::Desk;
use crate::support::{
    browser::{Browser, Look, PHONE},
    dev::BINARY,
    http2::Http2,
    network::{SLOW_3G, SLOW_4G, SlowNetwork, Speed},
};
use serde_json::{Value, json};
use std::process::Command;

/// Names another build of the server than that of the tests, which is not optimised.
const BINARY_VARIABLE: &str = "FIRST_VIEW_BINARY";
const PATHS: [&str; 2] = ["/dashboard/overview", "/dashboard/integrations"];
/// Runs of each; the middle one counts.
const RUNS: usize = 5;

/// When the page shows what it is for, in milliseconds: a card that is connected, or a figure. And
/// when nothing of it loads any more.
const WATCH: &str = "window.firstView = {}; new MutationObserver(() => { \
    const mark = name => requestAnimationFrame(() => firstView[name] ??= performance.now()); \
    if (document.querySelector('integration-card[data-state=connected], .tile')) mark('shown'); \
    if (document.querySelector('#content > [data-state=ready]')) mark('whole'); \
    }).observe(document, {childList: true, subtree: true, attributes: true})";

/// All that was asked for before it was shown: files of the page, and the API.
const ASKED: &str = "return (async () => { \
    const all = performance.getEntriesByType('resource').filter(e => e.startTime < firstView.shown); \
    const files = all.filter(e => e.name.includes('/assets/')); \
    const of = one => one.name.slice(location.origin.length); \
    const named = (await fetch(location.href)).headers.get('link') + document.documentElement.outerHTML; \
    const [page] = performance.getEntriesByType('navigation'); \
    return {...firstView, paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime, \
        protocol: page.nextHopProtocol, bytes: [page, ...files].reduce((sum, e) => sum + e.encodedBodySize, 0), \
        scripts: files.filter(e => /js$/.test(e.name)).length, \
        late: files.map(of).filter(e => e.endsWith('.js') && !named.includes(e)), \
        api: all.filter(e => e.name.includes('/api/')).map(of)}; })()";

/// What stands between the browser and the admin listener.
struct Way {
    network: Option<Speed>,
    is_http2: bool,
}

const fn way(network: Option<Speed>, is_http2: bool) -> Way {
    Way { network, is_http2 }
}

const WAYS: [Way; 5] = [
    way(None, false),
    way(Some(SLOW_4G), true),
    way(Some(SLOW_4G), false),
    way(Some(SLOW_3G), true),
    way(Some(SLOW_3G), false),
];

impl Way {
    fn name(&self) -> String {
        let network = self.network.map_or("no limit", |speed| speed.name);
        let protocol = if self.is_http2 { "TLS and HTTP/2" } else { "HTTP/1.1" };
        format!("{network}, {protocol}")
    }

    fn protocol(&self) -> &'static str {
        if self.is_http2 { "h2" } else { "http/1.1" }
    }
}

/// The first view of a page with nothing in the cache.
async fn first_view(page: &Browser<'_>, path: &str) -> Value {
    page.devtools("Network.clearBrowserCache", &json!({})).await;
    page.go(path).await;
    page.until("window.firstView?.shown > 0 && window.firstView.whole > 0")
        .await;
    page.run(ASKED, json!([])).await
}

/// What holds on every machine.
fn is_one_round(seen: &Value, way: &Way) {
    assert_eq!(seen["protocol"], way.protocol());
    assert_eq!(seen["late"], json!([]), "a script that the first answer does not name");
    let bytes = seen["bytes"].as_u64().expect("a number");
    assert!(
        bytes > 0 && bytes < 45_000,
        "{bytes} compressed bytes for the first view"
    );
    let api = seen["api"].as_array().expect("a list");
    let mut asked: Vec<_> = api.iter().map(|path| path.as_str()).collect();
    asked.sort_unstable();
    asked.dedup();
    assert!(asked.len() > 2, "{seen}");
    // Without a limit the stream has opened before the cards are drawn: it says to read once more.
    assert!(
        way.network.is_none() || asked.len() == api.len(),
        "a path is asked for twice: {seen}"
    );
}

/// The middle of several values, with the least and the most.
fn middle(seen: &[Value], name: &str) -> String {
    let mut all: Vec<f64> = seen.iter().map(|one| one[name].as_f64().expect("a time")).collect();
    all.sort_by(f64::total_cmp);
    let (least, most) = (all[0], all[all.len() - 1]);
    format!("{:.0} ms ({least:.0} to {most:.0})", all[all.len() / 2])
}

fn print(path: &str, way: &Way, seen: &[Value]) {
    let one = &seen[0];
    println!(
        "{path}, {}: first paint {}, shown {}, whole {}; {} bytes in the document and {} scripts, \
         {} answers of the API",
        way.name(),
        middle(seen, "paint"),
        middle(seen, "shown"),
        middle(seen, "whole"),
        one["bytes"],
        one["scripts"],
        one["api"].as_array().map_or(0, Vec::len),
    );
}

#[tokio::test]
async fn the_first_view_comes_on_a_slow_phone_and_a_slow_network() {
    let binary = std::env::var_os(BINARY_VARIABLE).map_or_else(|| Command::new(BINARY), Command::new);
    let desk = Desk::start_by(binary, &[]).await;
    let look = Look {
        is_dark: false,
        ..PHONE
    };
    let mut page = desk.owner(PATHS[0], look).await;
    page.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({"source": WATCH}))
        .await;
    page.devtools("Network.enable", &json!({})).await;
    let admin = desk.dev.get("admin");
    let proxy = Http2::start(&admin);
    // Each file is compressed when it is first asked for.
    for path in PATHS {
        first_view(&page, path).await;
    }
    page.devtools("Emulation.setCPUThrottlingRate", &json!({"rate": 4}))
        .await;
    // A page goes on to fetch its forms when it is left: the way back stays.
    let mut networks = Vec::new();
    for (way, path) in WAYS.iter().flat_map(|way| PATHS.map(|path| (way, path))) {
        let before = if way.is_http2 { &proxy.base } else { &admin };
        let mut seen = Vec::new();
        for _ in 0..RUNS {
            page.base.clone_from(before);
            if let Some(speed) = way.network {
                // No connection is open to a port that is new.
                let network = SlowNetwork::start(before, speed).await;
                page.base.clone_from(&network.base);
                networks.push(network);
            }
            let one = first_view(&page, path).await;
            is_one_round(&one, way);
            seen.push(one);
        }
        print(path, way, &seen);
    }
    page.is_faultless().await;
}
