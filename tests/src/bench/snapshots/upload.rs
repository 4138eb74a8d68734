//! A dump into HDFS: our store beside Hadoop's own command, the same file into the same cluster, taking turns.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use agent::rdb;
use agent::snapshot::{Manifest, Origin};
use agent::store::{Access, Options, Progress, Report, Stage, Store};
use anyhow::{Context, Result};

use super::{Figures, SnapshotWishes, told};
use crate::harness::cluster::{CLUSTER, Cluster};
use crate::harness::hdfs::FS_SHELL;

/// Bytes of one value.
pub const VALUE: usize = 64 << 10;

/// One round: both, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// `hdfs dfs -put`, from its start to its end.
    pub hadoop: Duration,
    /// Our store, until the snapshot stands.
    pub ours: Duration,
    /// Of that until all bytes were copied and their reading back began.
    pub copied: Duration,
    /// Before: checking the dump.
    pub checked: Duration,
}

impl Round {
    /// Bytes per second of ours, of theirs.
    pub fn ratio(&self) -> f64 {
        self.hadoop.as_secs_f64() / self.ours.as_secs_f64()
    }
}

/// Measures as many rounds as are wished.
pub async fn measure(cluster: &Cluster, wishes: &SnapshotWishes, figures: &mut Figures) -> Result<()> {
    let hdfs = cluster.hdfs.as_ref().context("no HDFS")?;
    let path = cluster.bench.dir().join("dump.rdb");
    write_dump(&path, wishes.mib)?;
    let options = Options {
        access: Access { conf_dir: Some(hdfs.conf_dir().into()), kerberos: None },
        replication: 1,
        ..Options::default()
    };
    let store = Store::open(&format!("{}/measured", hdfs.uri()), CLUSTER, options)?;
    hdfs.tool(FS_SHELL, &["-mkdir", "-p", "/measured"]).await?;
    for number in 0..wishes.rounds {
        let file = path.clone();
        let begun = Instant::now();
        let checked = tokio::task::spawn_blocking(move || rdb::check_file(&file)).await???;
        let manifest = Manifest::new(Origin { cluster_id: "measured".into(), ..Origin::default() }, &checked);
        let mut round = Round { checked: begun.elapsed(), hadoop: Duration::ZERO, ours: Duration::ZERO, copied: Duration::ZERO };
        for ours in [number % 2 == 0, number % 2 != 0] {
            if ours {
                (round.ours, round.copied) = put(&store, &path, manifest.clone()).await?;
            } else {
                let begun = Instant::now();
                hdfs.as_installed(FS_SHELL, &["-put", &path.display().to_string(), "/measured/dump.rdb"]).await?;
                round.hadoop = begun.elapsed();
            }
            hdfs.tool(FS_SHELL, &["-rm", "-r", "-skipTrash", "/measured/*"]).await?;
        }
        told("upload", number, wishes.rounds, &format!("{round:.2?}, ratio {:.2}", round.ratio()));
        figures.uploads.push(round);
    }
    std::fs::remove_file(&path).context("the dump")
}

/// How long it took until the snapshot stood, and until all was copied.
async fn put(store: &Store, path: &Path, manifest: Manifest) -> Result<(Duration, Duration)> {
    let report = Report::new(Progress::default());
    let mut seen = report.subscribe();
    let begun = Instant::now();
    let copied = async {
        seen.wait_for(|p| p.stage == Stage::ReadingBack).await?;
        anyhow::Ok(begun.elapsed())
    };
    let put = async { anyhow::Ok((store.put(path, manifest, &report).await?, begun.elapsed())) };
    let ((_, took), copied) = tokio::try_join!(put, copied)?;
    Ok((took, copied))
}

/// A dump of strings that do not compress.
fn write_dump(path: &Path, mib: usize) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    file.write_all(b"REDIS0010\xfe\x00")?;
    let mut noise = Noise::new(1);
    let mut value = vec![0; VALUE];
    for number in 0..mib * (1 << 20) / VALUE {
        noise.fill(&mut value);
        let key = format!("key:{number:08}");
        file.write_all(&[0, u8::try_from(key.len())?])?;
        file.write_all(key.as_bytes())?;
        file.write_all(&[0x80])?;
        file.write_all(&u32::try_from(VALUE)?.to_be_bytes())?;
        file.write_all(&value)?;
    }
    // Without a checksum, as `rdbchecksum no` makes them.
    file.write_all(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0])?;
    file.into_inner().context("the end of the dump")?.sync_all().context("the dump")
}

/// Bytes without a pattern, the same ones each time (xorshift).
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dump_is_one() {
        let path = std::env::temp_dir().join(format!("noise-{}.rdb", std::process::id()));
        write_dump(&path, 1).unwrap();
        let checked = rdb::check_file(&path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(checked.rdb.bytes > 1 << 20, "{checked:?}");
    }
}
