//! Pins and verifications: written, read, and harmless when they are damaged.

use super::*;
use crate::snapshot::{Acceptance, Pin, Verification};

fn pin(owner: &str) -> Pin {
    Pin { owner: owner.into(), reason: "before the migration".into(), at_ms: 7 }
}

fn verification(at_ms: u64, problem: Option<&str>) -> Verification {
    let keys = Some([(0, 4), (3, 1)].into());
    Verification { at_ms, by: "ann".into(), problem: problem.map(str::to_owned), keys, loaded_by: None, took_ms: 12 }
}

async fn marks(store: &Store) -> Marks {
    store.list().await.unwrap().remove(0).marks
}

#[tokio::test]
async fn a_pin_is_seen_at_once_kept_by_the_first_and_taken_away() {
    let dir = Dir::new();
    let store = dir.store();
    let id = dir.put(&store, 4, 1_795_499_035).await;
    rest(&dir.snapshot(&id));
    assert_eq!(marks(&store).await, Marks::default());
    assert!(store.pin(&id, &pin("ann")).await.unwrap());
    assert_eq!(marks(&store).await.pin, Some(pin("ann")));
    assert!(!store.pin(&id, &pin("bob")).await.unwrap(), "it is pinned");
    assert_eq!(marks(&store).await.pin, Some(pin("ann")));
    assert!(store.unpin(&id).await.unwrap());
    assert!(!store.unpin(&id).await.unwrap(), "it was not pinned any more");
    assert_eq!(marks(&store).await.pin, None);
    // So it is for changes within one step of the clock.
    for _ in 0..20 {
        assert!(store.pin(&id, &pin("ann")).await.unwrap());
        assert_eq!(marks(&store).await.pin, Some(pin("ann")));
        assert!(store.unpin(&id).await.unwrap());
        assert_eq!(marks(&store).await.pin, None);
    }
    // The dump and its manifest are what they were.
    store.verify(&id, &report()).await.unwrap();
}

#[tokio::test]
async fn a_pin_counts_whatever_it_holds_and_a_note_that_cannot_be_read_does_not() {
    let dir = Dir::new();
    let store = dir.store();
    let id = dir.put(&store, 4, 1_795_499_035).await;
    fs::write(dir.snapshot(&id).join("pinned.json"), "{\"owner\": 7").unwrap();
    fs::write(dir.snapshot(&id).join("verified-20261124T054355Z-000.json"), vec![b'x'; 100_000]).unwrap();
    fs::write(dir.snapshot(&id).join("accepted.json"), "").unwrap();
    let expected = Marks { pin: Some(Pin::default()), accepted: Some(Acceptance::default()), ..Marks::default() };
    assert_eq!(marks(&store).await, expected);
    fs::remove_dir_all(dir.snapshot(&id)).unwrap();
    assert!(matches!(store.pin(&id, &pin("ann")).await, Err(Error::Unusable { .. })), "there is nothing to pin");
}

#[tokio::test]
async fn an_acceptance_and_a_rehearsal_stand_beside_the_other_notes() {
    let dir = Dir::new();
    let store = dir.store();
    let id = dir.put(&store, 4, 1_795_499_035).await;
    let acceptance = Acceptance { owner: "ann".into(), reason: "emptied on purpose".into(), at_ms: 7 };
    assert!(store.accept(&id, &acceptance).await.unwrap());
    assert!(!store.accept(&id, &Acceptance::default()).await.unwrap(), "the first one stays");
    store.note_verification(&id, &verification(1000, None)).await.unwrap();
    for at_ms in [2000, 3000] {
        store.note_rehearsal(&id, &verification(at_ms, None)).await.unwrap();
    }
    let found = marks(&store).await;
    let notes = (found.verification.map(|v| v.at_ms), found.rehearsal.map(|v| v.at_ms));
    assert_eq!((found.accepted, notes), (Some(acceptance), (Some(1000), Some(3000))));
    let missing = SnapshotId::new(9, 0, 9);
    assert!(matches!(store.accept(&missing, &Acceptance::default()).await, Err(Error::Unusable { .. })));
}

#[tokio::test]
async fn the_last_verification_counts_and_a_bad_one_makes_the_snapshot_unusable() {
    let dir = Dir::new();
    let store = dir.store();
    let id = dir.put(&store, 4, 1_795_499_035).await;
    for (at_ms, problem) in [(1_000, None), (2_000, Some("it does not load")), (3_000, None)] {
        store.note_verification(&id, &verification(at_ms, problem)).await.unwrap();
        let entry = store.list().await.unwrap().remove(0);
        assert_eq!(entry.marks.verification, Some(verification(at_ms, problem)));
        assert_eq!(entry.usable(None).is_ok(), problem.is_none());
    }
    let notes = fs::read_dir(dir.snapshot(&id)).unwrap().filter(|e| {
        let name = e.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("verified-")
    });
    assert_eq!(notes.count(), 1, "older ones are gone");
}

#[tokio::test]
async fn verifying_tells_keys_and_every_damage() {
    let dir = Dir::new();
    let store = dir.store();
    let id = dir.put(&store, 4, 1_795_499_035).await;
    let (_, content) = store.verify(&id, &report()).await.unwrap();
    assert_eq!((content.databases[&0].keys, content.databases[&3].keys), (4, 1));
    let path = dir.snapshot(&id).join("dump.rdb");
    let mut flipped = DUMP_BYTES.to_vec();
    flipped[150] ^= 1;
    let other = include_bytes!("../../../testdata/kinds-redis-7.0.rdb");
    let text = b"not a dump at all, and of the length that the manifest says".repeat(5)[..DUMP_BYTES.len()].to_vec();
    for (what, bytes, expected) in [
        ("a flipped bit", &flipped[..], "is damaged at offset"),
        ("something else", &text, "not a dump"),
        ("cut", &DUMP_BYTES[..100], "cannot be used"),
        ("another dump", other, "cannot be used"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = store.verify(&id, &report()).await.unwrap_err();
        assert!(error.blames_snapshot() && error.to_string().contains(expected), "{what}: {error}");
    }
    fs::remove_dir_all(&dir.0).unwrap();
    let error = store.verify(&id, &report()).await.unwrap_err();
    assert!(error.blames_snapshot(), "nothing is there: {error}");
}

#[tokio::test]
async fn a_snapshot_is_removed_as_a_whole_unless_it_is_pinned() {
    let dir = Dir::new();
    let store = dir.store();
    let (old, new) = (dir.put(&store, 4, 1_795_499_035).await, dir.put(&store, 4, 1_795_499_036).await);
    store.pin(&new, &pin("ann")).await.unwrap();
    assert_eq!(store.remove(&new).await.unwrap(), Removed::Pinned);
    assert_eq!(store.remove(&old).await.unwrap(), Removed::Gone);
    let left: Vec<String> = store.list().await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!((left, dir.incoming()), (vec![new.to_string()], 0));
    assert!(store.remove(&old).await.is_err(), "it is gone already");
    store.verify(&new, &report()).await.unwrap();
}

#[tokio::test]
async fn what_an_interrupted_removal_left_is_swept_by_the_time_it_began() {
    let dir = Dir::new();
    let store = dir.store();
    let (first, second) = (dir.put(&store, 4, 1_795_499_035).await, dir.put(&store, 4, 1_795_499_036).await);
    let incoming = dir.snapshot(&first).parent().unwrap().parent().unwrap().join("incoming");
    let now_ms = 1_795_499_035_000;
    let name = |begun_ms: u64| format!("removed-{begun_ms}-{}", uuid::Uuid::new_v4().simple());
    fs::rename(dir.snapshot(&first), incoming.join(name(now_ms - STALE_MS - 1))).unwrap();
    fs::rename(dir.snapshot(&second), incoming.join(name(now_ms - 1000))).unwrap();
    for foreign in ["removed-1-x", "removed-", "removed-by-ann"] {
        fs::create_dir(incoming.join(foreign)).unwrap();
    }
    assert_eq!(store.sweep(now_ms).await.unwrap(), 1);
    assert_eq!(dir.incoming(), 4, "a removal that just began, and what is not ours");
}
