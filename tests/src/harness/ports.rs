//! Free TCP ports that stay ours: the one place where tests, the demo and local-aurora choose a port.
//!
//! A port is taken from below the range that outgoing connections use ([`EPHEMERAL`]), so that none of them sits on it between its choice and its
//! use, and reserved by an abstract unix socket of its number: these vanish with their holder, leave no file, and are seen by every process in
//! the same network namespace, which is just as far as a port reaches. The agent's tests include this file.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// Ports of what tests and the demo start themselves.
pub const HARNESS: Range<u16> = 10_000..20_000;
/// Ports that local-aurora gives to tasks, from as low as to leave room for parallel test runs (a real Mesos offers 31000-32000).
pub const TASKS: Range<u16> = 20_000..32_000;
/// First port from which Linux takes those of outgoing connections, unless configured otherwise.
pub const EPHEMERAL: u16 = 32_768;

/// A port reserved until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UnixListener,
}

impl Port {
    /// Reserves a port of [`HARNESS`] that nobody listens on at `address`. Call it inside the network namespace the port is for.
    pub fn reserve(address: &str) -> Result<Port> {
        let address = address.parse().with_context(|| format!("'{address}' is not an IP address"))?;
        Port::reserve_in(&HARNESS, address, &BTreeSet::new())
    }

    /// As [`Port::reserve`], from `range` and none of `avoid`.
    pub fn reserve_in(range: &Range<u16>, address: IpAddr, avoid: &BTreeSet<u16>) -> Result<Port> {
        // Where the next search begins: spread by process, so that parallel processes rarely meet, and no number comes again soon.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        ensure!(range.end <= ephemeral(), "ports up to {} are used by outgoing connections from {}", range.end, ephemeral());
        let count = u32::from(range.end - range.start);
        let home = std::process::id().wrapping_mul(2_654_435_761) % count;
        for _ in 0..count {
            let offset = NEXT.fetch_add(1, Ordering::Relaxed) % count;
            let number = range.start + u16::try_from((home + offset) % count).context("a range of ports")?;
            if avoid.contains(&number) {
                continue;
            }
            let name = SocketAddr::from_abstract_name(format!("aurora-redis-port-{number}"))?;
            let Ok(_reservation) = UnixListener::bind_addr(&name) else {
                continue;
            };
            if is_free(address, number) {
                return Ok(Port { number, _reservation });
            }
        }
        bail!("no free port at {address} from {} to {}", range.start, range.end - 1)
    }

    /// The port number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Binding every address fails when any one is taken: who gets the port may bind loopback as well as the host's address.
fn is_free(address: IpAddr, port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() && TcpListener::bind((address, port)).is_ok()
}

/// Where the range of outgoing connections begins here.
fn ephemeral() -> u16 {
    let configured = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    configured.ok().and_then(|range| range.split_whitespace().next()?.parse().ok()).unwrap_or(EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_reserved_port_is_free_and_given_only_once() {
        let ports: Vec<Port> = (0..50).map(|_| Port::reserve("127.0.0.1").unwrap()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), 50);
        assert!(numbers.iter().all(|n| HARNESS.contains(n) && *n < ephemeral()));
        TcpListener::bind((LOOPBACK, ports[0].number())).unwrap();
    }

    #[test]
    fn a_range_is_used_up_without_what_is_avoided_reserved_or_listened_on() {
        let first = Port::reserve("127.0.0.1").unwrap().number();
        let range = first..first + 4;
        let _listener = TcpListener::bind(("127.0.0.2", first + 1)).unwrap();
        let found: Vec<Port> =
            (0..4).map_while(|_| Port::reserve_in(&range, LOOPBACK, &BTreeSet::from([first + 2])).ok()).collect();
        assert!(found.iter().all(|port| port.number() == first || port.number() == first + 3), "{found:?}");
        assert!(Port::reserve_in(&range, LOOPBACK, &BTreeSet::from([first + 2])).is_err());
    }

    #[test]
    fn a_range_that_outgoing_connections_use_is_refused() {
        let error = Port::reserve_in(&(ephemeral()..ephemeral() + 9), LOOPBACK, &BTreeSet::new()).unwrap_err();
        assert!(error.to_string().contains("outgoing"), "{error}");
    }
}
