//! A proxy that speaks TLS and HTTP/2 with browsers, as one in production does: node's own, because
//! no crate of this package speaks HTTP/2. Its certificate is made by `openssl` for each start.

use super::dev::Directory;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/http2.mjs");

/// It ends with this.
pub struct Http2 {
    pub base: String,
    process: Child,
    _files: Directory,
}

impl Http2 {
    /// In front of the server at `base`.
    pub fn start(base: &str) -> Self {
        let files = Directory::new();
        let (key, certificate) = (files.path().join("key.pem"), files.path().join("certificate.pem"));
        make_certificate(&key, &certificate);
        let (_, port) = base.rsplit_once(':').expect("an address with a port");
        let mut process = Command::new("node")
            .arg(SCRIPT)
            .args([&key, &certificate])
            .arg(port)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("node does not start ({error}); scripts/browser says which one"));
        let mut port = String::new();
        let said = process.stdout.take().expect("piped");
        BufReader::new(said).read_line(&mut port).expect("a readable pipe");
        assert!(!port.is_empty(), "the proxy ended before it listened");
        Self {
            base: format!("https://127.0.0.1:{}", port.trim()),
            process,
            _files: files,
        }
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn make_certificate(key: &Path, certificate: &Path) {
    let subject = "/CN=127.0.0.1";
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args([
            "-subj",
            subject,
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-days",
            "2",
            "-keyout",
        ])
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .unwrap_or_else(|error| panic!("openssl does not start ({error}): install it"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
