//! One connection, from its first byte to its last.

use super::{EarlyRefusal, HEADERS_DEFAULT, Limits, Peer, stall::Stalling};
use axum::{body::Body, response::Response};
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, header::CONNECTION};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

pub(super) struct Connection<S> {
    pub(super) stream: TcpStream,
    pub(super) peer: Peer,
    pub(super) limits: Arc<Limits>,
    pub(super) hard: CancellationToken,
    pub(super) service: S,
}

impl<S> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    pub(super) async fn run(self) {
        let hard = self.hard.clone();
        tokio::select! {
            biased;
            () = hard.cancelled() => {}
            () = self.exchange() => {}
        }
    }

    async fn exchange(self) {
        let Self {
            stream,
            peer,
            limits,
            service,
            ..
        } = self;
        let stopping = peer.stopping.clone();
        let progress = Arc::new(Progress::default());
        let handler = Handler {
            service,
            leaving: limits.leaving.clone(),
            peer,
            progress: Arc::clone(&progress),
        };
        let io = TokioIo::new(Stalling::new(stream, &limits, Arc::clone(&progress)));
        let mut connection = builder(&limits).serve_connection(io, handler);

        let ended = tokio::select! {
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(ended),
            () = stopped(&stopping, &progress) => None,
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            // Closes now when idle; else after the answer.
            Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
                // The stop came while a head was half sent. No request was accepted, so no answer
                // is due.
                () = idle_for(&progress, STOP_GRACE) => return,
            }
        };
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner();
        if let Err(error) = ended {
            if error.is_timeout() || stream.is_head_too_slow() {
                if parts.read_buf.is_empty() {
                    return;
                }
                (limits.on_refused)(EarlyRefusal::HeadTooSlow);
                if stream.write_all(HEAD_TOO_SLOW).await.is_err() {
                    return;
                }
            } else if error.is_parse_too_large() {
                (limits.on_refused)(EarlyRefusal::HeadTooLarge);
            } else if error.is_parse() {
                (limits.on_refused)(EarlyRefusal::NotHttp);
            } else {
                // The peer is gone or reads nothing, so there is no reason to linger.
                return;
            }
        }
        let seconds_max = if stopping.is_cancelled() { STOP_GRACE } else { LINGER };
        linger(stream, seconds_max).await;
    }
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // No `pipeline_flush`: it keeps an answer back while unread bytes are buffered, which a refused
    // head always leaves.
    builder
        .timer(TokioTimer::new())
        // hyper counts from the end of the previous request. `Stalling` bounds the time of each
        // head.
        .header_read_timeout(limits.idle_seconds_max + limits.head_seconds_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.head_bytes_max.max(READ_BUFFER_BYTES))
        .half_close(limits.answers_half_closed);
    if limits.headers_max != HEADERS_DEFAULT {
        builder.max_headers(limits.headers_max);
    }
    builder
}

/// Most bytes that one connection buffers, beside a body that is being collected.
const READ_BUFFER_BYTES: usize = 64 << 10;

const HEAD_TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long a connection without a request may live after the soft stop.
const STOP_GRACE: Duration = Duration::from_millis(250);

const LINGER: Duration = Duration::from_secs(1);

/// Ends at the stop. A connection that has brought no head yet may have one in its socket, so it is
/// given a moment.
async fn stopped(stopping: &CancellationToken, progress: &Progress) {
    stopping.cancelled().await;
    if progress.begun() == 0 {
        tokio::time::sleep(STOP_GRACE).await;
    }
}

/// Ends when no request was worked on, and no answer under way to a slow reader, after `grace`.
async fn idle_for(progress: &Progress, grace: Duration) {
    loop {
        tokio::time::sleep(grace).await;
        if !progress.is_busy() && !progress.is_writing() {
            return;
        }
    }
}

/// A socket that is closed with unread bytes sends a reset, and a reset can overtake the answer. So
/// this function ends our side first, and then reads a few more bytes for a short time.
async fn linger(mut stream: Stalling, seconds_max: Duration) {
    const BYTES_MAX: usize = 256 << 10;
    if stream.shutdown().await.is_err() {
        return;
    }
    let _ = tokio::time::timeout(seconds_max, async {
        let mut scratch = [0; 4096];
        let mut rest = BYTES_MAX;
        while let Ok(read @ 1..) = stream.read(&mut scratch).await {
            rest = rest.saturating_sub(read);
            if rest == 0 {
                break;
            }
        }
    })
    .await;
}

/// The progress of a connection, shared by its stream and its handler.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Requests whose head was read.
    begun: AtomicUsize,
    /// Requests that are being worked on.
    busy: AtomicUsize,
    /// Whether a write waits for the peer to read.
    is_writing: AtomicBool,
}

impl Progress {
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::Acquire)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    fn is_writing(&self) -> bool {
        self.is_writing.load(Ordering::Acquire)
    }

    pub(super) fn set_writing(&self, is_writing: bool) {
        self.is_writing.store(is_writing, Ordering::Release);
    }
}

/// The service as hyper calls it. It counts the requests that are being worked on, and gives the
/// handler the peer's address.
struct Handler<S> {
    service: S,
    leaving: CancellationToken,
    peer: Peer,
    progress: Arc<Progress>,
}

// The service is cloned for each request and never pinned.
impl<S> Unpin for Handler<S> {}

impl<S> hyper::service::Service<Request<Incoming>> for Handler<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        let service = self.service.clone();
        let (busy, leaving) = (Busy::new(&self.progress), self.leaving.clone());
        Box::pin(async move {
            let Ok(mut answer) = service.oneshot(request).await;
            if leaving.is_cancelled() {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(busy);
            Ok(answer)
        })
    }
}

/// A request is being worked on while this is held; dropped with the handler when the connection is
/// cut.
struct Busy(Arc<Progress>);

impl Busy {
    fn new(progress: &Arc<Progress>) -> Self {
        progress.busy.fetch_add(1, Ordering::AcqRel);
        progress.begun.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(progress))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}
