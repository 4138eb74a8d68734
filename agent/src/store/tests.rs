//! The store in a directory; what HDFS does is tested against a real one, in the `tests` crate.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::rdb;
use crate::snapshot::{Origin, PIECE_BYTES, Sha256, rank};

mod imports;
mod notes;

const CLUSTER: &str = "role/test/redis";
const DUMP_BYTES: &[u8] = include_bytes!("../../testdata/small.rdb");

/// A directory that goes when the test ends.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let path = std::env::temp_dir().join(format!("aurora-redis-store-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
    fn store(&self) -> Store {
        Store::open(&format!("file://{}/store", self.0.display()), CLUSTER, quick()).unwrap()
    }
    fn snapshot(&self, id: &SnapshotId) -> PathBuf {
        self.0.join("store").join(CLUSTER).join("snapshots").join(id.as_str())
    }
    fn incoming(&self) -> usize {
        fs::read_dir(self.0.join("store").join(CLUSTER).join("incoming")).map_or(0, Iterator::count)
    }
    fn dump(&self) -> PathBuf {
        let path = self.0.join("dump.rdb");
        fs::write(&path, DUMP_BYTES).unwrap();
        path
    }
    /// Puts the test dump as of `epoch` and `created_s`.
    async fn put(&self, store: &Store, epoch: u64, created_s: u64) -> SnapshotId {
        let dump = self.dump();
        store.put(&dump, manifest(&dump, epoch, created_s), &report()).await.unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn quick() -> Options {
    let ms = Duration::from_millis;
    Options { first_pause: ms(5), longest_pause: ms(20), put_patience: ms(100), get_patience: ms(100), ..Options::default() }
}

fn report() -> Report {
    Report::new(Progress::default())
}

fn manifest(dump: &Path, epoch: u64, created_s: u64) -> Manifest {
    let checked = rdb::check_file(dump).unwrap().unwrap();
    let origin = Origin { cluster_id: "c1".into(), epoch, created_ms: created_s * 1000, ..Origin::default() };
    Manifest::new(origin, &checked)
}

/// A dump of several pieces: the test dump with a key more, of a lot of text.
fn large_dump(bytes: usize) -> Vec<u8> {
    let mut dump = DUMP_BYTES[..DUMP_BYTES.len() - 9].to_vec();
    dump.extend(b"\x00\x03big\x80");
    dump.extend(u32::try_from(bytes).unwrap().to_be_bytes());
    dump.extend((0..bytes).map(|i| (i * 31 % 251) as u8));
    dump.push(0xff);
    let sum = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&dump);
    dump.extend_from_slice(&sum.to_le_bytes());
    dump
}

#[tokio::test]
async fn what_is_put_is_listed_and_got() {
    let dir = Dir::new();
    let store = dir.store();
    assert!(store.list().await.unwrap().is_empty(), "nothing stored yet");
    let dump = dir.0.join("large.rdb");
    fs::write(&dump, large_dump(9 << 20)).unwrap();
    let manifest = manifest(&dump, 3, 1_800_000_000);
    let report = report();
    let mut told = report.subscribe();
    let listen = async {
        let mut steps = Vec::new();
        while told.changed().await.is_ok() {
            let now = told.borrow_and_update().clone();
            steps.push((now.stage, now.done_bytes));
            if steps.last() == Some(&(Stage::ReadingBack, manifest.bytes)) {
                break;
            }
        }
        steps
    };
    let (id, steps) = tokio::join!(store.put(&dump, manifest.clone(), &report), listen);
    let id = id.unwrap();
    assert_eq!(id, manifest.id());
    assert!(steps.len() < 12, "{} MiB are told in a few steps: {steps:?}", manifest.bytes >> 20);

    let entries = store.list().await.unwrap();
    assert_eq!(entries.len(), 1);
    let (listed, found) = entries[0].usable(Some("c1")).unwrap();
    assert_eq!((listed, found), (&id, &manifest));
    assert!(matches!(entries[0].usable(Some("other")), Err(Problem::Foreign { .. })));
    assert_eq!(store.manifest(&id).await.unwrap(), manifest);

    let dest = dir.0.join("fetched.rdb");
    assert_eq!(store.get(&id, &dest, &report).await.unwrap(), manifest);
    assert_eq!(fs::read(&dest).unwrap(), fs::read(&dump).unwrap());
    let again = store.get(&id, &dest, &report).await.unwrap_err();
    assert!(matches!(again, Error::Disk { .. }), "never over a file that is there: {again}");
    assert_eq!(dir.incoming(), 0);
}

#[tokio::test]
async fn a_taken_name_moves_on_and_nothing_is_overwritten() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.dump();
    let first = manifest(&dump, 1, 1000);
    let id = store.put(&dump, first.clone(), &report()).await.unwrap();
    let mut second = first.clone();
    second.instance = 4;
    let next = store.put(&dump, second.clone(), &report()).await.unwrap();
    assert_eq!(next, id.later());
    assert_eq!(store.put(&dump, first.clone(), &report()).await.unwrap(), id, "the same again is there already");
    assert_eq!(store.manifest(&id).await.unwrap(), first);
    assert_eq!(store.manifest(&next).await.unwrap(), second);
    assert_eq!(store.list().await.unwrap().len(), 2);
    assert_eq!(dir.incoming(), 0);
}

#[tokio::test]
async fn many_at_once_all_get_names() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.dump();
    let report = report();
    let puts = (0..8).map(|instance| {
        let (store, report, dump) = (store.clone(), &report, &dump);
        async move { store.put(dump, Manifest { instance, ..manifest(dump, 1, 1000) }, report).await.unwrap() }
    });
    let ids: BTreeSet<SnapshotId> = futures_util::future::join_all(puts).await.into_iter().collect();
    assert_eq!(ids.len(), 8);
    assert!(store.list().await.unwrap().iter().all(|e| e.snapshot.is_ok()));
}

#[tokio::test]
async fn the_wrong_dump_is_not_stored() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.dump();
    let manifest = manifest(&dump, 1, 1000);
    for other in [large_dump(100), DUMP_BYTES[..100].to_vec(), [&DUMP_BYTES[..200], &[0; 64]].concat()] {
        fs::write(&dump, other).unwrap();
        let error = store.put(&dump, manifest.clone(), &report()).await.unwrap_err();
        assert!(matches!(error, Error::OtherDump { .. }), "{error}");
    }
    assert!(store.list().await.unwrap().is_empty());
    assert_eq!(dir.incoming(), 0);
}

#[tokio::test]
async fn damage_is_refused_with_what_and_where_and_the_one_before_is_next() {
    let dir = Dir::new();
    let store = dir.store();
    let good = dir.put(&store, 1, 1000).await;
    let dump = dir.0.join("large.rdb");
    fs::write(&dump, large_dump(9 << 20)).unwrap();
    let bad = store.put(&dump, manifest(&dump, 1, 2000), &report()).await.unwrap();
    let file = dir.snapshot(&bad).join("dump.rdb");
    let mut bytes = fs::read(&file).unwrap();
    bytes[5 << 20] ^= 1;
    fs::write(&file, bytes).unwrap();

    let entries = store.list().await.unwrap();
    let ranked = rank(entries.iter().filter_map(|e| e.usable(Some("c1")).ok()), |_| None);
    assert_eq!(ranked.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [&bad, &good]);
    let dest = dir.0.join("restored.rdb");
    let error = store.get(&bad, &dest, &report()).await.unwrap_err();
    assert!(error.blames_snapshot());
    let text = error.to_string();
    assert!(text.contains("offset 4194304") && text.contains("piece 2 of 3"), "{text}");
    assert!(!dest.exists());
    store.get(&good, &dest, &report()).await.unwrap();
    assert_eq!(fs::read(&dest).unwrap(), DUMP_BYTES);
    let left: Vec<_> = fs::read_dir(&dir.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().ends_with(".part")), "{left:?}");
}

/// What is handed out of a snapshot, and how it ended.
async fn handed_out(store: &Store, id: &SnapshotId, manifest: &Manifest) -> (Vec<u8>, Result<(), Error>) {
    let (taker, mut pieces) = tokio::sync::mpsc::channel::<bytes::Bytes>(1);
    let take = async {
        let mut all = Vec::new();
        while let Some(piece) = pieces.recv().await {
            all.extend_from_slice(&piece);
        }
        all
    };
    let report = report();
    tokio::join!(take, store.pieces(id, manifest, taker, &report))
}

#[tokio::test]
async fn pieces_are_handed_out_once_judged_and_the_last_one_only_of_a_good_whole() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.0.join("large.rdb");
    // Three pieces and a bit, and two pieces to the byte.
    for bytes in [13 << 20, (8 << 20) - DUMP_BYTES.len() - 10] {
        fs::write(&dump, large_dump(bytes)).unwrap();
        let whole = fs::read(&dump).unwrap();
        let manifest = manifest(&dump, 1, 1000);
        let id = store.put(&dump, manifest.clone(), &report()).await.unwrap();
        let (found, end) = handed_out(&store, &id, &manifest).await;
        end.unwrap();
        assert!(found == whole);
        let file = dir.snapshot(&id).join("dump.rdb");
        let piece = PIECE_BYTES as usize;
        let last = (whole.len() - 1) / piece * piece;
        for at in [0, 9, piece - 1, piece, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&file, bytes).unwrap();
            let (found, end) = handed_out(&store, &id, &manifest).await;
            let (error, begin) = (end.unwrap_err(), at / piece * piece);
            let text = error.to_string();
            assert!(error.blames_snapshot() && text.contains(&format!("offset {begin} ")), "{at}: {text}");
            assert!(text.contains(&format!("piece {} of {}", at / piece + 1, manifest.pieces.len())), "{at}: {text}");
            assert!(found.len() <= begin && whole.starts_with(&found), "{at}: {} bytes were handed out", found.len());
        }
        for length in [0, 1, piece, whole.len() - 1] {
            fs::write(&file, &whole[..length]).unwrap();
            let (found, end) = handed_out(&store, &id, &manifest).await;
            let text = end.unwrap_err().to_string();
            assert!(text.contains("it ends here") && text.contains(&format!("offset {length} ")), "{length}: {text}");
            assert!(found.len() <= length / piece * piece, "{length}: {} bytes were handed out", found.len());
        }
        fs::write(&file, [&whole[..], b"x"].concat()).unwrap();
        let (found, end) = handed_out(&store, &id, &manifest).await;
        let text = end.unwrap_err().to_string();
        assert!(text.contains("goes on after") && found.len() <= last, "{text}");
    }
}

#[tokio::test]
async fn pieces_of_a_broken_dump_are_not_all_handed_out_although_its_manifest_fits() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.dump();
    let good = manifest(&dump, 1, 1000);
    let mut broken = large_dump(5 << 20);
    broken[100] ^= 1;
    let structure = {
        let mut bytes = large_dump(5 << 20);
        bytes.truncate(bytes.len() - 9);
        bytes.extend(b"\xf0\x01k\x01v\xff");
        bytes.extend(crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&bytes).to_le_bytes());
        bytes
    };
    let no_dump = vec![7; 5 << 20];
    for (bytes, what) in [(broken, "checksum"), (structure, "neither an opcode"), (no_dump, "not a dump")] {
        fs::write(&dump, &bytes).unwrap();
        let mut digest = rdb::Digest::default();
        digest.update(&bytes);
        let (sums, _) = digest.finish();
        let manifest = Manifest { bytes: sums.bytes, sha256: sums.sha256, pieces: sums.pieces, ..good.clone() };
        let id = store.put(&dump, manifest.clone(), &report()).await.unwrap();
        let (found, end) = handed_out(&store, &id, &manifest).await;
        let error = end.unwrap_err();
        assert!(error.blames_snapshot() && error.to_string().contains("its manifest fits, but"), "{error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert!(found.len() as u64 <= PIECE_BYTES, "{} bytes were handed out", found.len());
    }
}

#[tokio::test]
async fn a_taker_that_goes_ends_it() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.0.join("large.rdb");
    fs::write(&dump, large_dump(13 << 20)).unwrap();
    let manifest = manifest(&dump, 1, 1000);
    let id = store.put(&dump, manifest.clone(), &report()).await.unwrap();
    let (taker, pieces) = tokio::sync::mpsc::channel(1);
    drop(pieces);
    let error = store.pieces(&id, &manifest, taker, &report()).await.unwrap_err();
    assert!(!error.blames_snapshot() && !error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_dump_damaged_before_it_was_stored_is_refused_although_its_manifest_fits() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.dump();
    let good = manifest(&dump, 1, 1000);
    let mut bytes = DUMP_BYTES.to_vec();
    bytes[100] ^= 1;
    fs::write(&dump, &bytes).unwrap();
    let mut digest = rdb::Digest::default();
    digest.update(&bytes);
    let (sums, rdb) = digest.finish();
    assert!(rdb.is_err());
    let id = store.put(&dump, Manifest { sha256: sums.sha256, pieces: sums.pieces, ..good }, &report()).await.unwrap();
    let error = store.get(&id, &dir.0.join("restored.rdb"), &report()).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { what, .. } if what.contains("checksum")), "{error}");
}

#[tokio::test]
async fn a_dump_whose_structure_is_broken_is_refused_although_checksum_and_manifest_fit() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.dump();
    let good = manifest(&dump, 1, 1000);
    // A key of a kind that there is none of, and a right checksum.
    let mut bytes = [&DUMP_BYTES[..DUMP_BYTES.len() - 9], b"\xf0\x01k\x01v\xff"].concat();
    bytes.extend(crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&bytes).to_le_bytes());
    fs::write(&dump, &bytes).unwrap();
    let mut digest = rdb::Digest::default();
    digest.update(&bytes);
    let (sums, framed) = digest.finish();
    let rdb = framed.unwrap();
    assert!(rdb::check_file(&dump).unwrap().unwrap_err().to_string().contains("neither an opcode"));
    let crc64 = format!("{:016x}", rdb.crc64);
    let bad = Manifest { bytes: sums.bytes, crc64, sha256: sums.sha256, pieces: sums.pieces, ..good };
    let id = store.put(&dump, bad, &report()).await.unwrap();
    let dest = dir.0.join("restored.rdb");
    let error = store.get(&id, &dest, &report()).await.unwrap_err();
    assert!(error.blames_snapshot() && error.to_string().contains("its manifest fits, but at offset"), "{error}");
    assert!(!dest.exists());
}

/// Each way to spoil a snapshot, and how its entry says so.
#[tokio::test]
async fn bad_entries_are_reported_one_by_one() {
    let dir = Dir::new();
    let store = dir.store();
    let good = dir.put(&store, 9, 1000).await;
    type Spoil = fn(&Path);
    let cases: [(Spoil, &str); 9] = [
        (|s| fs::remove_file(s.join("manifest.json")).unwrap(), "manifest.json is missing"),
        (|s| fs::remove_file(s.join("dump.rdb")).unwrap(), "dump.rdb is missing"),
        (|s| fs::write(s.join("manifest.json"), "{}").unwrap(), "does not fit"),
        (|s| fs::write(s.join("manifest.json"), [0xff; 9]).unwrap(), "not JSON"),
        (
            |s| fs::File::options().write(true).open(s.join("manifest.json")).unwrap().set_len(5 << 30).unwrap(),
            "5368709120 bytes, more than the 8388608",
        ),
        (
            |s| {
                fs::remove_file(s.join("manifest.json")).unwrap();
                fs::create_dir(s.join("manifest.json")).unwrap();
            },
            "manifest.json is not a file",
        ),
        (|s| fs::write(s.join("dump.rdb"), &DUMP_BYTES[..100]).unwrap(), "dump.rdb has 100 bytes, its manifest says 264"),
        (
            |s| {
                fs::remove_dir_all(s).unwrap();
                fs::write(s, "a file").unwrap();
            },
            "could not be read",
        ),
        (|s| fs::rename(s, s.with_file_name("0000000099-20200101T000000Z-00000000000000000000")).unwrap(), "lies under the name"),
    ];
    let mut reasons = Vec::new();
    for (n, (spoil, reason)) in cases.into_iter().enumerate() {
        let id = dir.put(&store, n as u64, 5000).await;
        spoil(&dir.snapshot(&id));
        reasons.push(reason);
    }
    let snapshots = dir.snapshot(&good).parent().unwrap().to_owned();
    for odd in ["..dots", "späte\nZeile", "%2e%2e", "-", "dump.rdb"] {
        fs::create_dir(snapshots.join(odd)).unwrap();
        reasons.push("is not a snapshot name");
    }
    let not_text = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    fs::create_dir(snapshots.join(not_text)).unwrap();
    reasons.push("is not a snapshot name");

    let entries = store.list().await.unwrap();
    assert_eq!(entries.len(), reasons.len() + 1);
    let mut problems: Vec<String> = entries.iter().filter_map(|e| e.usable(Some("c1")).err()).map(|p| p.to_string()).collect();
    for reason in reasons {
        let at = problems.iter().position(|p| p.contains(reason)).unwrap_or_else(|| panic!("no {reason:?} in {problems:#?}"));
        problems.remove(at);
    }
    assert!(problems.is_empty(), "{problems:#?}");
    let usable: Vec<_> = entries.iter().filter_map(|e| e.usable(Some("c1")).ok()).collect();
    assert_eq!(usable.len(), 1);
    assert_eq!(usable[0].0, &good);
    let error = store.get(&SnapshotId::new(0, 5_000_000, 0), &dir.0.join("x"), &report()).await.unwrap_err();
    assert!(matches!(error, Error::Unusable { .. }) && error.blames_snapshot(), "{error}");
}

#[tokio::test]
async fn a_pipe_for_a_manifest_does_not_hang() {
    let dir = Dir::new();
    let store = dir.store();
    let id = dir.put(&store, 1, 1000).await;
    let path = dir.snapshot(&id).join("manifest.json");
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let entries = store.list().await.unwrap();
    assert_eq!(entries[0].usable(None), Err(Problem::NotAFile("manifest.json")));
}

/// Has a directory look as if nobody had changed it for an hour.
fn rest(directory: &Path) {
    let an_hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(directory).unwrap().set_modified(an_hour_ago).unwrap();
}

#[tokio::test]
async fn a_thousand_snapshots_are_listed() {
    let dir = Dir::new();
    let store = dir.store();
    let first = dir.put(&store, 1, 0).await;
    let manifest = store.manifest(&first).await.unwrap();
    for n in 1..1000 {
        let copy = Manifest { created_ms: n * 1000, ..manifest.clone() };
        let at = dir.snapshot(&copy.id());
        fs::create_dir(&at).unwrap();
        fs::write(at.join("dump.rdb"), DUMP_BYTES).unwrap();
        fs::write(at.join("manifest.json"), copy.to_json()).unwrap();
        rest(&at);
    }
    let entries = store.list().await.unwrap();
    assert_eq!(entries.iter().filter(|e| e.snapshot.is_ok()).count(), 1000);
    let again = store.list().await.unwrap();
    let (Ok((_, before)), Ok((_, after))) = (&entries[500].snapshot, &again[500].snapshot) else { panic!("both are usable") };
    assert!(Arc::ptr_eq(before, after), "read once");
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_no_snapshot() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.0.join("large.rdb");
    fs::write(&dump, large_dump(32 << 20)).unwrap();
    let manifest = manifest(&dump, 1, 1000);
    let report = report();
    let mut progress = report.subscribe();
    tokio::select! {
        done = store.put(&dump, manifest, &report) => panic!("finished before it was dropped: {done:?}"),
        seen = progress.wait_for(|p| p.stage == Stage::Uploading) => assert!(seen.is_ok()),
    }
    assert!(store.list().await.unwrap().is_empty());
    let now_ms = u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    assert_eq!(store.sweep(now_ms).await.unwrap(), 0, "too young");
    assert_eq!(store.sweep(now_ms + STALE_MS + 1000).await.unwrap(), 1);
    assert_eq!(dir.incoming(), 0);
}

#[tokio::test]
async fn an_upload_is_tried_again_and_says_why() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.dump();
    // A file where a directory belongs: nothing can be written below.
    fs::create_dir_all(dir.0.join("store/role/test")).unwrap();
    fs::write(dir.0.join("store").join(CLUSTER), "").unwrap();
    let report = report();
    let error = store.put(&dump, manifest(&dump, 1, 1000), &report).await.unwrap_err();
    assert!(report.borrow().error.as_deref().is_some_and(|e| e.contains("mkdirs")), "{:?}", report.borrow().error);
    assert!(!error.is_retryable(), "{error}");
    assert!(store.check_writable().await.is_err());
    fs::remove_file(dir.0.join("store").join(CLUSTER)).unwrap();
    store.check_writable().await.unwrap();
    assert_eq!(dir.incoming(), 0);
}

#[tokio::test]
async fn a_binary_is_fetched_by_its_sum() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    let source = dir.0.join("redis-server");
    fs::write(&source, "#!/bin/sh\n").unwrap();
    let sum = Sha256(sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix("#!/bin/sh\n")).into());
    let (uri, dest) = (format!("file://{}", source.display()), dir.0.join("bin"));
    fs::write(&dest, "older").unwrap();
    let wrong = fetch_file(&uri, Sha256([7; 32]), &dest, &quick(), &report()).await.unwrap_err();
    assert!(matches!(wrong, Error::OtherFile { found, .. } if found == sum), "{wrong}");
    assert_eq!(fs::read(&dest).unwrap(), b"older");
    fetch_file(&uri, sum, &dest, &quick(), &report()).await.unwrap();
    assert_eq!(fs::read(&dest).unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::metadata(&dest).unwrap().permissions().mode() & 0o777, 0o755);
    let missing = fetch_file(&format!("{uri}-none"), sum, &dest, &quick(), &report()).await.unwrap_err();
    assert_eq!((missing.kind(), missing.is_retryable()), ("missing", false));
}

#[test]
fn addresses_that_cannot_be_used_say_why() {
    for (uri, why) in [
        ("", "no scheme"),
        ("/var/snapshots", "no scheme"),
        ("s3://bucket/x", "neither hdfs nor file"),
        ("file://relative/x", "absolute path"),
        ("file:///", "no path"),
        ("file:///a/../b", "'..'"),
        ("hdfs:///x", "neither host nor nameservice"),
        ("hdfs://nn:8020/redis:6379", "':'"),
        ("hdfs://unknown-nameservice/x", "nameservice without a configuration"),
    ] {
        let options = Options { access: Access { conf_dir: Some("/nonexistent".into()), kerberos: None }, ..Options::default() };
        let text = Store::open(uri, CLUSTER, options).err().unwrap().to_string();
        assert!(text.contains(why), "{uri}: {text}");
    }
    for cluster in ["", "a/b", "a/b/c/d", "a/../c", "a/b/", "a/b/c:d"] {
        assert!(Store::open("file:///x", cluster, Options::default()).is_err(), "{cluster}");
    }
}
