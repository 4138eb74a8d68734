//! Free TCP ports that stay ours.
//!
//! A port is taken from below the range that outgoing connections use, and reserved by an abstract unix socket of its number: these vanish with
//! their holder, leave no file, and are seen by every test process in the same network namespace.

use std::net::{IpAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Where the next search begins: spread by process, so that parallel test processes rarely meet.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port reserved until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UnixListener,
}

impl Port {
    /// Reserves a port that nobody listens on at `address`. Call it inside the network namespace the port is for.
    pub fn reserve(address: &str) -> Result<Port> {
        let ip: IpAddr = address.parse().with_context(|| format!("'{address}' is not an IP address"))?;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST
                + (u32::from(step) + std::process::id().wrapping_mul(2654435761) % u32::from(COUNT)).rem_euclid(COUNT.into())
                    as u16;
            let name = SocketAddr::from_abstract_name(format!("aurora-redis-port-{number}"))?;
            let Ok(_reservation) = UnixListener::bind_addr(&name) else {
                continue;
            };
            if TcpListener::bind((ip, number)).is_ok() {
                return Ok(Port { number, _reservation });
            }
        }
        bail!("no free port at {address} from {FIRST} to {}", FIRST + COUNT - 1)
    }

    /// The port number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_free_and_given_only_once() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve("127.0.0.1").unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        TcpListener::bind(("127.0.0.1", numbers[0])).unwrap();
    }
}
