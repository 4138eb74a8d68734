//! The store, polled: which snapshots there are, which are good, and whose they are. Those that were imported are nobody's, and stand apart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::causes::chain;
use agent::snapshot::{self, Guard, Marks, Problem, SnapshotId};
use agent::store::{Entry, Store};
use agent::zk::Watched;
use tokio::sync::{Notify, watch};

use super::Polled;
use crate::model::StoreView;
use crate::view::SnapshotRow;

/// Time between two listings when nothing asks for one earlier.
const EVERY: Duration = Duration::from_secs(10);
/// The same while there is no record: what is stored decides how the cluster is born, and may have been imported only just before.
const EVERY_UNBORN: Duration = Duration::from_millis(500);

/// Lists for as long as somebody listens: regularly, and whenever `again` is notified. `record` gives the lineage and the cluster id; times count
/// from `start`.
pub fn poll(
    store: Option<Store>,
    record: watch::Receiver<Watched>,
    again: Arc<Notify>,
    guard: Guard,
    start: Instant,
) -> watch::Receiver<Polled<StoreView>> {
    let configured = StoreView { configured: store.is_some(), ..StoreView::default() };
    let (tx, rx) = watch::channel(Polled { view: configured, problem: None });
    let Some(store) = store else {
        // Without a store the catalogue is known: it is empty. The sender is kept, or the receiver would spin on its end.
        tx.send_modify(|polled| polled.view.snapshots = Some(Vec::new()));
        tokio::spawn(async move { tx.closed().await });
        return rx;
    };
    tokio::spawn(async move {
        while !tx.is_closed() {
            let begun = start.elapsed();
            let listed = store.list().await;
            let record = record.borrow().node.clone();
            let every = if record.is_some() { EVERY } else { EVERY_UNBORN };
            tx.send_modify(|polled| match listed {
                Ok(entries) => {
                    let view = StoreView { listed: Some(begun), ..catalogue(&entries, record.as_ref(), guard) };
                    *polled = Polled { view, problem: None };
                }
                Err(error) => polled.problem = Some(chain(&error)),
            });
            let _ = tokio::time::timeout(every, again.notified()).await;
        }
    });
    rx
}

/// The catalogue, best first; what is suspicious stands in its place, behind come those that were imported, the last one first, and then what cannot
/// be used, with the reason.
fn catalogue(entries: &[Entry], record: Option<&agent::zk::Node>, guard: Guard) -> StoreView {
    let record: Option<agent::record::Record> = record.and_then(|node| serde_json::from_slice(&node.data).ok());
    let cluster_id = record.as_ref().map(|r| r.cluster_id.as_str());
    let usable: Vec<_> = entries.iter().filter_map(|e| e.usable(cluster_id).ok()).collect();
    let mut owners: Vec<&str> = usable.iter().map(|(_, m)| m.cluster_id.as_str()).collect();
    owners.sort_unstable();
    owners.dedup();
    let owner = match owners[..] {
        [one] => Some(one.to_owned()),
        _ => None,
    };
    let epoch_of = |replid: &str| record.as_ref().and_then(|r| r.epoch_of(replid));
    let by_name: HashMap<&str, &Entry> = entries.iter().map(|e| (e.name.as_str(), e)).collect();
    let marks = |id: &SnapshotId| by_name.get(id.as_str()).map(|e| e.marks.clone()).unwrap_or_default();
    // What was found bad tells by its manifest what there was.
    let own = entries.iter().filter_map(|e| e.of_cluster(cluster_id).ok());
    let suspicious = guard.suspicious(&snapshot::rank(own, epoch_of), |id| marks(id).accepted.is_some());
    let ranked = snapshot::rank(usable, epoch_of).into_iter();
    let mut rows: Vec<SnapshotRow> = ranked.map(|(id, m)| whole(id, m, marks(id), suspicious.get(id))).collect();
    // What was replaced by a restore comes after what the present data began with.
    let replaced = |row: &SnapshotRow| {
        let position = row.position.as_ref().map(|p| (p.replid.as_str(), p.offset));
        let epoch = position.and_then(|(replid, _)| epoch_of(replid)).unwrap_or(row.epoch);
        let began = |r: &agent::record::Record| r.restored.as_ref().is_some_and(|restored| restored.snapshot == row.id);
        record.as_ref().is_some_and(|r| !began(r) && r.is_replaced(position, epoch))
    };
    rows.sort_by_cached_key(replaced);
    let mut imports: Vec<SnapshotRow> = entries.iter().filter_map(import).collect();
    imports.sort_by_cached_key(|row| std::cmp::Reverse((row.imported.as_ref().map(|i| i.at_ms), row.id.clone())));
    rows.extend(imports);
    rows.extend(entries.iter().filter_map(|entry| bad(entry, cluster_id)));
    StoreView { configured: true, snapshots: Some(rows), listed: None, cluster_id: owner }
}

/// Nothing is wrong with it, except perhaps that it is suspicious.
fn whole(id: &SnapshotId, manifest: &snapshot::Manifest, marks: Marks, suspicious: Option<&String>) -> SnapshotRow {
    SnapshotRow {
        id: id.clone(),
        good: suspicious.is_none(),
        problem: suspicious.map(|why| format!("suspicious: {why}")),
        suspicious: suspicious.is_some(),
        bytes: manifest.bytes,
        epoch: manifest.epoch,
        position: manifest.position.clone(),
        created_ms: manifest.created_ms,
        keys: manifest.total_keys(),
        server: manifest.server_version.clone(),
        rdb: manifest.rdb.to_string(),
        instance: manifest.instance,
        request_id: manifest.request_id.clone(),
        pin: marks.pin,
        verification: marks.verification,
        accepted: marks.accepted,
        rehearsal: marks.rehearsal,
        imported: manifest.imported.clone(),
    }
}

/// One that was imported: never good, whatever it is worth.
fn import(entry: &Entry) -> Option<SnapshotRow> {
    let (id, manifest, _) = entry.imported()?;
    let found = entry.marks.verification.as_ref().and_then(|v| v.problem.clone());
    let problem = found.map(|found| chain(&Problem::Verified(found)));
    Some(SnapshotRow { good: false, problem, ..whole(id, manifest, entry.marks.clone(), None) })
}

/// A snapshot that cannot be used. Directories whose names are none of ours are left out: nobody can name them.
fn bad(entry: &Entry, cluster_id: Option<&str>) -> Option<SnapshotRow> {
    if entry.imported().is_some() {
        return None;
    }
    let problem = entry.usable(cluster_id).err()?;
    let id: SnapshotId = entry.name.parse().ok()?;
    Some(SnapshotRow {
        good: false,
        problem: Some(chain(&problem)),
        suspicious: false,
        bytes: 0,
        epoch: id.epoch(),
        position: None,
        created_ms: id.created_s() * 1000,
        keys: None,
        server: String::new(),
        rdb: String::new(),
        instance: 0,
        request_id: None,
        pin: entry.marks.pin.clone(),
        verification: entry.marks.verification.clone(),
        accepted: entry.marks.accepted.clone(),
        rehearsal: entry.marks.rehearsal.clone(),
        imported: None,
        id,
    })
}

#[cfg(test)]
mod tests {
    use agent::rdb::{Checked, Digest};
    use agent::snapshot::{Acceptance, Imported, Made, Manifest, Origin, Verification};

    use super::*;

    /// A snapshot of epoch 4 made at `created_s` that holds so many keys.
    fn entry(created_s: u64, keys: u64, marks: Marks) -> Entry {
        let mut digest = Digest::default();
        digest.update(include_bytes!("../../../agent/testdata/small.rdb"));
        let (sums, rdb) = digest.finish();
        let origin = Origin {
            cluster_id: "c".into(),
            epoch: 4,
            keys: Some([(0, keys)].into()),
            created_ms: created_s * 1000,
            ..Origin::default()
        };
        let manifest = Manifest { position: None, ..Manifest::new(origin, &Checked { sums, rdb: rdb.unwrap() }) };
        Entry { name: manifest.id().to_string(), snapshot: Ok((manifest.id(), Arc::new(manifest))), marks }
    }

    fn plain(created_s: u64, keys: u64) -> Entry {
        entry(created_s, keys, Marks::default())
    }

    /// When they were made, and what they are: good, suspicious or unusable.
    fn rows(entries: &[Entry]) -> Vec<(u64, &'static str)> {
        let rows = catalogue(entries, None, Guard::default()).snapshots.unwrap();
        let state = |row: &SnapshotRow| match (row.good, row.suspicious) {
            (false, false) if row.is_import() => "imported",
            (true, false) => "good",
            (false, true) => "suspicious",
            (false, false) => "unusable",
            (true, true) => "both",
        };
        rows.iter().map(|row| (row.created_ms / 1000, state(row))).collect()
    }

    #[test]
    fn a_collapsed_one_stands_in_its_place_and_is_not_good() {
        let entries = [plain(1, 5000), plain(2, 3), plain(3, 4)];
        assert_eq!(rows(&entries), [(3, "suspicious"), (2, "suspicious"), (1, "good")]);
    }

    #[test]
    fn an_accepted_one_is_good_and_the_base_of_what_comes_after_it() {
        let accepted = Marks { accepted: Some(Acceptance::default()), ..Marks::default() };
        let entries = [plain(1, 5000), plain(2, 3), entry(3, 4, accepted), plain(4, 2)];
        assert_eq!(rows(&entries), [(4, "good"), (3, "good"), (2, "suspicious"), (1, "good")]);
    }

    #[test]
    fn one_that_was_found_bad_still_tells_what_there_was() {
        let bad = Verification {
            at_ms: 1,
            by: String::new(),
            problem: Some("piece 2".into()),
            keys: None,
            loaded_by: None,
            took_ms: 0,
        };
        let bad = Marks { verification: Some(bad), ..Marks::default() };
        let entries = [plain(1, 4000), entry(2, 5000, bad), plain(3, 3)];
        assert_eq!(rows(&entries), [(3, "suspicious"), (1, "good"), (2, "unusable")]);
    }

    #[test]
    fn what_has_not_the_name_of_a_snapshot_is_left_out_and_what_is_broken_stands_last() {
        let odd =
            |name: &str| Entry { name: name.into(), snapshot: Err(Problem::NotAName("no".into())), marks: Marks::default() };
        let broken = Entry { snapshot: Err(Problem::Missing("manifest.json")), ..plain(9, 1) };
        let entries = [odd(".."), odd("späte\nZeile"), odd("\u{fffd}"), broken, plain(1, 1), odd("dump.rdb")];
        assert_eq!(rows(&entries), [(1, "good"), (9, "unusable")]);
    }

    /// One that was imported at `at_s`, of data of `created_s`.
    fn imported(created_s: u64, at_s: u64, keys: u64, marks: Marks) -> Entry {
        let made = entry(created_s, keys, marks);
        let (_, manifest) = made.snapshot.unwrap();
        let imported = Some(Imported { at_ms: at_s * 1000, ..Imported::default() });
        let manifest = Manifest { epoch: 0, how: Made::Import, imported, ..(*manifest).clone() };
        Entry { name: manifest.id().to_string(), snapshot: Ok((manifest.id(), Arc::new(manifest))), marks: made.marks }
    }

    #[test]
    fn an_imported_one_is_nobodys_never_the_best_and_no_base_of_the_guard() {
        // The newest data, and the most of it: all the same the cluster's own ones stand before it, and are judged among themselves.
        let entries = [plain(1, 10), imported(9, 5, 5000, Marks::default()), imported(8, 6, 1, Marks::default()), plain(2, 9)];
        assert_eq!(rows(&entries), [(2, "good"), (1, "good"), (8, "imported"), (9, "imported")]);
        let alone = catalogue(&entries[1..3], None, Guard::default());
        assert_eq!(alone.cluster_id, None, "it tells no cluster");
        assert_eq!(catalogue(&entries, None, Guard::default()).cluster_id.as_deref(), Some("c"));
    }

    #[test]
    fn an_imported_one_that_was_found_bad_cannot_be_named() {
        let (at_ms, took_ms) = (1, 1);
        let problem = Some("piece 2".into());
        let bad = Verification { at_ms, by: String::new(), problem, keys: None, loaded_by: None, took_ms };
        let marks = Marks { verification: Some(bad), ..Marks::default() };
        assert_eq!(rows(&[imported(9, 5, 7, marks)]), [(9, "unusable")]);
    }
}
