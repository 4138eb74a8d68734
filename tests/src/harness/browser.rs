//! Debian's Chromium without a window: a page as the browser has built it, and as a picture.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::bench::Bench;
use super::binaries;

/// Longest time a page may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The document after its scripts have run for some seconds.
pub async fn dom(bench: &Arc<Bench>, url: &str) -> Result<String> {
    chromium(bench, &["--dump-dom".into(), url.into()]).await
}

/// A picture of the page, a PNG file in the bench's directory.
pub async fn screenshot(bench: &Arc<Bench>, url: &str) -> Result<PathBuf> {
    let path = bench.dir().join("page.png");
    chromium(bench, &["--window-size=1280,1400".into(), format!("--screenshot={}", path.display()), url.into()]).await?;
    if !path.exists() {
        bail!("Chromium made no picture of {url}");
    }
    Ok(path)
}

/// Runs it once; nothing but `url` is asked for over the network.
async fn chromium(bench: &Arc<Bench>, arguments: &[String]) -> Result<String> {
    let profile = bench.subdir("chromium")?;
    let mut command = bench.command(&bench.here(), binaries::tool("timeout")?);
    command.args(["-k", "5", &LIMIT.as_secs().to_string()]).arg(binaries::tool("chromium")?);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"]);
    command.args([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=8000",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display())).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("starting Chromium")?;
    if !output.status.success() {
        bail!("Chromium: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
