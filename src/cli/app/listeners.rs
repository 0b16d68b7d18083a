//! The sockets of a process, bound before any other part starts: a port in use is reported at once.

use super::Roles;
use crate::{config::Settings, listener};
use anyhow::Context;
use std::{net::SocketAddr, os::fd::AsFd};
use tokio::net::TcpListener;

/// The listeners of a process: one for each role that is spoken to, and operations.
pub struct Listeners {
    pub(super) ingress: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
    pub(super) operations: TcpListener,
}

#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub ingress: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub operations: SocketAddr,
}

impl Listeners {
    /// Binds the addresses of the settings that these roles need; port 0 takes any free port.
    ///
    /// # Errors
    /// Names the setting whose address cannot be listened on, and why.
    pub async fn bind(settings: &Settings, roles: Roles) -> anyhow::Result<Self> {
        let (ingress, admin) = (&settings.receiver.ingress_address, &settings.admin.admin_address);
        Ok(Self {
            ingress: if roles.receiver {
                Some(listen(ingress, "HOOKSWITCH_INGRESS_ADDRESS").await?)
            } else {
                None
            },
            admin: if roles.admin {
                Some(listen(admin, "HOOKSWITCH_ADMIN_ADDRESS").await?)
            } else {
                None
            },
            operations: listen(&settings.admin.operations_address, "HOOKSWITCH_OPERATIONS_ADDRESS").await?,
        })
    }

    /// The operations socket once more, for the time until everything is loaded.
    pub(super) fn operations_while_starting(&self) -> anyhow::Result<TcpListener> {
        let copy = self.operations.as_fd().try_clone_to_owned()?;
        Ok(TcpListener::from_std(copy.into())?)
    }

    pub(super) fn addresses(&self) -> anyhow::Result<Addresses> {
        let of = |socket: &Option<TcpListener>| socket.as_ref().map(TcpListener::local_addr).transpose();
        Ok(Addresses {
            ingress: of(&self.ingress)?,
            admin: of(&self.admin)?,
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
