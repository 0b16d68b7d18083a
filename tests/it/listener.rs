//! The accept loop, through real sockets: deadlines, shares, and stopping.

use axum::{Router, body::Bytes, routing::post};
use hookswitch::listener::{self, Limits};
use std::{
    net::SocketAddr,
    os::fd::AsFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const LONG_BYTES: usize = 32 << 20;

struct Running {
    address: SocketAddr,
    soft: CancellationToken,
    hard: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(limits: Limits) -> Running {
    start_on(listener::bind("127.0.0.1:0").await.unwrap(), limits)
}

fn start_on(listener: TcpListener, limits: Limits) -> Running {
    // `/slow` waits for the whole body, `/wait` for ever: what a handler that hangs looks like. The
    // answer of `/long` fits into no buffer of the kernel's.
    let router = Router::new()
        .route("/slow", post(async |body: Bytes| format!("{} bytes", body.len())))
        .route("/long", post(async || vec![b'x'; LONG_BYTES]))
        .route("/wait", post(async || std::future::pending::<()>().await));
    let address = listener.local_addr().unwrap();
    let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
    #[expect(clippy::disallowed_methods, reason = "the handle is kept and joined")]
    let task = tokio::spawn(listener::serve(listener, router, limits, soft.clone(), hard.clone()));
    Running {
        address,
        soft,
        hard,
        task,
    }
}

impl Running {
    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }
}

/// Reads to the end; a reset counts as the end.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes))
        .await
        .expect("the connection ends");
    String::from_utf8(bytes).unwrap()
}

/// Reads until `end` was seen.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer))
            .await
            .expect("an answer")
            .unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    text
}

fn limits() -> Limits {
    Limits {
        name: "test",
        head_seconds_max: Duration::from_millis(300),
        idle_seconds_max: Duration::from_millis(300),
        ..Limits::default()
    }
}

const REQUEST: &[u8] = b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_head_that_never_ends_gets_408_and_an_idle_connection_is_closed_without_a_word() {
    let running = start(limits()).await;
    let begun = Instant::now();
    let mut half = running.send(b"POST /slow HTTP/1.1\r\nhost:").await;
    let mut idle = running.send(b"").await;
    let mut kept_alive = running.send(REQUEST).await;
    assert!(read_all(&mut half).await.starts_with("HTTP/1.1 408 "));
    assert_eq!(read_all(&mut idle).await, "");
    assert!(read_all(&mut kept_alive).await.ends_with("2 bytes"));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "closed after {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_head_sent_byte_by_byte_has_the_same_deadline() {
    let running = start(limits()).await;
    let mut stream = running.send(b"").await;
    let begun = Instant::now();
    let mut buffer = [0; 256];
    for byte in b"POST /slow HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::select! {
            read = stream.read(&mut buffer) => {
                assert!(read.is_err() || buffer.starts_with(b"HTTP/1.1 408 "));
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

/// A machine that is busy looks at a connection late. By then its deadline has passed, and its
/// request is here.
#[tokio::test(flavor = "current_thread")]
async fn a_request_that_is_here_when_its_deadline_is_looked_at_is_answered() {
    let running = start(limits()).await;
    let mut late = std::net::TcpStream::connect(running.address).unwrap();
    // The time of the first connection has begun once the second is answered.
    let mut other = running.send(REQUEST).await;
    read_until(&mut other, "2 bytes").await;
    // Nothing of the listener runs while this test does not wait.
    std::thread::sleep(limits().head_seconds_max * 2);
    std::io::Write::write_all(&mut late, REQUEST).unwrap();
    late.set_nonblocking(true).unwrap();
    let mut late = TcpStream::from_std(late).unwrap();
    read_until(&mut late, "2 bytes").await;
}

/// A balancer keeps its connections for a minute and sends the next request over one that we must
/// not be closing.
#[tokio::test]
async fn an_idle_connection_outlives_the_deadline_of_heads_and_slow_heads_do_not() {
    let head_seconds_max = Duration::from_millis(200);
    let running = start(Limits {
        head_seconds_max,
        idle_seconds_max: Duration::from_secs(75),
        ..limits()
    })
    .await;
    let mut kept_alive = running.send(REQUEST).await;
    let mut slow = running.send(REQUEST).await;
    read_until(&mut kept_alive, "2 bytes").await;
    read_until(&mut slow, "2 bytes").await;
    // The first silent connection shows that the deadline of heads has passed since.
    let mut silent = running.send(b"").await;
    assert_eq!(read_all(&mut silent).await, "");
    kept_alive.write_all(REQUEST).await.unwrap();
    read_until(&mut kept_alive, "2 bytes").await;
    let begun = Instant::now();
    slow.write_all(b"POST /slow HT").await.unwrap();
    assert!(read_all(&mut slow).await.starts_with("HTTP/1.1 408 "));
    let took = begun.elapsed();
    assert!(took >= head_seconds_max && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn an_address_holds_its_share_and_no_more() {
    static REFUSED: Mutex<Vec<listener::EarlyRefusal>> = Mutex::new(Vec::new());
    let state = Arc::new(listener::ListenerState::default());
    let limits = Limits {
        connections_per_address_max: 2,
        head_seconds_max: Duration::from_secs(10),
        on_refused: |refused| REFUSED.lock().unwrap().push(refused),
        state: Arc::clone(&state),
        ..limits()
    };
    let running = start(limits).await;
    let (mut first, mut second) = (running.send(REQUEST).await, running.send(REQUEST).await);
    read_until(&mut first, "2 bytes").await;
    read_until(&mut second, "2 bytes").await;
    let mut third = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(read_all(&mut third).await, "");
    assert_eq!(*REFUSED.lock().unwrap(), [listener::EarlyRefusal::TooManyFromAddress]);
    // Another address is served, and so is this one when it gives one back.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(running.address).await.unwrap();
    other.write_all(REQUEST).await.unwrap();
    read_until(&mut other, "2 bytes").await;
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(5);
    while state.open() > 2 {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    let mut fourth = running.send(REQUEST).await;
    read_until(&mut fourth, "2 bytes").await;
}

#[tokio::test]
async fn more_connections_than_the_limit_wait_and_are_served_as_others_end() {
    let running = start(Limits {
        connections_max: 3,
        ..limits()
    })
    .await;
    // Unknown senders say half a word each and stay; the deadline on heads frees their places,
    // three at a time.
    let mut unknown = Vec::new();
    for _ in 0..6 {
        unknown.push(running.send(b"POST").await);
    }
    let mut known = running.send(REQUEST).await;
    read_until(&mut known, "2 bytes").await;
}

#[tokio::test]
async fn idle_and_half_sent_connections_do_not_hold_up_a_soft_stop_and_a_begun_request_is_finished() {
    let running = start(Limits {
        head_seconds_max: Duration::from_mins(1),
        idle_seconds_max: Duration::from_mins(1),
        ..limits()
    })
    .await;
    let mut idle = running.send(REQUEST).await;
    read_until(&mut idle, "2 bytes").await;
    let mut half = running.send(b"POST /slow HT").await;
    let mut begun = running
        .send(b"POST /slow HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .await;
    read_until(&mut begun, "100 Continue").await;
    running.soft.cancel();
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(read_all(&mut half).await, "");
    assert!(!running.task.is_finished(), "a begun request is waited for");
    begun.write_all(b"hi").await.unwrap();
    assert!(read_all(&mut begun).await.ends_with("2 bytes"));
    tokio::time::timeout(Duration::from_secs(5), running.task)
        .await
        .expect("ends after the last request")
        .unwrap();
    assert!(
        TcpStream::connect(running.address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn a_stop_waits_for_a_reader_that_is_slow_with_its_answer() {
    let running = start(limits()).await;
    let mut stream = running
        .send(b"POST /long HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        .await;
    let head = read_until(&mut stream, "x").await;
    running.soft.cancel();
    // Longer than a stop waits for a connection without a request.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rest = read_all(&mut stream).await;
    let body = head.split_once("\r\n\r\n").expect("a head").1.len() + rest.len();
    assert_eq!(body, LONG_BYTES);
    tokio::time::timeout(Duration::from_secs(5), running.task)
        .await
        .expect("ends after the answer")
        .unwrap();
}

/// A balancer then opens its next connection elsewhere. Without the header it would send a
/// request over this one at the moment of its close.
#[tokio::test]
async fn who_leaves_still_answers_and_closes_the_connection_with_the_answer() {
    let leaving = CancellationToken::new();
    let running = start(Limits {
        leaving: leaving.clone(),
        ..Limits::default()
    })
    .await;
    let mut kept = running.send(REQUEST).await;
    let answer = read_until(&mut kept, "2 bytes").await;
    assert!(!answer.contains("connection: close"), "{answer}");
    leaving.cancel();
    kept.write_all(REQUEST).await.unwrap();
    let mut fresh = running.send(REQUEST).await;
    for stream in [&mut kept, &mut fresh] {
        let answer = read_all(stream).await;
        assert!(
            answer.contains("200 OK") && answer.contains("connection: close"),
            "{answer}"
        );
    }
}

/// The kernel resets connections that wait when a listener is closed.
#[tokio::test(flavor = "current_thread")]
async fn a_connection_that_waits_to_be_accepted_at_the_stop_is_answered() {
    let running = start(Limits::default()).await;
    // The connection is made by the kernel. The acceptor runs only when this test waits.
    let mut waiting = std::net::TcpStream::connect(running.address).unwrap();
    std::io::Write::write_all(&mut waiting, REQUEST).unwrap();
    running.soft.cancel();
    waiting.set_nonblocking(true).unwrap();
    let mut waiting = TcpStream::from_std(waiting).unwrap();
    let answer = read_all(&mut waiting).await;
    assert!(answer.contains("2 bytes"), "{answer:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_that_waits_is_left_to_the_acceptor_that_goes_on() {
    let socket = listener::bind("127.0.0.1:0").await.unwrap();
    let copy = socket.as_fd().try_clone_to_owned().unwrap();
    let first = start_on(
        TcpListener::from_std(copy.into()).unwrap(),
        Limits {
            hands_over: true,
            ..Limits::default()
        },
    );
    let mut waiting = std::net::TcpStream::connect(first.address).unwrap();
    std::io::Write::write_all(&mut waiting, REQUEST).unwrap();
    first.soft.cancel();
    tokio::time::timeout(Duration::from_secs(5), first.task)
        .await
        .expect("it has nothing to do")
        .unwrap();
    waiting.set_nonblocking(true).unwrap();
    assert!(waiting.peek(&mut [0; 1]).is_err(), "nobody has answered or closed it");
    let mut waiting = TcpStream::from_std(waiting).unwrap();
    let second = start_on(socket, Limits::default());
    read_until(&mut waiting, "2 bytes").await;
    second.soft.cancel();
}

#[tokio::test]
async fn a_hard_stop_cuts_off_what_hangs() {
    let running = start(limits()).await;
    let mut hangs = running
        .send(b"POST /wait HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        .await;
    running.soft.cancel();
    running.hard.cancel();
    assert_eq!(read_all(&mut hangs).await, "");
    tokio::time::timeout(Duration::from_secs(5), running.task)
        .await
        .expect("ends at once")
        .unwrap();
}

#[tokio::test]
async fn a_sender_that_ends_its_side_still_reads_its_answer() {
    let running = start(limits()).await;
    let mut stream = running.send(REQUEST).await;
    stream.shutdown().await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("2 bytes"));
}

/// A burst beyond the backlog is dropped by the kernel and tried again by the sender after a
/// second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connects_at_once_are_all_answered_without_a_second_try() {
    const CONNECTS: usize = 1_000;
    listener::raise_file_limit();
    let running = start(Limits {
        connections_max: 2 * CONNECTS,
        connections_per_address_max: 2 * CONNECTS,
        ..Limits::default()
    })
    .await;
    let address = running.address;
    let begun = Instant::now();
    let mut connects = tokio::task::JoinSet::new();
    for _ in 0..CONNECTS {
        connects.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let request = b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab";
            stream.write_all(request).await.expect("sent");
            let answer = read_all(&mut stream).await;
            (answer, begun.elapsed())
        });
    }
    let mut longest = Duration::ZERO;
    while let Some(done) = connects.join_next().await {
        let (answer, took) = done.expect("no panic");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        longest = longest.max(took);
    }
    println!("{CONNECTS} connects at once: the last was answered after {longest:?}");
    // A debug build is ten times slower than the one that is released; a second try costs a second.
    let most = Duration::from_millis(if cfg!(debug_assertions) { 900 } else { 200 });
    assert!(longest < most, "the last of {CONNECTS} was answered after {longest:?}");
    running.soft.cancel();
    running.task.await.unwrap();
}
