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
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use std::{
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
    "lib/kept.js",
    "lib/keys.js",
    "lib/moment.js",
    "lib/outcomes.js",
    "lib/overview.js",
    "lib/page.js",
    "lib/pauses.js",
    "lib/phone.js",
    "lib/ready.js",
    "lib/rows.js",
    "lib/rule.js",
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
    "style.css",
    "texts.js",
    "views/actions.js",
    "views/assistants.js",
    "views/audit.js",
    "views/dead-events.js",
    "views/endpoints.js",
    "views/events.js",
    "views/integrations.js",
    "views/jobs.js",
    "views/kept.js",
    "views/keys.js",
    "views/overview.js",
    "views/pauses.js",
    "views/rules.js",
    "views/settings.js",
    "views/sign-in.js",
];

/// The page that every address of the dashboard opens. `{assets}` stands for the address of the
/// files.
const INDEX: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/dashboard/index.html"));

/// The first parts of the addresses that the page knows. Any other address is 404.
const PAGES: &[&str] = &[
    "overview",
    "integrations",
    "assistants",
    "endpoints",
    "rules",
    "events",
    "actions",
    "audit",
    "settings",
    "dead-events",
    "pauses",
    "jobs",
    "keys",
];

/// `trusted-types 'none'`: no script makes HTML from a text, so that a name with `<script>` in it
/// is a name.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
    trusted-types 'none'";

/// One file with both of its forms.
struct File {
    path: &'static str,
    plain: Bytes,
    content_type: &'static str,
    /// Made at the first request: a start waits for no compression.
    gzip: OnceLock<Bytes>,
}

struct Files {
    /// A hash over all files. It stands in their addresses, so that a browser keeps them for ever,
    /// and relative imports stay within one version.
    version: String,
    index: File,
    all: Vec<File>,
}

static FILES_SERVED: LazyLock<Files> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for (path, bytes) in FILES.iter().chain(&[("index.html", INDEX.as_bytes())]) {
        for part in [path.as_bytes(), bytes] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    let version = hex::encode(&hash.finalize()[..8]);
    let index = INDEX.replace("{assets}", &format!("/dashboard/assets/{version}"));
    Files {
        index: File::new("index.html", Bytes::from(index)),
        all: FILES
            .iter()
            .map(|(path, bytes)| File::new(path, Bytes::from_static(bytes)))
            .collect(),
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

    fn answer(&self, headers: &HeaderMap, cache: &'static str) -> Response {
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
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
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
    FILES_SERVED.index.answer(&headers, "no-cache")
}

async fn page(Path(name): Path<String>, headers: HeaderMap) -> Response {
    if PAGES.contains(&name.as_str()) {
        index(headers).await
    } else {
        missing()
    }
}

/// A file of another version is 404: the page then says that it has to be loaded again.
async fn asset(Path((version, path)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let files = &*FILES_SERVED;
    let found = files
        .all
        .iter()
        .find(|file| file.path == path && files.version == version);
    found.map_or_else(missing, |file| {
        file.answer(&headers, "public, max-age=31536000, immutable")
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
