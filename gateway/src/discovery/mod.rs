//! Being found: announces a gateway with multicast DNS on the networks where it can be reached, and makes the DNS
//! records by which it is found from elsewhere.
//!
//! Multicast DNS runs beside the gateway: in a thread of the responder's own, under a task that starts it again when
//! it fails, five times at most. Nothing that arrives from a network, and no name or interface of the host, reaches
//! the gateway itself.
//!
//! A gateway is announced where it listens, and nowhere else: on the interfaces that carry an address it is bound
//! to, with these addresses. One that listens on loopback alone is announced on the loopback interface, where the
//! command line of the same machine finds it and no network hears of it.

mod advertiser;
mod names;
mod reach;
mod zone;

pub(crate) use advertiser::Advertiser;
pub use names::{Names, TlsHint, hints};
pub use zone::Zone;
