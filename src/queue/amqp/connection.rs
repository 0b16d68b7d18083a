//! One connection, its events, and a hard way to end it.
//!
//! lapin drives each connection on a thread of its own, which ends only with the socket. A broker
//! that never answers would keep that thread for ever. So a [`Link`] keeps a handle of the socket,
//! and dropping the link shuts the socket down.

use super::{AmqpSettings, url::Address};
use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt, future::ready, stream::BoxStream};
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind, Event,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
    tcp::OwnedTLSConfig,
    uri::AMQPScheme,
};
use std::{
    fmt, io,
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Time to make a connection: name look-up, TCP, TLS and handshake.
const CONNECT_SECONDS: Duration = Duration::from_secs(5);
/// Time for one request to the broker, such as a channel or a declaration.
const ANSWER_SECONDS: Duration = Duration::from_secs(10);
/// Time for an orderly close; then the socket is shut down. Acks that a busy broker has not read by
/// then are lost, and their events come again.
const CLOSE_SECONDS: Duration = Duration::from_secs(3);

/// Why there is no connection, or why it ended.
#[derive(Clone, Debug)]
pub(super) struct LinkError {
    pub reason: Arc<str>,
    pub fault: Fault,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// May be gone at the next try.
    Passing,
    /// The queue or other thing of the request does not exist.
    Missing,
    /// Trying again cannot help: the broker refuses the user, the virtual host or a declaration.
    Final,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl LinkError {
    pub fn new(reason: impl Into<Arc<str>>) -> Self {
        Self {
            reason: reason.into(),
            fault: Fault::Passing,
        }
    }
}

impl From<lapin::Error> for LinkError {
    fn from(error: lapin::Error) -> Self {
        let fault = match error.kind() {
            ErrorKind::ProtocolError(error) => match error.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Fault::Missing,
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED | AMQPSoftError::PRECONDITIONFAILED)
                | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => Fault::Final,
                _ => Fault::Passing,
            },
            _ => Fault::Passing,
        };
        Self {
            reason: error.to_string().into(),
            fault,
        }
    }
}

pub(super) struct Link {
    connection: Connection,
    socket: SocketHandle,
}

/// The broker's events of a connection: blocked, unblocked, failed. An error of one channel is none
/// of them, because the user of the channel gets it.
pub(super) type Events = BoxStream<'static, Event>;

impl Link {
    /// Connects to the address within the time that a connection may take.
    pub async fn open(address: &Address, settings: &AmqpSettings, name: &str) -> Result<(Self, Events), LinkError> {
        let socket = SocketHandle::default();
        let opening = Self::connect(address, settings, name, socket.clone());
        match tokio::time::timeout(CONNECT_SECONDS, opening).await {
            Ok(Ok(connection)) => {
                let is_of_a_channel =
                    |event: &Event| matches!(event, Event::Error(error) if error.is_amqp_soft_error());
                let events = connection.events_listener();
                let events = events.filter(move |event| ready(!is_of_a_channel(event))).boxed();
                Ok((Self { connection, socket }, events))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                socket.shut_down();
                Err(LinkError::new(format!(
                    "{address} did not answer within {CONNECT_SECONDS:?}"
                )))
            }
        }
    }

    async fn connect(
        address: &Address,
        settings: &AmqpSettings,
        name: &str,
        socket: SocketHandle,
    ) -> Result<Connection, LinkError> {
        let Address(uri) = address;
        let host = uri.authority.host.clone();
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), uri.authority.port))
            .await
            .map_err(|error| LinkError::new(format!("{address} cannot be found: {error}")))?
            .collect();
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let encryption = address.is_encrypted().then(|| OwnedTLSConfig {
            identity: None,
            cert_chain: settings.ca_certificates.as_deref().map(str::to_owned),
        });
        let runtime = lapin::runtime::default_runtime()?;
        let reactor = runtime.clone();
        let connect = async move |_, _| {
            let stream = AsyncTcpStream::connect(&reactor, found.clone()).await?;
            if let AsyncTcpStream::Plain(stream) = &stream {
                let stream = stream.get_ref();
                stream.set_nodelay(true)?;
                socket.keep(stream)?;
            }
            match &encryption {
                None => Ok(stream),
                Some(encryption) => Ok(stream.into_tls(&host, encryption.as_ref()).await?),
            }
        };
        Connection::connector(uri.clone(), runtime, connect, properties)
            .await
            .map_err(|error| {
                let LinkError { reason, fault } = error.into();
                LinkError {
                    reason: format!("{address}: {reason}").into(),
                    fault,
                }
            })
    }

    pub async fn channel(&self) -> Result<Channel, LinkError> {
        answered("open a channel", self.connection.create_channel()).await
    }

    /// As [`Link::channel`], with an error that names what the broker objects to, and no deadline.
    pub async fn bare_channel(&self) -> lapin::Result<Channel> {
        self.connection.create_channel().await
    }

    /// The largest frame that both sides take.
    pub fn frame_bytes_max(&self) -> usize {
        self.connection.configuration().frame_max() as usize
    }

    pub fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Closes in order, so that the broker gives this connection's deliveries back at once.
    pub async fn close(self) {
        let _ = tokio::time::timeout(CLOSE_SECONDS, self.connection.close(200, "closed".into())).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.shut_down();
    }
}

/// The version by which a broker greets, before anybody logs in. lapin does not tell it.
pub(super) async fn read_version(address: &Address, settings: &AmqpSettings) -> Result<Option<String>, LinkError> {
    let failed = |error: io::Error| LinkError::new(format!("{address}: {error}"));
    match tokio::time::timeout(CONNECT_SECONDS, greeting(address, settings)).await {
        Ok(greeting) => greeting.map(|greeting| version_of(&greeting)).map_err(failed),
        Err(_) => Err(LinkError::new(format!(
            "{address} did not answer within {CONNECT_SECONDS:?}"
        ))),
    }
}

/// The longest first frame that is read.
const GREETING_BYTES_MAX: u32 = 64 << 10;

/// The payload of the broker's first frame, `connection.start`.
async fn greeting(Address(uri): &Address, settings: &AmqpSettings) -> io::Result<Vec<u8>> {
    let host = &uri.authority.host;
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), uri.authority.port))
        .await?
        .collect();
    let runtime = lapin::runtime::default_runtime().map_err(io::Error::other)?;
    let mut stream = AsyncTcpStream::connect(&runtime, found).await?;
    if uri.scheme == AMQPScheme::AMQPS {
        let encryption = OwnedTLSConfig {
            identity: None,
            cert_chain: settings.ca_certificates.as_deref().map(str::to_owned),
        };
        stream = stream.into_tls(host, encryption.as_ref()).await?;
    }
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    // Type, channel, and the size of the payload.
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; size.min(GREETING_BYTES_MAX) as usize];
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}

/// The text of the property `version`: its name behind its length, `S`, a length of four bytes.
fn version_of(greeting: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\x07versionS";
    let at = greeting.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let (size, rest) = greeting.get(at..)?.split_first_chunk::<4>()?;
    let text = rest.get(..u32::from_be_bytes(*size) as usize)?;
    std::str::from_utf8(text).ok().map(str::to_owned)
}

/// The answer to one request, or an error when none comes in time.
pub(super) async fn answered<T>(doing: &str, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, LinkError> {
    match tokio::time::timeout(ANSWER_SECONDS, answer).await {
        Ok(answer) => answer.map_err(LinkError::from),
        Err(_) => Err(LinkError::new(format!(
            "no answer within {ANSWER_SECONDS:?} to: {doing}"
        ))),
    }
}

/// A second handle of a connection's socket.
#[derive(Clone, Default)]
struct SocketHandle(Arc<Mutex<Socket>>);

#[derive(Default)]
struct Socket {
    socket: Option<TcpStream>,
    is_shut_down: bool,
}

impl SocketHandle {
    fn keep(&self, stream: &tokio::net::TcpStream) -> io::Result<()> {
        let socket = TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_shut_down {
            return Err(io::ErrorKind::TimedOut.into());
        }
        held.socket = Some(socket);
        Ok(())
    }

    fn shut_down(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.is_shut_down = true;
        if let Some(socket) = held.socket.take() {
            // An error means that it is shut already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_a_greeting_or_is_none() {
        let greeting = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x40\x07versionS\x00\x00\x00\x063.10.8\x08platform";
        assert_eq!(version_of(greeting).as_deref(), Some("3.10.8"));
        for end in 0..greeting.len() - 9 {
            let cut = version_of(&greeting[..end]);
            assert!(cut.is_none(), "{end}: {cut:?}");
        }
    }
}
