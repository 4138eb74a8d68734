//! Whole passes from a scripted server to a directory store. Real servers: `tests/stream.rs`.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::snapshot::Made;
use crate::store::Options;

const REPLID: &str = "8c1f2d6a5b0e4f3c9d7a6b5e4f3c2d1a0b9e8f7d";
const MARK: &str = "0123456789abcdef0123456789abcdef01234567";

/// A dump of so many keys, with values that do not compress.
fn rdb(keys: u32, offset: u64) -> Vec<u8> {
    fn text(dump: &mut Vec<u8>, bytes: &[u8]) {
        dump.push(0x80);
        dump.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        dump.extend(bytes);
    }
    let mut dump = b"REDIS0010".to_vec();
    for (name, value) in [("redis-ver", "7.0.15".to_owned()), ("repl-id", REPLID.into()), ("repl-offset", offset.to_string())] {
        dump.push(0xfa);
        text(&mut dump, name.as_bytes());
        text(&mut dump, value.as_bytes());
    }
    dump.extend([0xfe, 0]);
    for n in 0..keys {
        dump.push(0);
        text(&mut dump, format!("key:{n}").as_bytes());
        text(&mut dump, &n.to_be_bytes().repeat(256));
    }
    dump.push(0xff);
    let sum = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&dump);
    dump.extend(sum.to_le_bytes());
    dump
}

fn sent(dump: &[u8], offset: u64, marked: bool) -> Vec<u8> {
    let answer = format!("\n+FULLRESYNC {REPLID} {offset}\r\n\n");
    match marked {
        true => [answer.as_bytes(), format!("$EOF:{MARK}\r\n").as_bytes(), dump, MARK.as_bytes()].concat(),
        false => [answer.as_bytes(), format!("${}\r\n", dump.len()).as_bytes(), dump].concat(),
    }
}

/// Gives out pieces, and does something before one of them.
struct Script {
    pieces: VecDeque<Vec<u8>>,
    before_last: Option<Box<dyn FnOnce() + Send>>,
}

impl Script {
    fn new(bytes: &[u8], piece: usize) -> Script {
        Script { pieces: bytes.chunks(piece).map(<[u8]>::to_vec).collect(), before_last: None }
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.pieces.len() == 1
            && let Some(act) = self.before_last.take()
        {
            act();
        }
        let Some(piece) = self.pieces.pop_front() else { return Ok(0) };
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

fn label() -> Label {
    Label {
        cluster_id: "c".into(),
        epoch: 4,
        server_version: "7.0.15".into(),
        instance: 2,
        task_id: "t".into(),
        request_id: "r".into(),
    }
}

fn limits(memory: u64, disk: u64) -> Limits {
    Limits { memory, disk, dir: std::env::temp_dir() }
}

async fn coming(script: Script, limits: Limits) -> Result<Coming, Error> {
    start(move || Ok(script), (), limits, label(), 0, Report::new(Progress::default())).await
}

/// What is said of a copy at its end, whoever takes it.
async fn verdict(script: Script, limits: Limits) -> Result<Manifest, Error> {
    let mut coming = coming(script, limits).await?;
    while coming.pieces.recv().await.is_some() {}
    coming.manifest.await.unwrap()
}

struct Place {
    dir: PathBuf,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let dir = std::env::temp_dir().join(format!("stream-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let quick =
            Options { first_pause: Duration::from_millis(5), put_patience: Duration::from_secs(20), ..Options::default() };
        Place { store: Store::open(&format!("file://{}", dir.display()), "a/b/c", quick).unwrap(), dir }
    }

    async fn names(&self) -> Vec<String> {
        self.store.list().await.unwrap().into_iter().map(|entry| entry.name).collect()
    }

    /// Stores the first copy that comes whole; what was said of those before.
    async fn put(&self, copies: impl IntoIterator<Item = (Script, Limits)>) -> (Result<SnapshotId, Error>, Vec<String>) {
        let mut copies = copies.into_iter();
        let report = Report::new(Progress::default());
        let mut progress = report.subscribe();
        let again = || {
            let (script, limits) = copies.next().expect("another attempt was not expected");
            coming(script, limits)
        };
        let mut put = std::pin::pin!(self.store.put_stream(again, &report));
        let mut errors = Vec::new();
        loop {
            tokio::select! {
                result = &mut put => return (result, errors),
                Ok(()) = progress.changed() => {
                    let error = progress.borrow_and_update().error.clone();
                    errors.extend(error.filter(|error| errors.last() != Some(error)));
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[tokio::test]
async fn a_copy_in_either_framing_becomes_a_snapshot_with_its_exact_position() {
    let place = Place::new();
    let dump = rdb(5000, 77);
    for (marked, piece) in [(true, 1000), (false, 65_536)] {
        let (stored, errors) = place.put([(Script::new(&sent(&dump, 77, marked), piece), limits(1 << 20, 1 << 26))]).await;
        let id = stored.unwrap();
        assert_eq!(errors, [""; 0]);
        let manifest = place.store.manifest(&id).await.unwrap();
        assert_eq!((manifest.how, manifest.epoch, manifest.total_keys()), (Made::Stream, 4, Some(5000)));
        assert_eq!(manifest.position, Some(Position { replid: REPLID.into(), offset: 77 }));
        let got = place.dir.join("got");
        place.store.get(&id, &got, &Report::new(Progress::default())).await.unwrap();
        assert_eq!(std::fs::read(&got).unwrap(), dump);
        std::fs::remove_file(got).unwrap();
    }
    assert_eq!(place.names().await.len(), 2);
}

#[tokio::test]
async fn a_store_that_is_too_slow_costs_the_backup_and_never_holds_up_the_server() {
    let bytes = sent(&rdb(2000, 1), 1, true);
    let mut coming = coming(Script::new(&bytes, 10_000), limits(50_000, 100_000)).await.unwrap();
    // Nobody takes anything out, and the server is read all the same until both bounds are reached.
    tokio::time::sleep(Duration::from_millis(300)).await;
    while coming.pieces.recv().await.is_some() {}
    let why = coming.manifest.await.unwrap().unwrap_err().to_string();
    assert!(why.contains("slower than the server: 50000 bytes in memory") && why.contains("100000 bytes in a file"), "{why}");
}

#[tokio::test]
async fn what_is_given_up_is_tried_again_with_a_new_copy_and_a_new_name() {
    let place = Place::new();
    let (first, second) = (sent(&rdb(2000, 1), 1, true), sent(&rdb(10, 2), 2, true));
    let copies = [
        (Script::new(&first, 10_000), limits(1000, 1000)),
        (Script::new(&first[..50_000], 10_000), limits(1 << 20, 0)),
        (Script::new(&second, 100), limits(1 << 20, 0)),
    ];
    let (stored, errors) = place.put(copies).await;
    assert_eq!(stored.unwrap().offset(), 2);
    assert!(errors[0].contains("slower than the server") && errors[1].contains("before the end of the copy"), "{errors:?}");
    assert_eq!(place.names().await.len(), 1);
    assert_eq!(std::fs::read_dir(place.dir.join("a/b/c/incoming")).unwrap().count(), 0, "nothing is left of the failed ones");
}

#[tokio::test]
async fn a_store_that_fails_on_the_way_gets_a_new_copy() {
    let place = Place::new();
    let bytes = sent(&rdb(3000, 5), 5, true);
    let mut spoilt = Script::new(&bytes, 100_000);
    let incoming = place.dir.join("a/b/c/incoming");
    spoilt.before_last = Some(Box::new(move || {
        // Until the upload has begun there is nothing to spoil.
        while std::fs::read_dir(&incoming).is_ok_and(|mut entries| entries.next().is_none()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::fs::remove_dir_all(incoming).unwrap();
    }));
    let copies = [(spoilt, limits(1 << 24, 0)), (Script::new(&bytes, 100_000), limits(1 << 24, 0))];
    let (stored, errors) = place.put(copies).await;
    assert_eq!(stored.unwrap().offset(), 5);
    assert!(errors[0].contains("incoming/"), "{errors:?}");
    assert_eq!(place.names().await.len(), 1);
}

#[tokio::test]
async fn no_flipped_byte_passes() {
    let dump = rdb(1, 9);
    for n in 0..dump.len() {
        let mut flipped = dump.clone();
        flipped[n] ^= 0x20;
        let found = verdict(Script::new(&sent(&flipped, 9, n % 2 == 0), 50), limits(1 << 20, 0)).await;
        assert!(matches!(found, Err(Error::Source { .. })), "byte {n}: {found:?}");
    }
    assert!(verdict(Script::new(&sent(&dump, 9, true), 50), limits(1 << 20, 0)).await.is_ok());
}

#[tokio::test]
async fn a_copy_that_is_not_of_the_announced_position_is_refused() {
    let why = verdict(Script::new(&sent(&rdb(1, 9), 10, true), 50), limits(1 << 20, 0)).await.unwrap_err().to_string();
    assert!(why.contains(" at 10, and sent one of"), "{why}");
}

#[tokio::test]
async fn a_copy_of_a_newer_format_is_not_asked_for_again() {
    let mut dump = rdb(1, 9);
    dump[5..9].copy_from_slice(b"0099");
    let end = dump.len() - 8;
    let sum = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&dump[..end]);
    dump[end..].copy_from_slice(&sum.to_le_bytes());
    let place = Place::new();
    let (stored, _) = place.put([(Script::new(&sent(&dump, 9, true), 50), limits(1 << 20, 0))]).await;
    assert!(stored.unwrap_err().to_string().contains("newer than any this program knows"));
    assert_eq!(place.names().await, [""; 0]);
}
