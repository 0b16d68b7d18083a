//! The sockets of a process, bound before any other part starts: a port in use is reported at once.

use crate::{config::Settings, listener};
use anyhow::Context;
use std::{net::SocketAddr, os::fd::AsFd};
use tokio::net::TcpListener;

/// The three listeners of a process.
pub struct Listeners {
    pub(super) ingress: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) operations: TcpListener,
}

#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
    pub operations: SocketAddr,
}

impl Listeners {
    /// Binds the addresses of the settings; port 0 takes any free port.
    ///
    /// # Errors
    /// Names the setting whose address cannot be listened on, and why.
    pub async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            ingress: listen(&settings.receiver.ingress_address, "HOOKSWITCH_INGRESS_ADDRESS").await?,
            admin: listen(&settings.admin.admin_address, "HOOKSWITCH_ADMIN_ADDRESS").await?,
            operations: listen(&settings.admin.operations_address, "HOOKSWITCH_OPERATIONS_ADDRESS").await?,
        })
    }

    /// The operations socket once more, for the time until everything is loaded.
    pub(super) fn operations_while_starting(&self) -> anyhow::Result<TcpListener> {
        let copy = self.operations.as_fd().try_clone_to_owned()?;
        Ok(TcpListener::from_std(copy.into())?)
    }

    pub(super) fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            ingress: self.ingress.local_addr()?,
            admin: self.admin.local_addr()?,
            operations: self.operations.local_addr()?,
        })
    }
}

/// Binds one address that a setting names.
async fn listen(address: &str, setting: &str) -> anyhow::Result<TcpListener> {
    listener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({setting})"))
        .map_err(|error| match error.downcast_ref::<std::io::Error>() {
            Some(io) if io.kind() == std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "cannot listen on {address} ({setting}): the port is in use; stop the process that holds it, or \
                choose another port (`dev` has --port-base)"
            ),
            _ => error,
        })
}
