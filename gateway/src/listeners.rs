//! The sockets that a gateway listens on. They outlive a gateway that restarts, so that nobody is refused meanwhile:
//! who connects waits in the system's queue for the next one.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::net::TcpListener;

use crate::{StartError, caller::Entrance};

/// Sockets that listen, all with the same port, and one for a proxy where there is one. Cloning them is cheap; they
/// close with the last clone.
#[derive(Clone)]
pub struct Listeners {
    sockets: Vec<Socket>,
    /// For a proxy on this host: see [`crate::settings::ProxyPort`].
    proxy: Option<Socket>,
}

#[derive(Clone)]
struct Socket {
    /// The address that was asked for; its port may be 0.
    wanted: SocketAddr,
    bound: SocketAddr,
    listener: Arc<TcpListener>,
}

impl Listeners {
    /// Binds every address, all with the same port; port 0 takes a free one. An address that the host does not have
    /// is left out, unless it is the first.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound, or none is given.
    pub async fn bind(wanted: &[SocketAddr]) -> Result<Self, StartError> {
        Self::none().rebind(wanted).await
    }

    pub(crate) fn none() -> Self {
        Self { sockets: Vec::new(), proxy: None }
    }

    /// The same with a socket for a proxy, or without one. One that is open stays.
    ///
    /// # Errors
    ///
    /// When loopback has no free port.
    pub(crate) async fn with_proxy(mut self, is_wanted: bool) -> Result<Self, StartError> {
        if !is_wanted {
            self.proxy = None;
        } else if self.proxy.is_none() {
            let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let bind = |source| StartError::Bind { address: wanted, source };
            let listener = TcpListener::bind(wanted).await.map_err(bind)?;
            let bound = listener.local_addr().map_err(bind)?;
            self.proxy = Some(Socket { wanted, bound, listener: Arc::new(listener) });
        }
        Ok(self)
    }

    /// Sockets for `wanted`: those that there are already, and new ones for the rest. What is no longer wanted closes
    /// when the last clone of `self` does.
    ///
    /// An address that overlaps with an open one on the same port, as 0.0.0.0 does with all, can only be bound once that
    /// one is closed: then this fails with `AddrInUse`.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub async fn rebind(&self, wanted: &[SocketAddr]) -> Result<Self, StartError> {
        let mut sockets: Vec<Socket> = Vec::with_capacity(wanted.len());
        for &address in wanted {
            if let Some(kept) = self.sockets.iter().find(|socket| socket.wanted == address) {
                sockets.push(kept.clone());
                continue;
            }
            let mut asked = address;
            if asked.port() == 0
                && let Some(first) = sockets.first()
            {
                asked.set_port(first.bound.port());
            }
            let bound = match TcpListener::bind(asked).await {
                Ok(listener) => listener.local_addr().map(|bound| (bound, listener)),
                Err(error) => Err(error),
            };
            match bound {
                Ok((bound, listener)) => {
                    sockets.push(Socket { wanted: address, bound, listener: Arc::new(listener) });
                }
                // The host has no IPv6, say: the addresses before this one do.
                Err(source) if source.kind() == io::ErrorKind::AddrNotAvailable && !sockets.is_empty() => {
                    tracing::debug!(%address, "this host does not have the address");
                }
                Err(source) => return Err(StartError::Bind { address: asked, source }),
            }
        }
        if sockets.is_empty() {
            Err(StartError::NoAddress)
        } else {
            Ok(Self { sockets, proxy: self.proxy.clone() })
        }
    }

    /// The addresses, with the port that they really have.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|socket| socket.bound).collect()
    }

    /// Whether binding `wanted` asks for one of these sockets to be closed first.
    #[must_use]
    pub fn stand_in_the_way_of(&self, wanted: &[SocketAddr]) -> bool {
        wanted.iter().any(|address| {
            self.sockets.iter().any(|socket| {
                let (old, new) = (socket.bound, *address);
                let one_is_any = old.ip().is_unspecified() || new.ip().is_unspecified();
                socket.wanted != new && old.port() == new.port() && (one_is_any || old.ip() == new.ip())
            })
        })
    }

    /// Where a proxy on this host brings what others ask, if it does.
    #[must_use]
    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.proxy.as_ref().map(|socket| socket.bound)
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = (Arc<TcpListener>, Entrance)> {
        let own = self.sockets.iter().map(|socket| (Arc::clone(&socket.listener), Entrance::Own));
        own.chain(self.proxy.iter().map(|socket| (Arc::clone(&socket.listener), Entrance::Proxy)))
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sockets.iter().map(|socket| socket.bound)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_port(host: [u8; 4]) -> SocketAddr {
        (host, 0).into()
    }

    #[tokio::test]
    async fn what_is_wanted_again_stays_open() {
        let loopback = any_port([127, 0, 0, 1]);
        let first = Listeners::bind(&[loopback]).await.expect("a port is free");
        let again = first.rebind(&[loopback]).await.expect("it is kept");
        assert_eq!(first.addresses(), again.addresses());
        let more = again.rebind(&[loopback, any_port([127, 0, 0, 2])]).await.expect("a port is free");
        let addresses = more.addresses();
        assert_eq!((addresses[0], addresses[1].port()), (first.addresses()[0], addresses[0].port()));
    }

    #[tokio::test]
    async fn the_port_of_a_proxy_is_another_one_and_stays_open() {
        let loopback = any_port([127, 0, 0, 1]);
        let first = Listeners::bind(&[loopback]).await.expect("a port is free");
        assert_eq!(first.proxy_address(), None);
        let first = first.with_proxy(true).await.expect("a port is free");
        let proxy = first.proxy_address().expect("it is open");
        assert!(proxy.ip().is_loopback() && !first.addresses().contains(&proxy));
        let again = first.rebind(&[loopback]).await.expect("it is kept");
        let again = again.with_proxy(true).await.expect("it is kept");
        assert_eq!(again.proxy_address(), Some(proxy));
        assert_eq!(again.with_proxy(false).await.expect("it closes").proxy_address(), None);
    }

    #[tokio::test]
    async fn every_address_stands_in_the_way_of_all_on_its_port() {
        let first = Listeners::bind(&[any_port([127, 0, 0, 1])]).await.expect("a port is free");
        let port = first.addresses()[0].port();
        assert!(first.stand_in_the_way_of(&[([0, 0, 0, 0], port).into()]));
        assert!(!first.stand_in_the_way_of(&[([0, 0, 0, 0], port.wrapping_add(1).max(1)).into()]));
        assert!(!first.stand_in_the_way_of(&[any_port([127, 0, 0, 1])]));
        assert!(!first.stand_in_the_way_of(&[([127, 0, 0, 2], port).into()]));
    }

    #[tokio::test]
    async fn no_address_is_an_error() {
        assert!(matches!(Listeners::bind(&[]).await, Err(StartError::NoAddress)));
    }
}
