//! HTTP as bytes on a raw socket, for requests that no client would send.

use super::schema;
use hookswitch::source::sign::SignedHeader;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long an answer, or another condition at a socket, may take.
pub const WAIT: Duration = Duration::from_secs(10);

/// A POST with a length and these headers, ready for the wire.
pub fn request(path: &str, content_type: &str, headers: &[SignedHeader], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n",
        body.len()
    )
    .into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// One connection, read answer by answer.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The problem's request id, which is also in the header.
    pub fn request_id(&self) -> &str {
        let id = self.header("x-request-id").expect("a refusal has an id");
        assert!(
            self.text().ends_with(&format!(r#","request_id":"{id}"}}"#)),
            "{}",
            self.text()
        );
        id
    }

    /// Without what differs from second to second and from request to request.
    pub fn without_date_and_id(&self) -> (u16, String, String) {
        let head = self
            .head
            .lines()
            .filter(|line| !line.starts_with("date:"))
            .collect::<Vec<_>>()
            .join("\n");
        (
            self.status,
            head.replace(self.request_id(), "ID"),
            self.text().replace(self.request_id(), "ID"),
        )
    }
}

impl Wire {
    pub const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends what the peer takes: it may have answered and closed before it read all.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next answer; `None` when the connection ended instead.
    pub async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, length)) = parse(&self.read) {
                self.read.drain(..length);
                if answer.header("content-type") == Some("application/problem+json") {
                    schema::check_problem(&serde_json::from_slice(&answer.body).expect("JSON"));
                }
                return Some(answer);
            }
            let mut buffer = [0; 4096];
            match tokio::time::timeout(WAIT, self.stream.read(&mut buffer))
                .await
                .expect("an answer, or an end")
            {
                Ok(read @ 1..) => self.read.extend_from_slice(&buffer[..read]),
                _ => return None,
            }
        }
    }

    pub async fn is_closed(&mut self) -> bool {
        self.answer().await.is_none()
    }

    /// Ends with a reset rather than a farewell.
    pub fn reset(self) {
        #[expect(deprecated, reason = "zero seconds never block: this is how a reset is made")]
        self.stream.set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub async fn shut(&mut self) {
        self.stream.shutdown().await.unwrap();
    }
}

fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).unwrap().to_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer {
        status,
        head,
        body: Vec::new(),
    };
    let length = answer
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    answer.body = bytes.get(end..end + length)?.to_vec();
    Some((answer, end + length))
}
