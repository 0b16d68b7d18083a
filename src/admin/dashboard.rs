//! The dashboard: the files of `dashboard/`, part of the binary and served at `/dashboard`.
//!
//! It holds no data and checks no token. Its pages are the same for everybody, and show what the
//! public admin API answers. **Invariant:** a page runs and loads only files that this binary
//! serves. The policy of every answer forbids inline code, other hosts, frames, and HTML made from
//! text.

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
    "icon.ico",
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
    "lib/verdict.js",
    "parts/ask.js",
    "parts/bits.js",
    "parts/chart.js",
    "parts/credential-form.js",
    "parts/dialog.js",
    "parts/filters.js",
    "parts/job.js",
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
    ["const OF_ORGANISATION = [", "const OF_OPERATOR = ["].map(|list| listed("lib/page.js", list))
}

/// The page that `/dashboard` opens for most people.
const FIRST_PAGE: &str = "overview";
/// The module that `app.js` imports once it knows that nobody is signed in.
const SIGN_IN: &str = "views/sign-in.js";

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

/// `Link` headers of a page. Its modules are asked for with the document, not one after another as
/// their imports are read, and what it reads first beside them.
struct Links {
    modules: HeaderValue,
    /// What it reads first. Only for a browser with a cookie: to anybody else it is refused.
    reads: Option<HeaderValue>,
    /// The form for a token, for a browser without one.
    sign_in: HeaderValue,
}

impl Links {
    fn of(page: &str, assets: &str) -> Self {
        let value = |links: Vec<String>| {
            HeaderValue::from_str(&links.join(", ")).expect("paths of this folder are visible ASCII")
        };
        let module = |path: &str| format!("<{assets}/{path}>; rel=modulepreload");
        let modules: Vec<String> = modules_of(page).iter().map(|path| module(path)).collect();
        let read = |path: &str| format!("<{path}>; rel=preload; as=fetch; crossorigin");
        let reads: Vec<String> = reads_of(page).iter().map(|path| read(path)).collect();
        Self {
            modules: value(modules.into_iter().chain([read("/api/me")]).collect()),
            reads: Some(reads).filter(|reads| !reads.is_empty()).map(value),
            sign_in: value(vec![module(SIGN_IN)]),
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
    let index = INDEX.replace("{assets}", &assets).replace("{style}", STYLE);
    Files {
        index: File::new("index.html", Bytes::from(index)),
        all: FILES
            .iter()
            .map(|(path, bytes)| File::new(path, served(path, bytes)))
            .collect(),
        links: pages()
            .concat()
            .into_iter()
            .map(|page| (page, Links::of(page, &assets)))
            .collect(),
        policy: HeaderValue::from_str(&policy()).expect("words and base64 are visible ASCII"),
        version,
    }
});

/// A file as browsers get it: a script without its comments, which hold its types. Lines stay where
/// they are, so that a browser names the place of a fault as the file has it.
fn served(path: &str, bytes: &'static [u8]) -> Bytes {
    let script = std::str::from_utf8(bytes).ok().filter(|_| is_script(path));
    script.map_or(Bytes::from_static(bytes), |text| without_comments(text).into())
}

fn is_script(path: &str) -> bool {
    path.rsplit('.').next() == Some("js")
}

/// Empties the lines that are comments from end to end, and takes types out of the others. A test
/// holds that no text goes over several lines, so that no line of a text is taken for a comment.
fn without_comments(text: &str) -> String {
    let mut is_inside = false;
    let kept = |line: &str| {
        let begins = line.trim_start().starts_with("/**");
        if is_inside || begins && !line.contains("*/") {
            is_inside = !line.trim_end().ends_with("*/");
            String::new()
        } else if line.trim_start().starts_with("//") {
            String::new()
        } else {
            without_types(line)
        }
    };
    let lines: Vec<String> = text.lines().map(kept).collect();
    lines.join("\n") + "\n"
}

/// A line of code without `/** … */`.
fn without_types(line: &str) -> String {
    let mut parts = line.split("/**");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once("*/").map_or(part, |(_, rest)| rest.trim_start()));
    }
    kept.trim_end().to_owned()
}

/// The modules that a page needs before it shows something: of `app.js`, which the document names
/// itself, and of the page's own file.
fn modules_of(page: &str) -> Vec<String> {
    let mut found = vec!["app.js".to_owned(), format!("views/{page}.js")];
    let mut at = 0;
    while at < found.len() {
        for path in imports_of(&found[at]) {
            if !found.contains(&path) {
                found.push(path);
            }
        }
        at += 1;
    }
    found.remove(0);
    found
}

fn text_of(path: &str) -> &'static str {
    let found = FILES.iter().find(|(one, _)| *one == path);
    found.map_or("", |(_, bytes)| std::str::from_utf8(bytes).unwrap_or_default())
}

/// The paths of the API that the file of a page names in its `READS`.
fn reads_of(page: &str) -> Vec<&'static str> {
    listed(&format!("views/{page}.js"), "export const READS = [")
}

/// The texts of a list that stands on one line of a file.
fn listed(path: &str, begin: &str) -> Vec<&'static str> {
    let lists = text_of(path).lines().filter_map(|line| line.strip_prefix(begin));
    lists.flat_map(|list| list.split('\'').skip(1).step_by(2)).collect()
}

/// The files that a file imports before it runs.
fn imports_of(path: &str) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    text_of(path)
        .lines()
        .filter(|line| line.starts_with("import "))
        .filter_map(|line| line.strip_suffix("';")?.rsplit_once('\'').map(|(_, to)| to.to_owned()))
        .map(|to| match to.strip_prefix("../") {
            Some(above) => above.to_owned(),
            None if folder.is_empty() => to.trim_start_matches("./").to_owned(),
            None => format!("{folder}/{}", to.trim_start_matches("./")),
        })
        .collect()
}

impl File {
    fn new(path: &'static str, plain: Bytes) -> Self {
        let content_type = match path.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            // For an SVG the browser would make a document of its own, which a slow phone feels.
            Some("ico") => "image/x-icon",
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
            to.insert(header::LINK, links.modules.clone());
            let has_cookie = headers.contains_key(header::COOKIE);
            let more = if has_cookie {
                links.reads.as_ref()
            } else {
                Some(&links.sign_in)
            };
            if let Some(more) = more {
                to.append(header::LINK, more.clone());
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
    fn a_page_asks_for_its_modules_at_once() {
        let modules = modules_of("events");
        for path in [
            "views/events.js",
            "views/actions.js",
            "lib/rows.js",
            "texts.js",
            "lib/page.js",
        ] {
            assert!(modules.contains(&path.to_owned()), "{path}: {modules:?}");
        }
        for path in ["app.js", "views/integrations.js", "lib/card.js"] {
            assert!(!modules.contains(&path.to_owned()), "{path}: {modules:?}");
        }
        let is_served = |path: &str| FILES.iter().any(|(one, _)| *one == path);
        for path in pages().concat().into_iter().flat_map(modules_of) {
            assert!(is_served(&path), "{path} is imported and not served");
        }
        assert!(is_served(SIGN_IN) && pages().concat().contains(&FIRST_PAGE));
        assert_eq!(reads_of("integrations"), ["/api/providers", "/api/integrations/status"]);
        assert!(reads_of("events").is_empty());
    }

    #[test]
    fn scripts_lose_their_comments_and_nothing_else() {
        let text =
            "// one\n/** two */\nconst a = 'b // c';\n  /**\n   * three\n   */\nd(/** @type {any} */ (e)); // f\n";
        assert_eq!(without_comments(text), "\n\nconst a = 'b // c';\n\n\n\nd((e)); // f\n");
        for (path, bytes) in FILES.iter().filter(|(path, _)| is_script(path)) {
            let text = std::str::from_utf8(bytes).expect("UTF-8");
            let plain = without_comments(text);
            assert_eq!(plain.lines().count(), text.lines().count(), "{path}");
            for (line, number) in plain.lines().zip(1..) {
                // A text in backticks that goes on in the next line could hold what looks like a
                // comment.
                assert_eq!(line.matches('`').count() % 2, 0, "{path}:{number}: {line}");
                assert!(!line.contains("/**"), "{path}:{number}: a comment within code: {line}");
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
