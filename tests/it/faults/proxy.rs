//! A TCP proxy that breaks on demand: what stands between the process and a server of any kind.

use crate::support::address_in;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// The treatment of bytes. Looked at for each read, so that a change concerns connections that are
/// open too.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    #[default]
    Pass,
    /// New connections are reset, and those that are open with their next bytes.
    Reset,
    /// Connections are accepted, nothing passes either way, and no error is sent.
    Blackhole,
    /// The server gets everything; what it says waits until the mode changes.
    HoldReplies,
    /// The server gets everything; what it says is thrown away.
    DropReplies,
    /// A connection that asks for this gets no more replies: it is reset as the first one comes.
    CutReplyTo(&'static [u8]),
    /// Each read waits so long, both ways.
    Delay(Duration),
    /// So many bytes of each reply pass, then the connection is reset.
    CutReplies(usize),
    /// An idle connection is closed after so long, as a server's keep-alive does it.
    CloseIdle(Duration),
    /// The server gets nothing: these bytes are the answer to whatever comes.
    Instead(Arc<[u8]>, Then),
}

/// After bytes of our own.
#[derive(Clone, Debug)]
pub enum Then {
    Close,
    /// The connection stays open and silent.
    Silence,
    /// The same byte for ever, one after each wait.
    Drip(Duration),
    /// As fast as it is read.
    Flood,
}

pub struct Proxy {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    replies_held: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(server: SocketAddr, stop: CancellationToken) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let (replies_held, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let way = Way {
            server,
            mode: mode.clone(),
            replies_held: replies_held.clone(),
        };
        let accepted = connections.clone();
        drop(tokio::spawn(async move {
            let accept = async {
                loop {
                    if let Ok((client, _)) = listener.accept().await {
                        accepted.fetch_add(1, Ordering::SeqCst);
                        let (way, stop) = (way.clone(), stop.clone());
                        drop(tokio::spawn(async move {
                            tokio::select! {
                                () = way.carry(client) => {}
                                () = stop.cancelled() => {}
                            }
                        }));
                    }
                }
            };
            tokio::select! {
                () = accept => {}
                () = stop.cancelled() => {}
            }
        }));
        Self {
            address,
            mode,
            replies_held,
            connections,
        }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Reads of the server's that were held back or thrown away so far.
    pub fn replies_held(&self) -> usize {
        self.replies_held.load(Ordering::SeqCst)
    }

    /// Connections taken so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A server behind a proxy.
pub struct Proxied {
    pub proxy: Proxy,
    /// Leads through the proxy.
    pub url: String,
    /// Where it had to be one of its own.
    pub _server: Option<Box<dyn Send + Sync>>,
}

impl Proxied {
    pub async fn at(url: &str, stop: CancellationToken) -> Self {
        let address = address_in(url);
        let proxy = Proxy::start(address, stop).await;
        let url = url
            .replace("localhost", "127.0.0.1")
            .replace(&address.to_string(), &proxy.address().to_string());
        Self {
            proxy,
            url,
            _server: None,
        }
    }
}

#[derive(Clone)]
struct Way {
    server: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    replies_held: Arc<AtomicUsize>,
}

/// The connection is to be reset.
struct Broken;

impl Way {
    fn now(&self) -> Mode {
        self.mode.borrow().clone()
    }

    async fn carry(self, client: TcpStream) {
        if matches!(self.now(), Mode::Reset) {
            return reset(&client);
        }
        let _ = client.set_nodelay(true);
        let Ok(server) = TcpStream::connect(self.server).await else {
            return reset(&client);
        };
        let _ = server.set_nodelay(true);
        let broken = {
            let (client, server) = (Halves::of(&client), Halves::of(&server));
            let is_cut = AtomicBool::new(false);
            tokio::select! {
                broken = self.requests(&client, &server, &is_cut) => broken,
                broken = self.replies(&server, &client, &is_cut) => broken,
            }
        };
        if broken.is_err() {
            reset(&client);
        }
    }

    async fn requests(&self, client: &Halves<'_>, server: &Halves<'_>, is_cut: &AtomicBool) -> Result<(), Broken> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let Some(read) = client.read(&mut bytes).await? else {
                return Ok(());
            };
            match self.now() {
                Mode::Reset => return Err(Broken),
                Mode::Blackhole => self.wait_for_change(|mode| matches!(mode, Mode::Blackhole)).await,
                Mode::CutReplyTo(wanted) if bytes[..read].windows(wanted.len()).any(|part| part == wanted) => {
                    is_cut.store(true, Ordering::SeqCst);
                }
                Mode::Delay(wait) => tokio::time::sleep(wait).await,
                Mode::Instead(answer, then) => {
                    client.write(&answer).await?;
                    match then {
                        Then::Close => return Ok(()),
                        Then::Silence => std::future::pending().await,
                        Then::Drip(wait) => loop {
                            tokio::time::sleep(wait).await;
                            client.write(b" ").await?;
                        },
                        Then::Flood => loop {
                            client.write(&[b' '; 8 << 10]).await?;
                        },
                    }
                }
                _ => {}
            }
            server.write(&bytes[..read]).await?;
        }
    }

    async fn replies(&self, server: &Halves<'_>, client: &Halves<'_>, is_cut: &AtomicBool) -> Result<(), Broken> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let read = match self.now() {
                Mode::CloseIdle(after) => match tokio::time::timeout(after, server.read(&mut bytes)).await {
                    Err(_) => return Ok(()),
                    Ok(read) => read?,
                },
                _ => server.read(&mut bytes).await?,
            };
            let Some(read) = read else { return Ok(()) };
            if is_cut.load(Ordering::SeqCst) {
                self.replies_held.fetch_add(1, Ordering::SeqCst);
                return Err(Broken);
            }
            match self.now() {
                Mode::Reset => return Err(Broken),
                Mode::DropReplies => {
                    self.replies_held.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                Mode::HoldReplies | Mode::Blackhole => {
                    self.replies_held.fetch_add(1, Ordering::SeqCst);
                    self.wait_for_change(|mode| matches!(mode, Mode::HoldReplies | Mode::Blackhole))
                        .await;
                }
                Mode::Delay(wait) => tokio::time::sleep(wait).await,
                Mode::CutReplies(after) => {
                    client.write(&bytes[..read.min(after)]).await?;
                    return Err(Broken);
                }
                _ => {}
            }
            client.write(&bytes[..read]).await?;
        }
    }

    async fn wait_for_change(&self, holds: impl Fn(&Mode) -> bool) {
        let _ = self.mode.subscribe().wait_for(|mode| !holds(mode)).await;
    }
}

/// Reads and writes of one socket from two sides at once.
struct Halves<'a>(&'a TcpStream);

impl<'a> Halves<'a> {
    const fn of(stream: &'a TcpStream) -> Self {
        Self(stream)
    }

    /// `None` at the end.
    async fn read(&self, into: &mut [u8]) -> Result<Option<usize>, Broken> {
        loop {
            self.0.readable().await.map_err(|_| Broken)?;
            match self.0.try_read(into) {
                Ok(0) => return Ok(None),
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Broken),
            }
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            self.0.writable().await.map_err(|_| Broken)?;
            match self.0.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Broken),
            }
        }
        Ok(())
    }
}

/// RST instead of FIN, when it is dropped.
pub fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
