//! Where programs are: ours in the target directory, the outside ones on the path or in the cache that `tests/setup` fills.
//!
//! Everything is found by name; a missing program fails with the command that brings it, and is never skipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The top of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the member lies in the workspace").to_path_buf()
}

/// What `tests/setup` filled: `.cache` at the top, or `AURORA_REDIS_CACHE`.
pub fn cache() -> PathBuf {
    std::env::var_os("AURORA_REDIS_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from)
}

/// One of our own programs. Built first, once per process, unless `AURORA_REDIS_BIN` names the directory of built ones.
pub fn ours(name: &str) -> Result<PathBuf> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let dir = DIR.get_or_init(|| match std::env::var_os("AURORA_REDIS_BIN") {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => build().map_err(|e| format!("{e:#}")),
    });
    let path = dir.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?.join(name);
    if !path.is_file() {
        bail!("{} is not there: cargo build --workspace --lib --bins", path.display());
    }
    Ok(path)
}

/// Builds all our programs and returns their directory: the one this program was built into.
fn build() -> Result<PathBuf> {
    let me = std::env::current_exe().context("path of this program")?;
    let dir = me
        .parent()
        .map(|d| if d.ends_with("deps") { d.parent().unwrap_or(d) } else { d })
        .context("program without a directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "-q", "--workspace", "--lib", "--bins"])
        .current_dir(root())
        .status()
        .context("cargo build")?;
    if !status.success() {
        bail!("cargo build --workspace --lib --bins: {status}");
    }
    Ok(dir.to_path_buf())
}

/// An outside program by name: on the path, in the system directories, or unpacked into the cache.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cached = ["bin", "tools/usr/bin", "tools/usr/sbin"].map(|d| cache().join(d));
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/bin".into()])
        .chain(cached)
        .map(|d| d.join(name))
        .find(|p| p.is_file())
        .with_context(|| format!("{name} is not on this machine: run `make setup`"))
}

/// A file below the cache.
pub fn cached(relative: &str) -> Result<PathBuf> {
    let path = cache().join(relative);
    if !path.exists() {
        bail!("{} is not there: run `make setup`", path.display());
    }
    Ok(path)
}

/// Python with the pinned wheels (pystachio and the other servers).
pub fn python() -> Result<PathBuf> {
    cached("venv/bin/python")
}

/// A file of a wheel, by its path below `site-packages`.
pub fn wheel(relative: &str) -> Result<PathBuf> {
    let lib = cached("venv/lib")?;
    std::fs::read_dir(&lib)?
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages").join(relative))
        .find(|p| p.exists())
        .with_context(|| format!("{relative} is not below {}: run `make setup`", lib.display()))
}
