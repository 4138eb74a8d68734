//! A real HAProxy on a configuration given as text.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::bench::Bench;
use super::process::Process;
use super::{binaries, wait};

/// A running HAProxy.
#[derive(Debug)]
pub struct HaProxy {
    /// Its process.
    pub process: Process,
}

impl HaProxy {
    /// Starts it outside the hosts and waits until something listens on `port`.
    pub async fn start(bench: &Arc<Bench>, config: &str, port: u16) -> Result<HaProxy> {
        let path = bench.dir().join("haproxy.cfg");
        std::fs::write(&path, config).context("haproxy.cfg")?;
        let here = bench.here();
        let mut command = bench.command(&here, binaries::tool("haproxy")?);
        command.arg("-db").arg("-f").arg(&path);
        let process = bench.start("haproxy", command)?;
        wait::until("HAProxy listens", Duration::from_secs(20), async || {
            process.check_alive()?;
            tokio::net::TcpStream::connect((here.address.as_str(), port)).await.map(|_| ()).map_err(anyhow::Error::from)
        })
        .await?;
        Ok(HaProxy { process })
    }
}
