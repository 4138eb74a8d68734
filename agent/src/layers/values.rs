//! Values that several programs understand alike, each parsed in one way. For [`super::Layers`]: an error says only what is wrong, for key,
//! place and value are said beside it.

use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::PermissionsExt;

/// `role/env/job`, the key of an Aurora job.
pub fn parse_cluster(text: &str) -> Result<String, String> {
    let fits =
        |part: &str| (1..=255).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match text.split('/').collect::<Vec<_>>()[..] {
        [role, env, job] if [role, env, job].into_iter().all(fits) => Ok(text.into()),
        [_, _, _] => Err("each part is 1 to 255 letters, digits, '-', '_' or '.'".into()),
        _ => Err("it has not three parts".into()),
    }
}

/// A connect string of ZooKeeper without a chroot.
pub fn parse_zookeeper(text: &str) -> Result<String, String> {
    if text.contains('/') {
        return Err("a chroot is not supported; use zookeeper_root".into());
    }
    for server in text.split(',') {
        let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(format!("'{server}' is not HOST:PORT"));
        }
    }
    Ok(text.into())
}

/// An absolute path of ZooKeeper.
pub fn parse_node(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    match trimmed.strip_prefix('/') {
        Some(rest) if rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..") => Ok(trimmed.into()),
        _ => Err("it is not such a path".into()),
    }
}

/// The address of a store: `hdfs://NAMENODE[:PORT]/PATH` or `file:///PATH`.
pub fn parse_store(text: &str) -> Result<String, String> {
    match text.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => Ok(text.trim_end_matches('/').into()),
        Some(("hdfs", rest)) if rest.find('/').is_some_and(|at| at > 0) => Ok(text.trim_end_matches('/').into()),
        _ => Err("it is not such a URI".into()),
    }
}

/// The text of a file that only its owner can read.
pub fn read_private(file: &str) -> Result<String, String> {
    let mode = std::fs::metadata(file).map_err(|error| error.to_string())?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("its mode {mode:04o} lets others read it; run chmod 0600 {file}"));
    }
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

/// Our own address on the way to the first server of a connect string that resolves; absent without a route. Sends nothing.
pub fn route_to(servers: &str) -> Option<IpAddr> {
    servers.split(',').find_map(|server| {
        let server = server.to_socket_addrs().ok()?.next()?;
        let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
        socket.connect(server).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    })
}
