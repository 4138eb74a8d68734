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
    write_dump(&path, wishes.mib, VALUE)?;
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

/// A dump of strings of so many bytes (64 to 16,383, or 65,536) that do not compress. How many there are.
pub fn write_dump(path: &Path, mib: usize, bytes: usize) -> Result<usize> {
    let mut file = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    file.write_all(b"REDIS0010\xfe\x00")?;
    let keys = mib * (1 << 20) / bytes;
    let (mut noise, mut value) = (Noise::new(1), vec![0; bytes]);
    for number in 0..keys {
        noise.fill(&mut value);
        let key = format!("key:{number:08}");
        file.write_all(&[0, u8::try_from(key.len())?])?;
        file.write_all(key.as_bytes())?;
        match u16::try_from(bytes) {
            Ok(short) if short < 1 << 14 => file.write_all(&(short | 0x4000).to_be_bytes())?,
            _ => {
                file.write_all(&[0x80])?;
                file.write_all(&u32::try_from(bytes)?.to_be_bytes())?;
            }
        }
        file.write_all(&value)?;
    }
    // Without a checksum, as `rdbchecksum no` makes them.
    file.write_all(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0])?;
    file.into_inner().context("the end of the dump")?.sync_all().context("the dump")?;
    Ok(keys)
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
        for bytes in [VALUE, 1000] {
            let path = std::env::temp_dir().join(format!("noise-{bytes}-{}.rdb", std::process::id()));
            let keys = write_dump(&path, 1, bytes).unwrap();
            let (checked, content) = rdb::check(std::fs::File::open(&path).unwrap()).unwrap().unwrap();
            std::fs::remove_file(&path).unwrap();
            assert!(checked.rdb.bytes > 1 << 20 && content.unwrap().keys() == keys as u64, "{checked:?}");
        }
    }
}
