//! Dumps from elsewhere: found, judged as they come, kept apart from the cluster's own, and refused without a trace when they are no good.

use std::collections::BTreeMap;

use super::*;
use crate::snapshot::{Made, Verification};

/// The dump at an address, which must be one.
async fn dump_at(address: &str) -> Result<Foreign, Error> {
    match Elsewhere::look(address, &quick()).await? {
        Elsewhere::Dump(dump) => Ok(dump),
        Elsewhere::Job(_) => panic!("{address} is taken for a job's directory"),
    }
}

async fn import(store: &Store, address: &str) -> Result<SnapshotId, Error> {
    store.import(&dump_at(address).await?, "ann@ops1", &report()).await
}

/// Every file below a directory, with its bytes and its time.
fn everything_below(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let modified = entry.metadata().unwrap().modified().unwrap();
        if entry.path().is_dir() {
            found.insert(entry.path(), (Vec::new(), modified));
            found.extend(everything_below(&entry.path()));
        } else {
            found.insert(entry.path(), (fs::read(entry.path()).unwrap(), modified));
        }
    }
    found
}

#[tokio::test]
async fn a_dump_is_imported_from_wherever_it_lies_and_that_place_is_only_read() {
    let (dir, other) = (Dir::new(), Dir::new());
    let (store, theirs) = (dir.store(), other.store());
    let large = other.0.join("large.rdb");
    fs::write(&large, large_dump(9 << 20)).unwrap();
    let id = theirs.put(&large, manifest(&large, 7, 1_800_000_000), &report()).await.unwrap();
    let original = other.0.join("old layout: 1");
    fs::create_dir(&original).unwrap();
    fs::copy(&large, original.join("dump.rdb")).unwrap();
    let before = everything_below(&other.0);
    let below = other.0.display();
    let snapshot = other.snapshot(&id).display().to_string();
    for (address, from, of) in [
        (format!("{below}/large.rdb"), format!("file://{below}/large.rdb"), None),
        (format!("file://{below}/large.rdb"), format!("file://{below}/large.rdb"), None),
        (format!("{below}/old layout: 1/"), format!("file://{below}/old layout: 1/dump.rdb"), None),
        (format!("file://{snapshot}/"), format!("file://{snapshot}"), Some("c1".to_owned())),
    ] {
        let imported = import(&store, &address).await.unwrap_or_else(|e| panic!("{address}: {}", one_line(&e)));
        let found = store.manifest(&imported).await.unwrap();
        assert_eq!((found.how, found.epoch, &found.position, imported.offset()), (Made::Import, 0, &None, 0), "{address}");
        assert_eq!(found.keys, Some([(0, 4), (3, 2)].into()), "{address}");
        let told = found.imported.clone().unwrap();
        assert_eq!((told.from, told.by.as_str(), told.cluster_id), (from, "ann@ops1", of), "{address}");
        let dest = dir.0.join(imported.as_str());
        assert_eq!(store.get(&imported, &dest, &report()).await.unwrap(), found);
        assert_eq!(fs::read(&dest).unwrap(), fs::read(&large).unwrap(), "{address}");
    }
    assert_eq!(everything_below(&other.0), before, "what was read was changed");
    assert_eq!((store.list().await.unwrap().len(), dir.incoming()), (4, 0));
}

#[tokio::test]
async fn an_imported_one_is_nobodys_and_is_told_from_all_others() {
    let dir = Dir::new();
    let store = dir.store();
    let own = dir.put(&store, 4, 1_700_000_000).await;
    let imported = import(&store, &dir.snapshot(&own).display().to_string()).await.unwrap();
    assert_eq!(imported.epoch(), 0);
    let entries = store.list().await.unwrap();
    let entry = entries.iter().find(|entry| entry.name == imported.as_str()).unwrap();
    for cluster in [Some("c1"), Some("imported"), None] {
        assert!(matches!(entry.usable(cluster), Err(Problem::Imported { .. })), "{cluster:?}");
    }
    assert_eq!(entry.imported().map(|(id, _, _)| id), Some(&imported));
    assert!(entries.iter().any(|entry| entry.imported().is_none() && entry.usable(Some("c1")).is_ok()));
    let ranked = rank(entries.iter().filter_map(|e| e.usable(None).ok()), |_| None);
    assert_eq!(ranked.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [&own]);
}

#[tokio::test]
async fn the_time_of_the_data_counts_and_never_one_that_has_not_come() {
    let dir = Dir::new();
    let store = dir.store();
    let dump = dir.dump();
    let own = rdb::check_file(&dump).unwrap().unwrap().rdb.created_s.unwrap();
    let imported = import(&store, &dump.display().to_string()).await.unwrap();
    assert_eq!(imported.created_s(), own, "the dump tells when it was made");
    let future = store.put(&dump, manifest(&dump, 4, 9_000_000_000), &report()).await.unwrap();
    let imported = import(&store, &dir.snapshot(&future).display().to_string()).await.unwrap();
    assert!(imported.created_s() <= unix_ms() / 1000, "{imported}");
}

#[tokio::test]
async fn a_job_directory_is_told_and_its_snapshots_are_had_by_name() {
    let (dir, other) = (Dir::new(), Dir::new());
    let theirs = other.store();
    let id = other.put(&theirs, 4, 1_700_000_000).await;
    let job = format!("file://{}/store/{CLUSTER}", other.0.display());
    let Elsewhere::Job(found) = Elsewhere::look(&job, &quick()).await.unwrap() else { panic!("it is a job's directory") };
    assert_eq!(found.list().await.unwrap().len(), 1);
    let dump = found.dump(&id).await.unwrap();
    assert_eq!((dump.address(), dump.manifest().map(|m| m.epoch)), (format!("{job}/snapshots/{id}").as_str(), Some(4)));
    dir.store().import(&dump, "ann", &report()).await.unwrap();
    let error = found.dump(&id.later()).await.err().unwrap();
    assert!(one_line(&error).contains("there is nothing"), "{}", one_line(&error));
}

/// What makes one source bad, given a directory of its own and a good dump.
type Spoil = fn(&Path, &[u8]);

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

const ID: &str = "0000000004-20261124T054355Z-00000000000000000000";

/// A whole snapshot's directory below `dir`, its manifest changed.
fn snapshot(dir: &Path, dump: &[u8], change: impl FnOnce(&mut Manifest)) {
    write(dir, &format!("{ID}/dump.rdb"), dump);
    let mut made = manifest(&dir.join(ID).join("dump.rdb"), 4, 1_795_499_035);
    (made.position, made.created_ms) = (None, 1_795_499_035_000);
    change(&mut made);
    write(dir, &format!("{ID}/manifest.json"), &made.to_json());
}

#[tokio::test]
async fn what_is_no_good_is_refused_with_the_reason_and_leaves_nothing() {
    let cases: &[(&str, &str, Spoil, &str)] = &[
        ("missing", "x.rdb", |_, _| (), "there is nothing; expected is an RDB file"),
        ("missing, by URL", "URL:x.rdb", |_, _| (), "there is nothing; expected is an RDB file"),
        ("below a file", "x/y", |d, b| write(d, "x", b), "Not a directory"),
        ("empty", "x", |d, _| write(d, "x", b""), "it has only 0 bytes"),
        ("not an RDB", "x", |d, _| write(d, "x", &[b'a'; 5 << 20]), "not a dump"),
        ("an append-only file", "x", |d, _| write(d, "x", b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"), "not a dump"),
        ("truncated", "x", |d, b| write(d, "x", &b[..b.len() - 30]), "truncated"),
        ("cut in the checksum", "x", |d, b| write(d, "x", &b[..b.len() - 1]), "truncated"),
        ("trailing bytes", "x", |d, b| write(d, "x", &[b, b"x"].concat()), "1 bytes follow its end"),
        ("a flipped bit", "x", |d, b| write(d, "x", &flipped(b, b.len() / 2)), "damaged"),
        ("a flipped bit in the checksum", "x", |d, b| write(d, "x", &flipped(b, b.len() - 1)), "its checksum at offset"),
        ("a newer format", "x", |d, b| write(d, "x", &newer(b)), "its format REDIS0099 is newer than any this program knows"),
        ("a pipe", "x", |d, _| pipe(&d.join("x")), "neither a file nor a directory"),
        ("an empty directory", "", |_, _| (), "it is a directory with nothing in it that could be imported"),
        ("another directory", "", |d, b| write(d, "appendonlydir/base.rdb", b), "nothing in it that could be imported"),
        ("a directory where dump.rdb should be", "", |d, b| write(d, "dump.rdb/x", b), "dump.rdb in it is not a file"),
        (
            "both layouts",
            "",
            |d, b| {
                write(d, "dump.rdb", b);
                write(d, "snapshots/x", b)
            },
            "holds both dump.rdb and snapshots/",
        ),
        ("truncated, in the original layout", "", |d, b| write(d, "dump.rdb", &b[..90]), "truncated"),
        ("no manifest", ID, |d, b| write(d, &format!("{ID}/dump.rdb"), b), "manifest.json is missing"),
        (
            "no dump",
            ID,
            |d, b| {
                snapshot(d, b, |_| ());
                fs::remove_file(d.join(ID).join("dump.rdb")).unwrap()
            },
            "dump.rdb is missing",
        ),
        (
            "another manifest",
            ID,
            |d, b| {
                snapshot(d, b, |_| ());
                write(d, &format!("{ID}/manifest.json"), b"{}")
            },
            "does not fit",
        ),
        ("a manifest of a newer format", ID, |d, b| snapshot(d, b, |m| m.format = 7), "format 7, newer than 1"),
        ("another one's manifest", ID, |d, b| snapshot(d, b, |m| m.epoch = 5), "it lies under the name"),
        ("another length", ID, |d, b| snapshot(d, b, |m| m.bytes -= 1), "its manifest says"),
        ("another piece", ID, |d, b| snapshot(d, b, |m| m.pieces[0] = Sha256([1; 32])), "piece 1 of 1"),
        ("another sum", ID, |d, b| snapshot(d, b, |m| m.sha256 = Sha256([1; 32])), "the whole has SHA-256"),
        (
            "a good dump of other bytes",
            ID,
            |d, b| {
                snapshot(d, b, |_| ());
                fs::write(d.join(ID).join("dump.rdb"), recounted(b)).unwrap()
            },
            "piece 1 of 1",
        ),
        (
            "one that was verified and found bad",
            ID,
            |d, b| {
                snapshot(d, b, |_| ());
                found_bad(&d.join(ID))
            },
            "it was verified and found bad: no server",
        ),
        ("another scheme", "SCHEME:s3://bucket/dump.rdb", |_, _| (), "its scheme is neither hdfs nor file"),
        ("a host in a file URL", "SCHEME:file://host/dump.rdb", |_, _| (), "followed by an absolute path"),
        ("hdfs without a host", "SCHEME:hdfs:///dump.rdb", |_, _| (), "neither host nor nameservice"),
        ("no address", "SCHEME:", |_, _| (), "cannot make an empty path absolute"),
    ];
    for (name, path, spoil, reason) in cases {
        let (dir, other) = (Dir::new(), Dir::new());
        spoil(&other.0, DUMP_BYTES);
        let below = other.0.display();
        let address = match path.split_once(':') {
            Some(("SCHEME", address)) => address.to_owned(),
            Some((_, path)) => format!("file://{below}/{path}"),
            None => format!("{below}/{path}"),
        };
        let store = dir.store();
        let refused = import(&store, &address).await.map(|id| id.to_string());
        let text = refused.map_err(|e| one_line(&e)).expect_err(name);
        assert!(text.contains(reason), "{name}: {text}");
        assert!(text.contains(&address.trim_end_matches('/').replace("file://", "")), "{name}: where? {text}");
        assert_eq!((store.list().await.unwrap().len(), dir.incoming()), (0, 0), "{name}: something was left");
    }
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

fn with_sum(mut dump: Vec<u8>) -> Vec<u8> {
    dump.truncate(dump.len() - 8);
    let sum = crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(&dump);
    dump.extend_from_slice(&sum.to_le_bytes());
    dump
}

/// The same dump as a server of the future would write it.
fn newer(bytes: &[u8]) -> Vec<u8> {
    with_sum([b"REDIS0099", &bytes[9..]].concat())
}

/// A good dump of the same size that says something else.
fn recounted(bytes: &[u8]) -> Vec<u8> {
    let mut dump = bytes.to_vec();
    let at = dump.windows(5).position(|w| w == b"ctime").unwrap() + 6;
    dump[at] ^= 1;
    with_sum(dump)
}

fn pipe(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
}

fn found_bad(dir: &Path) {
    let problem = Some("no server loads it".into());
    let found = Verification { at_ms: 1, by: "ann".into(), problem, keys: None, loaded_by: None, took_ms: 1 };
    fs::write(dir.join("verified-20261124T061200Z-417.json"), serde_json::to_vec(&found).unwrap()).unwrap();
}

#[tokio::test]
async fn a_store_that_fails_leaves_no_half_of_it() {
    let (dir, other) = (Dir::new(), Dir::new());
    let store = dir.store();
    let dump = dump_at(&other.dump().display().to_string()).await.unwrap();
    // A file stands where the uploads' directory should be.
    write(&dir.0, &format!("store/{CLUSTER}/incoming"), b"in the way");
    let error = store.import(&dump, "ann", &report()).await.unwrap_err();
    assert!(one_line(&error).contains("mkdirs"), "{}", one_line(&error));
    assert!(store.list().await.unwrap().is_empty());
}
