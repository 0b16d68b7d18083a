//! The requests to the stand-ins, in a ring that is bounded by count and by bytes.

use super::form;
use crate::domain::{Provider, Timestamp};
use bytes::Bytes;
use http::{HeaderMap, request::Parts};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;

/// Bytes of bodies and headers kept at most.
const BYTES_MAX: usize = 256 << 20;

/// One request as it arrived. Kept compact: thousands a second are recorded, few are read.
pub(super) struct Record {
    id: u64,
    at: Timestamp,
    provider: Provider,
    method: Box<str>,
    path: Box<str>,
    /// `name: value` lines.
    headers: Box<str>,
    body: Bytes,
    status: Option<u16>,
}

/// A request as tests and `GET /_requests` see it.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    pub id: u64,
    pub at: Timestamp,
    pub provider: Provider,
    pub method: String,
    /// With its query, as it was sent.
    pub path: String,
    /// By name in lower case; repeated ones joined by `, `.
    pub headers: Map<String, Value>,
    pub content: Content,
    /// `None` while it is worked on, and for good where the connection was closed without an
    /// answer.
    pub status: Option<u16>,
}

/// A request's body, by its content type.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    None,
    /// Name to text, or to a list of texts where a name is repeated.
    Form(Map<String, Value>),
    Json(Value),
    Text(String),
}

impl Request {
    /// `{id, at, provider, method, path, headers, form | json | body, status}`; a request without a
    /// body has none of the three.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut out = json!({
            "id": self.id,
            "at": rfc3339(self.at),
            "provider": self.provider,
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "status": self.status,
        });
        match &self.content {
            Content::None => {}
            Content::Form(form) => out["form"] = Value::Object(form.clone()),
            Content::Json(json) => out["json"] = json.clone(),
            Content::Text(text) => out["body"] = text.as_str().into(),
        }
        out
    }

    /// One field of a form.
    #[must_use]
    pub fn form_field(&self, name: &str) -> Option<&str> {
        match &self.content {
            Content::Form(form) => form.get(name).and_then(Value::as_str),
            _ => None,
        }
    }

    /// One header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Value::as_str)
    }
}

pub(super) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.as_micros())
        .map(|at| at.to_string())
        .unwrap_or_default()
}

impl Record {
    fn bytes(&self) -> usize {
        self.path.len() + self.headers.len() + self.body.len() + 128
    }

    fn read(&self) -> Request {
        let mut headers = Map::new();
        for (name, value) in self.headers.lines().filter_map(|line| line.split_once(": ")) {
            match headers.get_mut(name) {
                Some(Value::String(earlier)) => {
                    earlier.push_str(", ");
                    earlier.push_str(value);
                }
                _ => {
                    headers.insert(name.to_owned(), value.into());
                }
            }
        }
        let content_type = headers.get("content-type").and_then(Value::as_str).unwrap_or_default();
        let content = if self.body.is_empty() {
            Content::None
        } else if content_type.starts_with("application/x-www-form-urlencoded") {
            Content::Form(to_map(form::parse(&self.body)))
        } else if content_type.contains("json") {
            serde_json::from_slice(&self.body).map_or_else(|_| Content::Text(self.text()), Content::Json)
        } else {
            Content::Text(self.text())
        };
        Request {
            id: self.id,
            at: self.at,
            provider: self.provider,
            method: self.method.to_string(),
            path: self.path.to_string(),
            headers,
            content,
            status: self.status,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn to_map(pairs: Vec<(String, String)>) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in pairs {
        match map.get_mut(&name) {
            None => {
                map.insert(name, value.into());
            }
            Some(Value::Array(values)) => values.push(value.into()),
            Some(earlier) => *earlier = json!([earlier.take(), value]),
        }
    }
    map
}

/// The ring.
pub(super) struct Records {
    ring: VecDeque<Record>,
    next_id: u64,
    bytes: usize,
    max: usize,
}

impl Records {
    pub(super) fn new(max: usize) -> Self {
        Self {
            ring: VecDeque::new(),
            next_id: 1,
            bytes: 0,
            max: max.max(1),
        }
    }

    pub(super) fn add(&mut self, at: Timestamp, provider: Provider, parts: &Parts, body: &Bytes) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let record = Record {
            id,
            at,
            provider,
            method: parts.method.as_str().into(),
            path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).into(),
            headers: lines(&parts.headers).into(),
            // A copy: the bytes as they arrived are a slice of the connection's whole buffer.
            body: Bytes::copy_from_slice(body),
            status: None,
        };
        self.bytes += record.bytes();
        self.ring.push_back(record);
        while self.ring.len() > self.max || self.bytes > BYTES_MAX {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
        id
    }

    pub(super) fn set_status(&mut self, id: u64, status: u16) {
        let first = self.ring.front().map_or(id, |record| record.id);
        // Ids in the ring have no gaps, so an id gives the index.
        let index = id.checked_sub(first).and_then(|index| usize::try_from(index).ok());
        if let Some(record) = index.and_then(|index| self.ring.get_mut(index)) {
            record.status = Some(status);
        }
    }

    pub(super) fn list(&self, provider: Option<Provider>) -> Vec<Request> {
        self.ring
            .iter()
            .filter(|record| provider.is_none_or(|wanted| wanted == record.provider))
            .map(Record::read)
            .collect()
    }

    pub(super) fn count(&self, provider: Provider) -> usize {
        self.ring.iter().filter(|record| record.provider == provider).count()
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.bytes = 0;
    }
}

fn lines(headers: &HeaderMap) -> String {
    let mut out = String::with_capacity(headers.len() * 40);
    for (name, value) in headers {
        out.push_str(name.as_str());
        out.push_str(": ");
        out.push_str(&String::from_utf8_lossy(value.as_bytes()));
        out.push('\n');
    }
    out
}
