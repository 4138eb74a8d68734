//! HAProxy's runtime API on its stats socket: one line of commands per connection, each with a deadline.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer, bytes: a slot takes about 120.
const MAX_ANSWER: u64 = 4 << 20;
/// Bit of `srv_admin_state`: maintenance forced by configuration or command.
const FORCED_MAINTENANCE: u32 = 0x01;
/// Values of `srv_op_state` from which on a server gets connections.
const STARTING: u32 = 1;

/// Why HAProxy could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("HAProxy's socket {socket} does not answer; is HAProxy running with `stats socket {socket} level admin`?")]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No whole answer in time.
    #[error("HAProxy did not answer on {socket} within {TIMEOUT:?}")]
    Timeout {
        /// The socket.
        socket: PathBuf,
    },
    /// Something else answers there, or another version.
    #[error("HAProxy's answer on {socket} is not understood: {message}")]
    Answer {
        /// The socket.
        socket: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// One server line of HAProxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Backend.
    pub backend: String,
    /// Server.
    pub name: String,
    /// Address connections go to.
    pub address: Option<IpAddr>,
    /// Port connections go to.
    pub port: u16,
    /// Address checked; absent when it is the server's own.
    pub check_address: Option<IpAddr>,
    /// Port checked; 0 when it is the server's own.
    pub check_port: u16,
    /// Out of service by configuration or command.
    pub maintenance: bool,
    /// Whether its check passes, so that it gets connections.
    pub up: bool,
}

/// A HAProxy reached over its socket.
#[derive(Clone, Debug)]
pub struct Runtime {
    socket: PathBuf,
}

impl Runtime {
    /// Speaks over the unix socket at this path. Connects anew for each line of commands, so HAProxy may be restarted.
    pub fn new(socket: &Path) -> Runtime {
        Runtime { socket: socket.into() }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends commands, which HAProxy runs one after the other without serving anything in between, and returns what it says to them.
    pub async fn run(&self, commands: &[String]) -> Result<String, Error> {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(format!("{}\n", commands.join(";")).as_bytes()).await?;
            let mut answer = Vec::new();
            stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(answer) => answer.map_err(|source| Error::Socket { socket: self.socket.clone(), source }),
            Err(_) => Err(Error::Timeout { socket: self.socket.clone() }),
        }
    }

    /// All servers of all backends.
    pub async fn slots(&self) -> Result<Vec<Slot>, Error> {
        let answer = self.run(&["show servers state".into()]).await?;
        parse_slots(&answer).map_err(|message| Error::Answer { socket: self.socket.clone(), message })
    }
}

/// Reads `show servers state`: a version, a header that names the columns, a line per server.
fn parse_slots(answer: &str) -> Result<Vec<Slot>, String> {
    let mut lines = answer.lines().map(str::trim).filter(|line| !line.is_empty());
    let version = lines.next().unwrap_or_default();
    if version != "1" {
        return Err(format!("expected version 1 of the server state, got '{}'", version.chars().take(80).collect::<String>()));
    }
    let header: Vec<&str> = lines.next().and_then(|line| line.strip_prefix('#')).unwrap_or_default().split_whitespace().collect();
    lines.filter(|line| !line.starts_with('#')).map(|line| parse_slot(&header, line)).collect()
}

fn parse_slot(header: &[&str], line: &str) -> Result<Slot, String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let field = |name: &str| {
        let at = header.iter().position(|column| *column == name).ok_or_else(|| format!("no column {name}"))?;
        fields.get(at).copied().ok_or_else(|| format!("a line is too short: {line}"))
    };
    let number = |name: &str| -> Result<u32, String> { field(name)?.parse().map_err(|_| format!("{name} is no number: {line}")) };
    let port = |name: &str| -> Result<u16, String> { field(name)?.parse().map_err(|_| format!("{name} is no port: {line}")) };
    Ok(Slot {
        backend: field("be_name")?.into(),
        name: field("srv_name")?.into(),
        address: field("srv_addr")?.parse().ok(),
        port: port("srv_port")?,
        check_address: field("srv_check_addr")?.parse().ok(),
        check_port: port("srv_check_port")?,
        maintenance: number("srv_admin_state")? & FORCED_MAINTENANCE != 0,
        up: number("srv_op_state")? >= STARTING,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change \
        srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port \
        srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n\
        2 redis_master 1 slot1 10.0.0.1 2 4 1 1 2 15 3 1 14 0 0 0 - 7001 - 0 33327 10.0.0.1 - 0\n\
        2 redis_master 2 slot2 127.0.0.1 0 5 1 1 2 1 0 0 14 0 0 0 - 1 - 0 0 - - 0\n\n";

    #[test]
    fn the_state_of_servers_is_read() {
        let slots = parse_slots(ANSWER).unwrap();
        assert_eq!(slots.len(), 2);
        assert_eq!((slots[0].address, slots[0].port, slots[0].check_port), ("10.0.0.1".parse().ok(), 7001, 33327));
        assert!(slots[0].up && !slots[0].maintenance);
        assert!(!slots[1].up && slots[1].maintenance && slots[1].check_address.is_none());
    }

    #[test]
    fn other_answers_are_refused_with_a_reason() {
        for (answer, part) in [
            ("", "expected version 1"),
            ("Permission denied\n", "got 'Permission denied'"),
            ("1\n# be_name\nx y\n", "no column srv_name"),
            ("1\n# be_name srv_name srv_addr srv_port\nx y z 70000\n", "srv_port is no port"),
            ("1\n# be_name srv_name\nx\n", "too short"),
        ] {
            let problem = parse_slots(answer).expect_err(answer);
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[tokio::test]
    async fn a_missing_socket_names_it() {
        let error = Runtime::new(Path::new("/nonexistent/s")).slots().await.expect_err("no socket");
        assert!(error.to_string().contains("/nonexistent/s"), "{error}");
    }
}
