//! Fetching from the store: a snapshot's dump, checked before it is handed out, and other files by their SHA-256.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::aside;
use super::error::Error;
use super::files::Files;
use super::{DUMP, Inner, Options, Report, Retry, Stage, Store, advance, apart, local, open_files};
use crate::rdb::{self, Checked, Digest, Rdb, Structure, Sums};
use crate::snapshot::{Manifest, PIECE_BYTES, Sha256, SnapshotId};

impl Store {
    /// Fetches a snapshot's dump to `dest`, which must not exist. It stands there only once it is whole and fits its manifest:
    /// length, each piece, SHA-256, RDB structure and CRC-64.
    ///
    /// When the error [blames the snapshot](Error::blames_snapshot), another one is to be taken.
    pub async fn get(&self, id: &SnapshotId, dest: &Path, report: &Report) -> Result<Manifest, Error> {
        let inner = &self.inner;
        if dest.symlink_metadata().is_ok() {
            return Err(Error::disk("fetch to", dest)(std::io::ErrorKind::AlreadyExists.into()));
        }
        let mut retry = Retry::new(&inner.options, inner.options.get_patience, report);
        loop {
            retry.begin(0);
            let part = Part::beside(dest)?;
            let attempt = attempt(inner.clone(), id.clone(), part.path.clone(), report.clone());
            let failed = match apart("fetch", id.as_str(), attempt).await {
                Ok(manifest) => {
                    part.commit(dest)?;
                    report.send_modify(|p| p.error = None);
                    return Ok(manifest);
                }
                Err(e) => e,
            };
            let retryable = failed.is_retryable();
            drop(part);
            retry.after(failed, retryable).await?;
        }
    }
}

async fn attempt(inner: Arc<Inner>, id: SnapshotId, part: PathBuf, report: Report) -> Result<Manifest, Error> {
    let manifest = match inner.read_manifest(&id).await? {
        Ok(manifest) => manifest,
        Err(problem) => return Err(Error::Unusable { snapshot: id, problem }),
    };
    report.send_modify(|p| p.total_bytes = manifest.bytes);
    let path = format!("{}/{DUMP}", inner.dir(&id));
    let mut seen = 0;
    let on_chunk = |digest: &Digest| {
        let corrupt = check_pieces(&manifest, digest, seen);
        seen = digest.pieces().len();
        corrupt.map_err(|(what, offset)| Error::Corrupt { snapshot: id.clone(), what, offset })
    };
    // The structure is walked beside the download.
    let (feed, chunks) = aside::channel();
    let walk = tokio::task::spawn_blocking(move || rdb::structure(chunks));
    let digest = copy(&inner.files, &path, &part, &report, Some(feed), on_chunk).await?;
    let structure = walk.await.map_err(|e| Error::panicked("walk", &path, &e))?;
    let structure = structure.map_err(Error::disk("walk", &part))?;
    check_whole(&manifest, digest, structure).map_err(|(what, offset)| Error::Corrupt { snapshot: id, what, offset })?;
    Ok(manifest)
}

/// Compares the pieces that have become complete since `seen`.
fn check_pieces(manifest: &Manifest, digest: &Digest, seen: usize) -> Result<(), (String, u64)> {
    if digest.bytes() > manifest.bytes {
        return Err((format!("it goes on after the {} bytes of its manifest", manifest.bytes), manifest.bytes));
    }
    compare_pieces(&manifest.pieces, digest.pieces(), seen)
}

fn compare_pieces(expected: &[Sha256], found: &[Sha256], seen: usize) -> Result<(), (String, u64)> {
    for (n, sum) in found.iter().enumerate().skip(seen) {
        compare_piece(expected, n, sum)?;
    }
    Ok(())
}

/// Whether the piece of that number, from 0, is the one that is expected there.
pub(super) fn compare_piece(expected: &[Sha256], n: usize, sum: &Sha256) -> Result<(), (String, u64)> {
    if expected.get(n) == Some(sum) {
        return Ok(());
    }
    let what = format!("piece {} of {} (4 MiB) has another SHA-256 than its manifest says", n + 1, expected.len());
    Err((what, n as u64 * PIECE_BYTES))
}

/// Everything that can only be told at the end.
fn check_whole(manifest: &Manifest, digest: Digest, structure: Structure) -> Result<(), (String, u64)> {
    let (sums, framed) = digest.finish();
    compare_sums(manifest, &sums)?;
    let judged = structure.accept(framed);
    let (rdb, _) = judged.map_err(|flaw| (format!("its manifest fits, but {flaw}"), flaw.offset().unwrap_or(0)))?;
    compare(manifest, &Checked { sums, rdb })
}

fn compare_sums(manifest: &Manifest, sums: &Sums) -> Result<(), (String, u64)> {
    if sums.bytes != manifest.bytes {
        return Err((format!("it ends here, its manifest says {} bytes", manifest.bytes), sums.bytes));
    }
    compare_pieces(&manifest.pieces, &sums.pieces, 0)?;
    if sums.sha256 != manifest.sha256 {
        return Err((format!("the whole has SHA-256 {}, its manifest says {}", sums.sha256, manifest.sha256), 0));
    }
    Ok(())
}

/// Whether a dump that is whole is the one of this manifest.
pub(super) fn compare(manifest: &Manifest, again: &Checked) -> Result<(), (String, u64)> {
    compare_sums(manifest, &again.sums)?;
    compare_frame(manifest, &again.rdb)
}

/// Whether header and checksum are those of this manifest.
pub(super) fn compare_frame(manifest: &Manifest, rdb: &Rdb) -> Result<(), (String, u64)> {
    if (rdb.header, format!("{:016x}", rdb.crc64)) != (manifest.rdb, manifest.crc64.to_lowercase()) {
        return Err(("header or CRC-64 are not those of its manifest".into(), 0));
    }
    Ok(())
}

/// Copies a file of the store to this machine, computing its sums and passing each chunk to `aside`; `on_chunk` may end it.
async fn copy(
    files: &Files,
    from: &str,
    part: &Path,
    report: &Report,
    aside: Option<mpsc::Sender<Bytes>>,
    mut on_chunk: impl FnMut(&Digest) -> Result<(), Error>,
) -> Result<Digest, Error> {
    let mut reader = files.open(from).await?;
    let mut file = tokio::fs::OpenOptions::new().write(true).open(part).await.map_err(Error::disk("open", part))?;
    let mut digest = Digest::default();
    while let Some(chunk) = reader.next().await? {
        digest.update(&chunk);
        on_chunk(&digest)?;
        file.write_all(&chunk).await.map_err(Error::disk("write", part))?;
        advance(report, Stage::Fetching, digest.bytes());
        if let Some(feed) = &aside {
            // Who reads there may have seen enough; the sums are wanted all the same.
            let _ = feed.send(chunk).await;
        }
    }
    file.flush().await.map_err(Error::disk("write", part))?;
    file.sync_all().await.map_err(Error::disk("sync", part))?;
    Ok(digest)
}

/// Fetches the file at `uri` (`hdfs://…` or `file:///…`), e.g. a redis-server binary, to `dest`, replacing what is there in one
/// step. It stands there only once its SHA-256 fits; it is executable.
pub async fn fetch_file(uri: &str, sha256: Sha256, dest: &Path, options: &Options, report: &Report) -> Result<(), Error> {
    let (files, path) = open_files(uri, options)?;
    let (files, path): (Arc<Files>, Arc<str>) = (Arc::new(files), path.into());
    let mut retry = Retry::new(options, options.get_patience, report);
    loop {
        retry.begin(0);
        let part = Part::beside(dest)?;
        let (files, path, to, report) = (files.clone(), path.clone(), part.path.clone(), report.clone());
        let fetch = async move { copy(&files, &path, &to, &report, None, |_| Ok(())).await.map(|digest| digest.finish().0) };
        match apart("fetch", uri, fetch).await {
            Ok(sums) if sums.sha256 == sha256 => return part.replace_executable(dest),
            Ok(sums) => return Err(Error::OtherFile { uri: uri.into(), expected: sha256, found: sums.sha256 }),
            Err(failed) => {
                let retryable = failed.is_retryable();
                drop(part);
                retry.after(failed, retryable).await?;
            }
        }
    }
}

/// A file being fetched, beside where it is to stand; gone unless it was moved there.
struct Part {
    path: PathBuf,
}

impl Part {
    fn beside(dest: &Path) -> Result<Part, Error> {
        let mut name = dest.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", uuid::Uuid::new_v4()));
        let path = dest.with_file_name(name);
        std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(Error::disk("create", &path))?;
        Ok(Part { path })
    }

    fn commit(self, dest: &Path) -> Result<(), Error> {
        local::rename_new(&self.path, dest).map_err(Error::disk("move the fetched dump to", dest))
    }

    fn replace_executable(self, dest: &Path) -> Result<(), Error> {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&self.path, mode).map_err(Error::disk("make executable", &self.path))?;
        std::fs::rename(&self.path, dest).map_err(Error::disk("move the fetched file to", dest))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Already moved, mostly; a part left behind by a full disk or the like is named so that it is recognised.
        let _ = std::fs::remove_file(&self.path);
    }
}
