//! The store, polled: which snapshots there are, which are good, and whose they are.

use std::sync::Arc;
use std::time::Duration;

use agent::causes::chain;
use agent::snapshot::{self, Marks, SnapshotId};
use agent::store::{Entry, Store};
use agent::zk::Watched;
use tokio::sync::{Notify, watch};

use super::Polled;
use crate::model::StoreView;
use crate::view::SnapshotRow;

/// Time between two listings when nothing asks for one earlier.
const EVERY: Duration = Duration::from_secs(10);

/// Lists for as long as somebody listens: regularly, and whenever `again` is notified. `record` gives the lineage and the cluster id.
pub fn poll(store: Option<Store>, record: watch::Receiver<Watched>, again: Arc<Notify>) -> watch::Receiver<Polled<StoreView>> {
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
            let listed = store.list().await;
            let record = record.borrow().node.clone();
            tx.send_modify(|polled| match listed {
                Ok(entries) => *polled = Polled { view: catalogue(&entries, record.as_ref()), problem: None },
                Err(error) => polled.problem = Some(chain(&error)),
            });
            let _ = tokio::time::timeout(EVERY, again.notified()).await;
        }
    });
    rx
}

/// The catalogue, best first; what cannot be used stands behind, with the reason.
fn catalogue(entries: &[Entry], record: Option<&agent::zk::Node>) -> StoreView {
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
    let marks = |id: &SnapshotId| entries.iter().find(|e| e.name == id.as_str()).map(|e| e.marks.clone()).unwrap_or_default();
    let mut rows: Vec<SnapshotRow> = snapshot::rank(usable, epoch_of).into_iter().map(|(id, m)| good(id, m, marks(id))).collect();
    rows.extend(entries.iter().filter_map(|entry| bad(entry, cluster_id)));
    StoreView { configured: true, snapshots: Some(rows), cluster_id: owner }
}

fn good(id: &SnapshotId, manifest: &snapshot::Manifest, marks: Marks) -> SnapshotRow {
    SnapshotRow {
        id: id.clone(),
        good: true,
        problem: None,
        bytes: manifest.bytes,
        epoch: manifest.epoch,
        position: manifest.position.clone(),
        created_ms: manifest.created_ms,
        keys: manifest.total_keys(),
        server: manifest.server_version.clone(),
        instance: manifest.instance,
        pin: marks.pin,
        verification: marks.verification,
    }
}

/// A snapshot that cannot be used. Directories whose names are none of ours are left out: nobody can name them.
fn bad(entry: &Entry, cluster_id: Option<&str>) -> Option<SnapshotRow> {
    let problem = entry.usable(cluster_id).err()?;
    let id: SnapshotId = entry.name.parse().ok()?;
    Some(SnapshotRow {
        good: false,
        problem: Some(chain(&problem)),
        bytes: 0,
        epoch: id.epoch(),
        position: None,
        created_ms: id.created_s() * 1000,
        keys: None,
        server: String::new(),
        instance: 0,
        pin: entry.marks.pin.clone(),
        verification: entry.marks.verification.clone(),
        id,
    })
}
