//! The dashboard: the files of `dashboard/`, part of the binary and served at `/dashboard`.
//!
//! It holds no data and checks no token. Its pages are the same for everybody, and show what the
//! public admin API answers. **Invariant:** a page runs and loads only files that this binary
//! serves. The policy of every answer forbids inline code, other hosts, frames, and HTML made from
//! text.

mod scripts;

use axum::{
    Router,
    extract::Path,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use scripts::{APP, Scripts, is_script};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io::Write,
    sync::{LazyLock, OnceLock},
};

macro_rules! files {
    ($($path:literal),+ $(,)?) => {
        /// Each file of the page, by its path below `dashboard/`. A test holds the table against
        /// the folder.
        const FILES: &[(&str, &[u8])] =
            &[$(($path, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboard/", $path)))),+];
    };
}

files![
    "app.js",
    "icon.svg",
    "lib/api.js",
    "lib/bulk.js",
    "lib/card.js",
    "lib/dom.js",
    "lib/fields.js",
    "lib/format.js",
    "lib/hours.js",
    "lib/kept.js",
    "lib/keys.js",
    "lib/live.js",
    "lib/moment.js",
    "lib/outcomes.js",
    "lib/overview.js",
    "lib/page.js",
    "lib/pauses.js",
    "lib/phone.js",
    "lib/ready.js",
    "lib/rows.js",
    "lib/rule.js",
    "lib/samples.js",
    "lib/session.js",
    "lib/states.js",
    "lib/verdict.js",
    "parts/ask.js",
    "parts/bits.js",
    "parts/chart.js",
    "parts/credential-form.js",
    "parts/dialog.js",
    "parts/filters.js",
    "parts/job.js",
    "parts/live-state.js",
    "parts/paged.js",
    "parts/phone-input.js",
    "parts/scope.js",
    "parts/spans.js",
    "texts.js",
    "views/actions.js",
    "views/assistants.js",
    "views/audit.js",
    "views/caches.js",
    "views/dead-events.js",
    "views/endpoints.js",
    "views/events.js",
    "views/hours.js",
    "views/integrations.js",
    "views/jobs.js",
    "views/kept.js",
    "views/keys.js",
    "views/overview.js",
    "views/pauses.js",
    "views/quarantine.js",
    "views/rules.js",
    "views/settings.js",
    "views/sign-in.js",
];

/// The page that every address of the dashboard opens. `{assets}` stands for the address of the
/// files, `{style}` for the sheet: without it nothing is shown, so it comes in the first answer.
const INDEX: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboard/index.html"));
const STYLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboard/style.css"));

/// The pages of an organisation's people, and those of operators. Each has a file below `views/`.
/// They are the first parts of the addresses that the dashboard knows; any other is 404.
pub fn pages() -> [Vec<&'static str>; 2] {
    ["OF_ORGANISATION", "OF_OPERATOR"].map(|list| Scripts::pages(FILES, list))
}

/// The page that `/dashboard` opens for most people.
const FIRST_PAGE: &str = "overview";

/// `trusted-types 'none'`: no script makes HTML from a text, so that a name with `<script>` in it
/// is a name. The only style in the document is the one with this hash.
fn policy() -> String {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; script-src 'self'; style-src 'sha256-{style}'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    )
}

/// One file with both of its forms.
struct File {
    path: &'static str,
    plain: Bytes,
    content_type: &'static str,
    /// Made at the first request: a start waits for no compression.
    gzip: OnceLock<Bytes>,
}

/// `Link` headers of a page. Its scripts are asked for with the document, not one after another as
/// their imports are read, and what it reads first beside them.
struct Links {
    scripts: HeaderValue,
    /// Only for a browser with a cookie: to anybody else they are refused.
    reads: Option<HeaderValue>,
}

impl Links {
    /// The document names `app.js` itself.
    fn of(page: &str, scripts: &Scripts, assets: &str) -> Self {
        let value = |links: Vec<String>| {
            HeaderValue::from_str(&links.join(", ")).expect("paths of this folder are visible ASCII")
        };
        let needed = scripts.needed(page).into_iter().filter(|path| *path != APP);
        let needed = needed.map(|path| format!("<{assets}/{path}>; rel=modulepreload"));
        let read = |path: &str| format!("<{path}>; rel=preload; as=fetch; crossorigin");
        let reads: Vec<String> = scripts.reads(page).into_iter().map(read).collect();
        Self {
            scripts: value(needed.chain([read("/api/me")]).collect()),
            reads: Some(reads).filter(|reads| !reads.is_empty()).map(value),
        }
    }
}

struct Files {
    /// A hash over all files. It stands in their addresses, so that a browser keeps them for ever,
    /// and relative imports stay within one version.
    version: String,
    index: File,
    all: Vec<File>,
    /// For each page, the files and answers that are asked for with the document.
    links: HashMap<&'static str, Links>,
    policy: HeaderValue,
}

static FILES_SERVED: LazyLock<Files> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    let document = [("index.html", INDEX.as_bytes()), ("style.css", STYLE.as_bytes())];
    for (path, bytes) in FILES.iter().chain(&document) {
        for part in [path.as_bytes(), bytes] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    let version = hex::encode(&hash.finalize()[..8]);
    let assets = format!("/dashboard/assets/{version}");
    let pages = pages().concat();
    let scripts = Scripts::new(FILES, &pages);
    let others = FILES.iter().filter(|(path, _)| !is_script(path));
    let others = others.map(|(path, bytes)| File::new(path, Bytes::from_static(bytes)));
    let index = INDEX.replace("{assets}", &assets).replace("{style}", STYLE);
    Files {
        index: File::new("index.html", Bytes::from(index)),
        all: scripts
            .files()
            .map(|(path, text)| File::new(path, text.into()))
            .chain(others)
            .collect(),
        links: pages
            .iter()
            .map(|page| (*page, Links::of(page, &scripts, &assets)))
            .collect(),
        policy: HeaderValue::from_str(&policy()).expect("words and base64 are visible ASCII"),
        version,
    }
});

impl File {
    fn new(path: &'static str, plain: Bytes) -> Self {
        let content_type = match path.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "application/octet-stream",
        };
        Self {
            path,
            plain,
            content_type,
            gzip: OnceLock::new(),
        }
    }

    fn gzip(&self) -> &Bytes {
        self.gzip.get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            let written = encoder.write_all(&self.plain).and_then(|()| encoder.finish());
            written.expect("memory takes every byte").into()
        })
    }

    fn answer(&self, headers: &HeaderMap, cache: &'static str, links: Option<&Links>) -> Response {
        let tag = format!("\"{}\"", FILES_SERVED.version);
        let asked = |name: HeaderName, part: &str| {
            let values = headers.get_all(name);
            values
                .iter()
                .filter_map(|value| value.to_str().ok())
                .any(|value| value.contains(part))
        };
        let mut response = if asked(header::IF_NONE_MATCH, &tag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else if asked(header::ACCEPT_ENCODING, "gzip") {
            ([(header::CONTENT_ENCODING, "gzip")], self.gzip().clone()).into_response()
        } else {
            self.plain.clone().into_response()
        };
        let to = response.headers_mut();
        to.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Some(links) = links {
            to.insert(header::LINK, links.scripts.clone());
            if let Some(reads) = links.reads.clone().filter(|_| headers.contains_key(header::COOKIE)) {
                to.append(header::LINK, reads);
            }
        }
        to.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        to.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        to.insert(header::ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits"));
        guarded(response)
    }
}

/// The headers that every answer of the dashboard has.
fn guarded(mut response: Response) -> Response {
    let policy = HeaderName::from_static("cross-origin-opener-policy");
    let resource = HeaderName::from_static("cross-origin-resource-policy");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, FILES_SERVED.policy.clone());
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (policy, "same-origin"),
        (resource, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn missing() -> Response {
    guarded(
        (
            StatusCode::NOT_FOUND,
            "There is nothing here. The dashboard begins at /dashboard\n",
        )
            .into_response(),
    )
}

/// The page and its files. They need no state.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async || Redirect::temporary("/dashboard")))
        .route("/dashboard", get(index))
        .route("/dashboard/", get(async || Redirect::temporary("/dashboard")))
        .route("/dashboard/assets/{version}/{*path}", get(asset))
        .route("/dashboard/{page}", get(page))
        .route(
            "/dashboard/{page}/{id}",
            get(async |Path((name, _)): Path<(String, String)>, headers| page(Path(name), headers).await),
        )
}

/// A browser asks for the page again each time, and gets 304 while the version is the same.
async fn index(headers: HeaderMap) -> Response {
    page(Path(FIRST_PAGE.to_owned()), headers).await
}

async fn page(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let links = FILES_SERVED.links.get(name.as_str());
    links.map_or_else(missing, |links| {
        FILES_SERVED.index.answer(&headers, "no-cache", Some(links))
    })
}

/// A file of another version is 404: the page then says that it has to be loaded again.
async fn asset(Path((version, path)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let files = &*FILES_SERVED;
    let found = files
        .all
        .iter()
        .find(|file| file.path == path && files.version == version);
    found.map_or_else(missing, |file| {
        file.answer(&headers, "public, max-age=31536000, immutable", None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};

    /// Files of the folder that are for the people who work on it.
    const NOT_SERVED: &[&str] = &[
        ".npmrc",
        "package.json",
        "package-lock.json",
        "tsconfig.json",
        "index.html",
        "style.css",
    ];

    #[test]
    fn the_table_is_the_folder() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dashboard");
        let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("the folder of the dashboard") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(&root).expect("inside").display().to_string();
                match (path.is_dir(), name.as_str()) {
                    (true, "test" | "node_modules" | "types") => {}
                    (true, _) => folders.push(path),
                    (false, name) if NOT_SERVED.contains(&name) => {}
                    (false, name) => found.push(name.to_owned()),
                }
            }
        }
        found.sort();
        let mut table: Vec<_> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        table.sort();
        assert_eq!(
            table, found,
            "the table `files!` of src/admin/dashboard.rs differs from dashboard/"
        );
    }

    #[test]
    fn a_page_needs_two_scripts_and_a_list_that_another_page_shows_too() {
        let pages = pages().concat();
        let scripts = Scripts::new(FILES, &pages);
        for page in &pages {
            let needed = scripts.needed(page);
            assert_eq!(needed[0], APP);
            assert!(needed.contains(&&*format!("views/{page}.js")), "{page}: {needed:?}");
            assert!(needed.len() == 2 || *page == "events", "{page}: {needed:?}");
        }
        assert!(pages.contains(&FIRST_PAGE));
        assert_eq!(
            scripts.reads("integrations"),
            ["/api/providers", "/api/integrations/status"]
        );
        assert!(scripts.reads("events").is_empty());
        let app = scripts.files().find(|(path, _)| *path == APP).expect("it is served").1;
        for apart in ["// lib/card.js\n", "// parts/credential-form.js\n", "// lib/rule.js\n"] {
            assert!(!app.contains(apart), "{apart} waits for its page");
        }
    }

    #[test]
    fn a_served_file_has_each_name_once_and_no_text_over_several_lines() {
        let scripts = Scripts::new(FILES, &pages().concat());
        for (path, text) in scripts.files() {
            let mut known = Vec::new();
            for (line, number) in text.lines().zip(1..) {
                // A text in backticks that goes on in the next line could hold what looks like a
                // comment.
                assert_eq!(line.matches('`').count() % 2, 0, "{path}:{number}: {line}");
                assert!(!line.contains("/**"), "{path}:{number}: a comment within code: {line}");
                let is_list = line.starts_with("const { ") || line.starts_with("import { ");
                let names = line.split(['{', '}']).nth(1).filter(|_| is_list).unwrap_or_default();
                for name in names.split(',').filter_map(|name| name.split_whitespace().last()) {
                    assert!(!known.contains(&name), "{path} has two of {name}");
                    known.push(name);
                }
            }
        }
    }

    #[test]
    fn the_whole_page_fits_its_budget() {
        const BYTES_MAX: usize = 150_000;
        let files = &*FILES_SERVED;
        let all = files.all.iter().chain([&files.index]);
        let bytes: usize = all.map(|file| file.gzip().len()).sum();
        assert!(
            bytes <= BYTES_MAX,
            "{bytes} compressed bytes are over the budget of {BYTES_MAX}"
        );
    }
}
