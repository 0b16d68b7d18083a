//! `GET /api/stream`: says that a list changed, with its name and without its content
//! (server-sent events; decision 0015).

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        streams::{Full, OpenStream, Reports},
        web::{
            auth::Caller,
            page::Params,
            problem::{Code, Problem},
        },
    },
    listener::Peer,
    store::marks::List,
};
use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, Uri, header};
use serde_json::json;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new().route("/api/stream", get(open))
}

/// How often a stream looks whether its token has ended.
const TICK: Duration = Duration::from_secs(1);
/// A comment keeps proxies from closing a silent connection, and finds a caller that has gone.
const TICKS_BETWEEN_COMMENTS: u32 = 15;
const COMMENT: &str = ": still here\n\n";
/// How long a caller waits before it opens the stream again.
const RETRY: &str = "retry: 3000\n\n";
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// nginx then passes each message on as it comes.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

pub async fn open(State(state): Admin, caller: Caller, peer: Option<Extension<Peer>>, uri: Uri) -> Answer<Response> {
    Params::of(&uri)?.finish()?;
    let open = state.streams.open(caller.member.org).map_err(refused)?;
    let sessions_ended = open.reports.borrow().sessions_ended;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reader = Reader {
        stopping: peer.map_or_else(CancellationToken::new, |Extension(peer)| peer.stopping),
        state,
        caller,
        open,
        seen: None,
        sessions_ended,
        ticks,
        ticks_since_comment: 0,
    };
    let said = stream::unfold(Phase::Begin(Box::new(reader)), |phase| async {
        let (text, phase) = phase.next().await?;
        Some((Ok::<_, Infallible>(text), phase))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (UNBUFFERED, "no")];
    Ok((headers, Body::from_stream(said)).into_response())
}

fn refused(full: Full) -> Problem {
    let (code, whose) = match full {
        Full::Organisation => (Code::TooManyStreams, "Your organisation"),
        Full::Process => (Code::StreamsFull, "This instance"),
    };
    Problem::new(code)
        .detail(format!(
            "{whose} holds as many streams as it may. Ask the lists with their ETag every few seconds instead."
        ))
        .retry_after(RETRY_AFTER)
}

enum Phase {
    Begin(Box<Reader>),
    Open(Box<Reader>),
    Ended,
}

impl Phase {
    /// The next message, or `None` at the end.
    async fn next(self) -> Option<(Bytes, Self)> {
        match self {
            Self::Begin(reader) => Some((Bytes::from_static(RETRY.as_bytes()), Self::Open(reader))),
            Self::Open(mut reader) => Some(match reader.next().await {
                Message::Changed(lists) => (changed(&lists), Self::Open(reader)),
                Message::Nothing => (Bytes::from_static(COMMENT.as_bytes()), Self::Open(reader)),
                Message::End(reason) => (end(reason), Self::Ended),
            }),
            Self::Ended => None,
        }
    }
}

enum Message {
    Changed(Vec<List>),
    Nothing,
    End(&'static str),
}

fn changed(lists: &[List]) -> Bytes {
    let names: Vec<&str> = lists.iter().map(|list| list.as_str()).collect();
    format!("event: changed\ndata: {}\n\n", json!({ "lists": names })).into()
}

fn end(reason: &str) -> Bytes {
    format!("event: end\ndata: {}\n\n", json!({ "reason": reason })).into()
}

/// One open stream.
struct Reader {
    state: Arc<AdminState>,
    caller: Caller,
    open: OpenStream,
    /// What this stream has said. `None` before the first look: all lists are said then, because
    /// nobody knows how old the caller's are.
    seen: Option<Reports>,
    /// Those after which this stream asked for its own.
    sessions_ended: u64,
    ticks: Interval,
    ticks_since_comment: u32,
    stopping: CancellationToken,
}

impl Reader {
    async fn next(&mut self) -> Message {
        loop {
            if let Some(said) = self.news().await {
                return said;
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => return Message::End("stopping"),
                reports = self.open.reports.changed() => {
                    if reports.is_err() {
                        return Message::End("stopping");
                    }
                }
                _ = self.ticks.tick() => {
                    if let Some(said) = self.tick().await {
                        return said;
                    }
                }
            }
        }
    }

    /// What was reported since this stream said something.
    async fn news(&mut self) -> Option<Message> {
        let reports = *self.open.reports.borrow_and_update();
        if self.sessions_ended != reports.sessions_ended {
            self.sessions_ended = reports.sessions_ended;
            if let Some(reason) = self.caller.ended(&self.state).await {
                return Some(Message::End(reason));
            }
        }
        if !reports.is_ready {
            return None;
        }
        let lists = match self.seen.replace(reports) {
            None => List::ALL.to_vec(),
            Some(seen) => reports.since(&seen),
        };
        (!lists.is_empty()).then_some(Message::Changed(lists))
    }

    /// Each second the time is looked at; with each comment the store is asked as well.
    async fn tick(&mut self) -> Option<Message> {
        if let Some(reason) = self.caller.expired(self.state.now()) {
            return Some(Message::End(reason));
        }
        self.ticks_since_comment += 1;
        if self.ticks_since_comment < TICKS_BETWEEN_COMMENTS {
            return None;
        }
        self.ticks_since_comment = 0;
        let ended = self.caller.ended(&self.state).await;
        Some(ended.map_or(Message::Nothing, Message::End))
    }
}
