//! A stream that fails in two cases. The peer reads nothing for too long: nothing else bounds the
//! time that an answer waits in our buffers. Or a head takes too long from its first byte: hyper's
//! own deadline includes the idle time before it.

use super::{Limits, connection::Progress};
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

pub(super) struct Stalling {
    stream: TcpStream,
    write_seconds_max: Duration,
    /// Set while a write waits. A write that does not wait sets no timer and pays for none.
    deadline: Option<Pin<Box<Sleep>>>,
    head_seconds_max: Duration,
    progress: Arc<Progress>,
    /// The count of begun requests at the last read.
    begun: usize,
    /// Begin of the head that is arriving; `None` between requests.
    head_since: Option<Instant>,
    /// Set while the stream waits for the rest of a head.
    head_deadline: Option<Pin<Box<Sleep>>>,
    is_head_too_slow: bool,
}

impl Stalling {
    pub(super) fn new(stream: TcpStream, limits: &Limits, progress: Arc<Progress>) -> Self {
        Self {
            stream,
            write_seconds_max: limits.write_seconds_max,
            deadline: None,
            head_seconds_max: limits.head_seconds_max,
            begun: progress.begun(),
            progress,
            // The time of the first head begins with the connection.
            head_since: Some(Instant::now()),
            head_deadline: None,
            is_head_too_slow: false,
        }
    }

    /// Whether a read failed because the head took too long.
    pub(super) const fn is_head_too_slow(&self) -> bool {
        self.is_head_too_slow
    }

    fn watch_head(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        let begun = self.progress.begun();
        if begun != self.begun {
            // The head is here. Its body has a deadline of its own.
            self.begun = begun;
            self.head_since = None;
            self.head_deadline = None;
        }
        if self.progress.is_busy() {
            return result;
        }
        if result.is_ready() {
            // Bytes that are here are used, however late: the deadline is looked at before the next
            // wait.
            self.head_since.get_or_insert_with(Instant::now);
            return result;
        }
        let Some(since) = self.head_since else { return result };
        let at = since + self.head_seconds_max;
        let deadline = self
            .head_deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if deadline.as_mut().poll(cx).is_ready() {
            self.is_head_too_slow = true;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            if self.deadline.take().is_some() {
                self.progress.set_writing(false);
            }
            return result;
        }
        let deadline = self.deadline.get_or_insert_with(|| {
            self.progress.set_writing(true);
            Box::pin(tokio::time::sleep(self.write_seconds_max))
        });
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stalling {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watch_head(cx, result)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
