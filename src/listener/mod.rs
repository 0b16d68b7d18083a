//! The accept loop that every listener of ours shares: ingress, admin, operations, sandbox.
//!
//! Every room that serves HTTP enters. `axum::serve` sets no deadline on heads and idle
//! connections. It spins or parks on a full file table, and when it stops it waits for an idle
//! connection for ever. So the loop is ours. **Invariant:** no sender, however slow or silent,
//! holds a connection past its deadlines or delays [`serve`] after the hard stop. Neither do many
//! senders.

mod connection;
mod files;
mod network;
mod stall;

pub use files::raise_file_limit;
pub use network::{Networks, caller_of};

use axum::{body::Body, response::Response};
use connection::Connection;
use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

/// Limits of a listener. `Limits::default()` suits a listener that only our own people and
/// machines reach.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For log lines: `ingress`, `admin`, …
    pub name: &'static str,
    /// Most connections held at once; the file limit less a reserve bounds it too. Above it new
    /// ones wait in the kernel.
    pub connections_max: usize,
    /// Most connections held at once from one address (a /64 for IPv6); above it new ones are
    /// closed at once.
    pub connections_per_address_max: usize,
    /// Addresses that the limit per address does not count: proxies in front of us.
    pub trusted: Networks,
    /// Largest request head, in bytes: 431 above it.
    pub head_bytes_max: usize,
    /// Most headers: 431 above it.
    pub headers_max: usize,
    /// Time for a head to arrive (408), counted from its first byte; for the first head from the
    /// start of the connection.
    pub head_seconds_max: Duration,
    /// Time for a connection to stay idle between requests before it is closed. A balancer in front
    /// must close first: a request that it sends into our close is lost.
    pub idle_seconds_max: Duration,
    /// How long a peer may read nothing of an answer before it is cut off.
    pub write_seconds_max: Duration,
    /// Whether a peer that has closed its writing side still gets its answer. Without it an answer
    /// that goes on ends as soon as its peer closes the connection.
    pub answers_half_closed: bool,
    /// Whether another acceptor goes on with the same socket. At the stop of this one it gets the
    /// connections that wait.
    pub hands_over: bool,
    /// Called for each request that was refused before its head could be read. A plain function,
    /// because it only counts.
    pub on_refused: fn(EarlyRefusal),
    /// Once it is cancelled, each answer closes its connection.
    pub leaving: CancellationToken,
    pub state: Arc<ListenerState>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            name: "internal",
            connections_max: 256,
            connections_per_address_max: 256,
            trusted: Networks::default(),
            head_bytes_max: 32 << 10,
            headers_max: HEADERS_DEFAULT,
            head_seconds_max: Duration::from_secs(10),
            idle_seconds_max: Duration::from_secs(75),
            write_seconds_max: Duration::from_secs(30),
            answers_half_closed: true,
            hands_over: false,
            on_refused: |_| (),
            leaving: CancellationToken::new(),
            state: Arc::default(),
        }
    }
}

/// hyper keeps this many headers on the stack; any other number costs an allocation for each
/// request.
const HEADERS_DEFAULT: usize = 100;

/// Reasons for which a listener refuses a connection or a request before any handler sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EarlyRefusal {
    /// 431.
    HeadTooLarge,
    /// 400: not HTTP, or HTTP that two parsers might read differently.
    NotHttp,
    /// 408: the head did not arrive in time.
    HeadTooSlow,
    /// Closed: the address holds its share of connections already.
    TooManyFromAddress,
}

/// The connections that a listener holds now, for gauges and readiness.
#[derive(Debug, Default)]
pub struct ListenerState {
    open: AtomicUsize,
    open_max: AtomicUsize,
    accept_fails: AtomicBool,
}

impl ListenerState {
    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// No further connection is taken for now: at the limit, or out of files.
    pub fn is_full(&self) -> bool {
        let max = self.open_max.load(Ordering::Relaxed);
        self.accept_fails.load(Ordering::Relaxed) || (max > 0 && self.open() >= max)
    }
}

/// The peer of a connection; an extension of each request.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Cancelled when the listener stops softly. A handler that waits for more bytes, or streams
    /// without end, gives up soon after.
    pub stopping: CancellationToken,
}

/// Connections that may wait in the kernel for our accept. A sender such as Twilio opens one for
/// each webhook; a connection beyond the backlog is dropped and tried again after a second. The
/// system's own limit (`net.core.somaxconn`) bounds it too.
const BACKLOG: u32 = 4096;

/// Listens on `HOST:PORT`; port 0 takes any free one.
///
/// # Errors
/// The name is not found, or none of its addresses can be listened on.
pub async fn bind(address: &str) -> std::io::Result<TcpListener> {
    let mut failed = std::io::Error::other("the name has no address");
    for address in tokio::net::lookup_host(address).await? {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart binds while connections of the process before it still end.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `service` (an `axum::Router`, or any service of its shape) until `soft` is cancelled. It
/// then accepts what waits already and no more, closes idle connections, and lets the requests that
/// were begun finish. With [`Limits::hands_over`] it accepts nothing then. It returns when all are
/// done or `hard` is cancelled. Nothing outlives it.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    soft: CancellationToken,
    hard: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let connections_max = limits.connections_max.min(files::connections_max()).max(1);
    limits.state.open_max.store(connections_max, Ordering::Relaxed);
    let acceptor = Acceptor {
        listener,
        slots: Arc::new(Semaphore::new(connections_max)),
        addresses: Arc::new(Addresses {
            open: Mutex::default(),
            each_max: limits.connections_per_address_max,
        }),
        limits: Arc::new(limits),
        warned_at: None,
    };
    let connections = TaskTracker::new();
    acceptor.run(service, &connections, &soft, &hard).await;
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        // Connections watch the hard token themselves. This bounds the wait for a connection whose
        // handler blocks.
        () = async { hard.cancelled().await; tokio::time::sleep(Duration::from_millis(500)).await } => {}
    }
}

struct Acceptor {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    limits: Arc<Limits>,
    warned_at: Option<Instant>,
}

impl Acceptor {
    async fn run<S>(mut self, service: S, connections: &TaskTracker, soft: &CancellationToken, hard: &CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let mut burst = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = soft.cancelled() => {}
                accepted = self.next() => burst.push(accepted),
            }
            let is_last = soft.is_cancelled();
            let leaves_waiting = is_last && self.limits.hands_over;
            if is_last && !leaves_waiting {
                // The runtime learns of the last ones that the kernel has.
                tokio::time::sleep(LAST_ACCEPTS).await;
            }
            // Accept all waiting connections before serving the first, or the others would wait in
            // the kernel meanwhile. At a stop the kernel would reset them.
            while !leaves_waiting
                && burst.len() < BURST_MAX
                && let Some(accepted) = self.next().now_or_never()
            {
                burst.push(accepted);
            }
            for (stream, address, slot) in burst.drain(..) {
                let Ok(share) = self.share(address) else {
                    (self.limits.on_refused)(EarlyRefusal::TooManyFromAddress);
                    continue;
                };
                let held = OpenConnection::new(slot, share, Arc::clone(&self.limits.state));
                let peer = Peer {
                    address,
                    stopping: soft.clone(),
                };
                let connection = Connection {
                    stream,
                    peer,
                    limits: Arc::clone(&self.limits),
                    hard: hard.clone(),
                    service: service.clone(),
                };
                connections.spawn(async move {
                    connection.run().await;
                    drop(held);
                });
            }
            if is_last {
                return;
            }
        }
    }

    /// The next connection, with a slot held for it. A full file table is waited out: it neither
    /// spins nor ends the loop.
    async fn next(&mut self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    self.limits.state.accept_fails.store(false, Ordering::Relaxed);
                    // Answers are small and whole: waiting to fill a segment only delays them.
                    let _ = stream.set_nodelay(true);
                    return (stream, address, slot);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.limits.state.accept_fails.store(true, Ordering::Relaxed);
                    if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                        self.warned_at = Some(Instant::now());
                        tracing::warn!(listener = self.limits.name, error = %error, "Cannot accept connections for \
                            now; trying again");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// `None` for a trusted address, which has no share to keep to.
    fn share(&self, address: SocketAddr) -> Result<Option<Share>, TooMany> {
        let ip = address.ip().to_canonical();
        if self.limits.trusted.contain(ip) {
            Ok(None)
        } else {
            Addresses::take(&self.addresses, ip).map(Some)
        }
    }
}

/// Connections that are accepted before any of them is served.
const BURST_MAX: usize = 256;
const WARN_EVERY: Duration = Duration::from_secs(10);
const LAST_ACCEPTS: Duration = Duration::from_millis(10);
/// Short enough that a freed descriptor is used at once, long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The peer went away between its handshake and our accept. The next connection may well be sound.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// The slots that a connection holds while it is open. Dropping it gives them back.
struct OpenConnection {
    /// Given back before the slot: the connection that gets the slot may need this share.
    _share: Option<Share>,
    _slot: OwnedSemaphorePermit,
    state: Arc<ListenerState>,
}

impl OpenConnection {
    fn new(slot: OwnedSemaphorePermit, share: Option<Share>, state: Arc<ListenerState>) -> Self {
        state.open.fetch_add(1, Ordering::Relaxed);
        Self {
            _share: share,
            _slot: slot,
            state,
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.state.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connections by address. Bounded by the connections that are open.
struct Addresses {
    open: Mutex<HashMap<IpAddr, usize>>,
    each_max: usize,
}

/// The address holds its share already.
struct TooMany;

struct Share {
    of: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    fn take(addresses: &Arc<Self>, ip: IpAddr) -> Result<Share, TooMany> {
        let address = network_of(ip);
        let mut open = addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_insert(0);
        if *count >= addresses.each_max {
            return Err(TooMany);
        }
        *count += 1;
        drop(open);
        Ok(Share {
            of: Arc::clone(addresses),
            address,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut open = self.of.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// The addresses that count as one sender: an IPv4 address, or an IPv6 network of 64 bits.
#[must_use]
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}
