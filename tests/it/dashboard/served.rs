//! The files of the dashboard through real HTTP: their headers, their addresses, and what is not
//! there.

use crate::{admin::TestApp, support::client};
use base64::{Engine, engine::general_purpose::STANDARD};
use hookswitch::admin::dashboard_pages;
use reqwest::{Response, StatusCode, header};
use sha2::{Digest, Sha256};

async fn get(app: &TestApp, path: &str) -> Response {
    let request = client().get(format!("{}{path}", app.base()));
    request.send().await.expect("the admin listener answers")
}

fn text<'a>(answer: &'a Response, name: &str) -> &'a str {
    let value = answer
        .headers()
        .get(name)
        .unwrap_or_else(|| panic!("no {name}: {answer:?}"));
    value.to_str().expect("visible ASCII")
}

/// All addresses that begin like this in a text.
fn addresses<'a>(page: &'a str, beginning: &str) -> Vec<&'a str> {
    let found = page.match_indices(beginning).map(|(at, _)| &page[at..]);
    found.filter_map(|rest| rest.split(['"', '\'']).next()).collect()
}

#[tokio::test]
async fn every_page_of_the_dashboard_is_one_document_under_a_strict_policy() {
    let app = TestApp::start().await;
    let mut pages = Vec::new();
    for path in [
        "/dashboard",
        "/dashboard/integrations",
        "/dashboard/events/of-nobody?source=vapi",
    ] {
        let answer = get(&app, path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let policy = text(&answer, "content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{part} is missing: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(text(&answer, "x-content-type-options"), "nosniff");
        assert_eq!(text(&answer, "referrer-policy"), "no-referrer");
        assert_eq!(text(&answer, "cache-control"), "no-cache");
        assert!(text(&answer, "content-type").starts_with("text/html"));
        pages.push(answer.text().await.expect("a text"));
    }
    assert!(pages.iter().all(|page| *page == pages[0]), "one document");
    assert!(!pages[0].contains("style="), "no styles in attributes");
    assert!(!pages[0].contains("<script>"), "no inline scripts");
    assert!(
        addresses(&pages[0], "http").is_empty(),
        "nobody else is asked for anything"
    );
}

#[tokio::test]
async fn the_only_style_of_the_document_is_the_one_that_the_policy_names() {
    let app = TestApp::start().await;
    let page = get(&app, "/dashboard").await;
    let policy = text(&page, "content-security-policy").to_owned();
    let page = page.text().await.expect("a text");
    let styles: Vec<&str> = page.split("<style").skip(1).collect();
    let [style] = styles[..] else {
        panic!("one style: {page}");
    };
    let style = style.strip_prefix('>').and_then(|rest| rest.split("</style>").next());
    let hash = STANDARD.encode(Sha256::digest(style.expect("a style")));
    let of_styles = policy.split("; ").find(|part| part.starts_with("style-src"));
    assert_eq!(of_styles, Some(&*format!("style-src 'sha256-{hash}'")));
}

#[tokio::test]
async fn a_page_names_its_modules_with_its_first_answer() {
    let app = TestApp::start().await;
    let links = async |path: &str| text(&get(&app, path).await, "link").to_owned();
    let (events, rules) = (
        links("/dashboard/events").await,
        links("/dashboard/rules/one?ready=crm").await,
    );
    for (page, has, lacks) in [
        (&events, "/views/events.js>", "/views/rules.js>"),
        (&events, "/views/actions.js>", "/views/integrations.js>"),
        (&rules, "/views/rules.js>", "/views/events.js>"),
    ] {
        for file in [has, "/texts.js>", "/lib/api.js>", "/parts/bits.js>"] {
            assert!(page.contains(file), "{file}: {page}");
        }
        assert!(!page.contains(lacks), "{lacks}: {page}");
    }
    assert_eq!(links("/dashboard").await, links("/dashboard/overview").await);
    assert!(
        events.contains("</api/me>; rel=preload; as=fetch; crossorigin"),
        "{events}"
    );
    // The first reads are refused to a browser without a cookie: it gets the form in their place.
    for cookie in [None, Some("hookswitch_session=x")] {
        let request = client().get(format!("{}/dashboard/integrations", app.base()));
        let request = match cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        let answer = request.send().await.expect("an answer");
        let all: Vec<_> = answer
            .headers()
            .get_all("link")
            .iter()
            .map(|value| value.to_str().expect("ASCII"))
            .collect();
        let all = all.join(" ");
        assert_eq!(all.contains("</api/providers>; rel=preload"), cookie.is_some(), "{all}");
        assert_eq!(
            all.contains("/views/sign-in.js>; rel=modulepreload"),
            cookie.is_none(),
            "{all}"
        );
    }
}

/// The addresses that a script imports before it runs.
fn imports(script: &str, address: &str) -> Vec<String> {
    let lines = script.lines().filter(|line| line.starts_with("import "));
    let folder = address.rsplit_once('/').expect("a path").0;
    lines
        .map(|line| {
            let (_, to) = line.trim_end_matches("';").rsplit_once('\'').expect("a path in quotes");
            match to.strip_prefix("../") {
                Some(above) => format!("{}/{above}", folder.rsplit_once('/').expect("a folder").0),
                None => format!("{folder}/{}", to.trim_start_matches("./")),
            }
        })
        .collect()
}

async fn compressed_bytes(app: &TestApp, path: &str) -> usize {
    let request = client().get(format!("{}{path}", app.base()));
    let answer = request
        .header("accept-encoding", "gzip")
        .send()
        .await
        .expect("an answer");
    assert_eq!(text(&answer, "content-encoding"), "gzip", "{path}");
    answer.bytes().await.expect("a body").len()
}

#[tokio::test]
async fn a_first_view_takes_one_round_behind_the_document_and_few_bytes() {
    /// The document, which has the style in it, with all scripts of its page.
    const BYTES_MAX: usize = 45_000;
    let app = TestApp::start().await;
    for page in dashboard_pages().concat() {
        let path = format!("/dashboard/{page}");
        let answer = get(&app, &path).await;
        let link = text(&answer, "link").to_owned();
        let preloads: Vec<String> = link
            .split(", ")
            .filter_map(|one| one.strip_prefix('<')?.strip_suffix(">; rel=modulepreload"))
            .map(str::to_owned)
            .collect();
        let document = answer.text().await.expect("a text");
        let mut named: Vec<String> = addresses(&document, "/dashboard/assets/")
            .into_iter()
            .filter(|path| path.rsplit('.').next() == Some("js"))
            .map(str::to_owned)
            .collect();
        assert!(!preloads.is_empty() && named.len() == 1, "{link} {named:?}");
        named.extend(preloads.iter().cloned());
        let (mut bytes, mut imported) = (compressed_bytes(&app, &path).await, Vec::new());
        for script in &named {
            bytes += compressed_bytes(&app, script).await;
            imported.extend(imports(&get(&app, script).await.text().await.expect("a text"), script));
        }
        for script in &imported {
            assert!(named.contains(script), "{page} finds out late that it needs {script}");
        }
        let view = format!("/views/{page}.js");
        for script in &preloads {
            assert!(
                imported.contains(script) || script.ends_with(&view),
                "{page} has no use for {script}"
            );
        }
        assert!(bytes < BYTES_MAX, "{page}: {bytes} compressed bytes");
    }
}

#[tokio::test]
async fn a_file_has_the_hash_of_the_version_in_its_address_and_is_kept_for_ever() {
    let app = TestApp::start().await;
    let page = get(&app, "/dashboard").await;
    let tag = text(&page, "etag").trim_matches('"').to_owned();
    let link = text(&page, "link").replace('>', "\"");
    let page = page.text().await.expect("a text") + &link;
    let files = addresses(&page, "/dashboard/assets/");
    assert!(files.len() > 9, "{page}");
    for path in files {
        assert!(path.starts_with(&format!("/dashboard/assets/{tag}/")), "{path}");
        let answer = get(&app, path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(text(&answer, "cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(text(&answer, "x-content-type-options"), "nosniff");
        assert!(
            !answer.headers().contains_key(header::CONTENT_ENCODING),
            "nobody asked for it"
        );
        let plain = answer.bytes().await.expect("bytes");
        let packed = client()
            .get(format!("{}{path}", app.base()))
            .header("accept-encoding", "br, gzip");
        let packed = packed.send().await.expect("an answer");
        assert_eq!(text(&packed, "content-encoding"), "gzip");
        assert_eq!(text(&packed, "vary"), "accept-encoding");
        let packed = packed.bytes().await.expect("bytes");
        assert!(
            packed.len() < plain.len(),
            "{path}: {} of {}",
            packed.len(),
            plain.len()
        );
    }
}

#[tokio::test]
async fn a_browser_that_has_this_version_gets_304() {
    let app = TestApp::start().await;
    let tag = text(&get(&app, "/dashboard").await, "etag").to_owned();
    let again = client()
        .get(format!("{}/dashboard", app.base()))
        .header("if-none-match", &tag);
    let again = again.send().await.expect("an answer");
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(again.headers().contains_key("content-security-policy"));
    let other = client()
        .get(format!("{}/dashboard", app.base()))
        .header("if-none-match", "\"other\"");
    assert_eq!(other.send().await.expect("an answer").status(), StatusCode::OK);
}

#[tokio::test]
async fn what_is_not_part_of_the_dashboard_is_404() {
    let app = TestApp::start().await;
    let tag = text(&get(&app, "/dashboard").await, "etag")
        .trim_matches('"')
        .to_owned();
    for path in [
        "/dashboard/nowhere".to_owned(),
        "/dashboard/assets/0000000000000000/app.js".to_owned(),
        format!("/dashboard/assets/{tag}/package.json"),
        format!("/dashboard/assets/{tag}/test/card.test.js"),
        format!("/dashboard/assets/{tag}/../../Cargo.toml"),
        format!("/dashboard/assets/{tag}/..%2f..%2fCargo.toml"),
        format!("/dashboard/assets/{tag}/lib/..%2fapp.js"),
        format!("/dashboard/assets/{tag}//app.js"),
        format!("/dashboard/assets/{tag}/"),
        "/dashboard/integrations/a/b".to_owned(),
    ] {
        assert_eq!(raw(&app, &path).await, 404, "{path}");
    }
}

/// The status of a path that is sent as it is written: a client would tidy its dots up.
async fn raw(app: &TestApp, path: &str) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let host = app.base().trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(host).await.expect("a connection");
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let status = answer.split(' ').nth(1).expect("a status line");
    status.parse().expect("a number")
}

#[tokio::test]
async fn the_root_leads_to_the_dashboard_and_the_api_stays_an_api() {
    let app = TestApp::start().await;
    let root = get(&app, "/").await;
    assert_eq!(root.url().path(), "/dashboard");
    let refused = get(&app, "/api/rules").await;
    assert_eq!(text(&refused, "content-type"), "application/problem+json");
    assert_eq!(text(&refused, "cache-control"), "no-store");
    let post = client()
        .post(format!("{}/dashboard", app.base()))
        .send()
        .await
        .expect("an answer");
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
}
