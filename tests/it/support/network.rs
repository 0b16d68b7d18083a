//! A slow network between a browser and a server: a proxy whose connections take round trips to
//! open and to answer, and share one line each way.
//!
//! Chromium's own emulation delays requests, and opens connections for nothing. Lighthouse's page
//! on throttling calls that not accurate. This one delays packets: a connection costs a round trip,
//! and as in TCP ten packets go out before the first is acknowledged, then twice as many with each
//! round trip.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

const PACKET_BYTES: usize = 1_460;
/// Packets that a connection sends before it hears of any. Source: RFC 6928.
const WINDOW_PACKETS: usize = 10;

#[derive(Clone, Copy)]
pub struct Speed {
    pub name: &'static str,
    pub round_trip: Duration,
    pub down_bits_per_second: u32,
    pub up_bits_per_second: u32,
}

/// The slow phone of Lighthouse, its default. Source: github.com/GoogleChrome/lighthouse, the page
/// on throttling, "mobileSlow4G".
pub const SLOW_4G: Speed = Speed {
    name: "slow 4G",
    round_trip: Duration::from_millis(150),
    down_bits_per_second: 1_600_000,
    up_bits_per_second: 750_000,
};
/// "Mobile 3G - Slow" of WebPageTest.
pub const SLOW_3G: Speed = Speed {
    name: "slow 3G",
    round_trip: Duration::from_millis(400),
    down_bits_per_second: 400_000,
    up_bits_per_second: 400_000,
};

/// One direction of the line.
struct Line {
    bits_per_second: u32,
    free_at: Mutex<Instant>,
}

impl Line {
    fn new(bits_per_second: u32) -> Arc<Self> {
        Arc::new(Self {
            bits_per_second,
            free_at: Mutex::new(Instant::now()),
        })
    }

    /// When the last bit of this has left, behind all that was sent before.
    fn send(&self, bytes: usize) -> Instant {
        let bits = u32::try_from(bytes * 8).expect("a packet");
        let takes = Duration::from_secs(1) * bits / self.bits_per_second;
        let mut free_at = self.free_at.lock().expect("no panic holds it");
        *free_at = Instant::now().max(*free_at) + takes;
        *free_at
    }
}

/// Its connections are cut with it.
pub struct SlowNetwork {
    pub base: String,
    _carrying: JoinSet<()>,
}

impl SlowNetwork {
    /// In front of the server at `base`.
    pub async fn start(base: &str, speed: Speed) -> Self {
        let (scheme, to) = base.split_once("://").expect("a URL");
        let to: SocketAddr = to.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (down, up) = (
            Line::new(speed.down_bits_per_second),
            Line::new(speed.up_bits_per_second),
        );
        let mut carrying = JoinSet::new();
        carrying.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((browser, _)) = listener.accept().await {
                let (down, up) = (Arc::clone(&down), Arc::clone(&up));
                connections.spawn(async move {
                    // The browser's side of the system has accepted at once; over a network, the
                    // connection would stand after a round trip.
                    let open_at = Instant::now() + speed.round_trip;
                    let server = TcpStream::connect(to).await.expect("the server listens");
                    for stream in [&browser, &server] {
                        stream.set_nodelay(true).expect("a socket");
                    }
                    let (from_browser, to_browser) = browser.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::join!(
                        carry(from_browser, to_server, &up, speed.round_trip, open_at),
                        carry(from_server, to_browser, &down, speed.round_trip, open_at),
                    );
                });
            }
        });
        Self {
            base: format!("{scheme}://{address}"),
            _carrying: carrying,
        }
    }
}

/// Carries one direction of a connection until its end.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: &Line, round_trip: Duration, open_at: Instant) {
    let (sent, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let sending = async move {
        let (mut window, mut unheard) = (WINDOW_PACKETS, VecDeque::new());
        let mut packet = [0; PACKET_BYTES];
        while let Ok(bytes @ 1..) = from.read(&mut packet).await {
            sleep_until(open_at).await;
            // Each packet that was heard of makes room for two.
            while let Some(heard_at) = unheard.front().copied()
                && (heard_at <= Instant::now() || unheard.len() >= window)
            {
                sleep_until(heard_at).await;
                unheard.pop_front();
                window += 1;
            }
            let arrives_at = line.send(bytes) + round_trip / 2;
            unheard.push_back(arrives_at + round_trip / 2);
            if sent.send((arrives_at, packet[..bytes].to_vec())).is_err() {
                break;
            }
        }
    };
    let delivering = async move {
        while let Some((at, bytes)) = arriving.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(sending, delivering);
}
