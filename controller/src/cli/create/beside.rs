//! `create --from`: what a new cluster is to be born from comes into its store before there is a job.
//!
//! Invariant: nothing is put beside data that is there already: neither a record nor a snapshot may exist, but what an earlier try of the same
//! command has imported. The cluster that the source belongs to is only read.

use agent::record::Record;
use agent::snapshot::SnapshotId;
use agent::store::{Entry, Foreign, Options, Store};
use agent::zk::{self, Keeper};

use super::super::{Context, Failure, snapshots};
use crate::cluster_file::ClusterFile;
use crate::config::Place;

/// A source that was found, and a store that is free for it.
pub(super) struct Beside {
    store: Store,
    foreign: Foreign,
    /// Imported by an earlier try.
    there: Option<SnapshotId>,
}

impl Beside {
    /// Looks at the source, the record and the store; changes nothing.
    pub async fn look(context: &Context, file: &ClusterFile, source: &str) -> Result<Beside, Failure> {
        let place = &context.place;
        let uri = store_uri(place, file)?;
        let foreign = snapshots::find(place, source).await?;
        refuse_record(place, context.keeper().await?, None).await?;
        let store = Store::open(&uri, &place.cluster, Options::reaching(&place.hdfs))?;
        let there = already(&store.list().await?, foreign.address()).map_err(|why| Failure::Failed(format!("{uri}: {why}")))?;
        Ok(Beside { store, foreign, there })
    }

    /// The source's address.
    pub fn address(&self) -> &str {
        self.foreign.address()
    }

    /// What of it would be done, for a dry run.
    pub fn describe(&self) -> serde_json::Value {
        let manifest = self.foreign.manifest();
        serde_json::json!({
            "address": self.address(),
            "bytes": self.foreign.bytes(),
            "keys": manifest.and_then(|m| m.total_keys()),
            "created": manifest.map(|m| &m.created),
            "imported": self.there,
        })
    }

    /// Imports it, unless that was done; the snapshot that the cluster is to be born from.
    pub async fn import(&self, context: &Context) -> Result<SnapshotId, Failure> {
        let id = match &self.there {
            Some(id) => id.clone(),
            None => snapshots::take_in(&self.store, &self.foreign).await?,
        };
        // Its instances may have been there, without a record: then it may have been born meanwhile.
        refuse_record(&context.place, context.keeper().await?, Some(&id)).await?;
        Ok(id)
    }
}

/// Where the agents will look.
fn store_uri(place: &Place, file: &ClusterFile) -> Result<String, Failure> {
    let trimmed = |uri: &str| uri.trim_end_matches('/').to_owned();
    match (file.snapshots_uri().map(trimmed), place.snapshots_uri.as_deref().map(trimmed)) {
        (Some(of_file), Some(ours)) if of_file != ours => Err(Failure::Usage(format!(
            "snapshots.uri is {of_file} in the cluster file and {ours} for the command line: a cluster is born from what its agents \
             and its controller find in the same store"
        ))),
        (Some(uri), _) | (None, Some(uri)) => Ok(uri),
        (None, None) => Err(Failure::Usage("snapshots.uri is not set: --from needs a store to import into".into())),
    }
}

/// Fails when there is a record, unless it is that of a cluster born from this very snapshot.
async fn refuse_record(place: &Place, keeper: &Keeper, born_from: Option<&SnapshotId>) -> Result<(), Failure> {
    let path = place.paths().record();
    let Some(node) = zk::read(&keeper.client()?, &path).await? else { return Ok(()) };
    let record: Option<Record> = serde_json::from_slice(&node.data).ok();
    let born = record.and_then(|record| record.restored).map(|restored| restored.snapshot);
    if born.is_some() && born.as_ref() == born_from {
        return Ok(());
    }
    let what = match born_from {
        None => {
            "nothing was imported. To put other data into it: aurora-redis snapshots import SOURCE, then aurora-redis restore"
                .into()
        }
        Some(id) => format!(
            "it was born while snapshot {id} was being imported, without it. To put it in: aurora-redis restore {id} --dry-run"
        ),
    };
    Err(Failure::Failed(format!("{} is no new cluster, for {path} is there: {what}", place.cluster)))
}

/// What an earlier try has imported from `address`; an error when anything else is there. Pure.
fn already(entries: &[Entry], address: &str) -> Result<Option<SnapshotId>, String> {
    let earlier =
        |entry: &Entry| entry.imported().filter(|(_, _, imported)| imported.from == address).map(|(id, _, _)| id.clone());
    match entries {
        [] => Ok(None),
        [only] if only.marks.verification.as_ref().is_none_or(|v| v.problem.is_none()) && earlier(only).is_some() => {
            Ok(earlier(only))
        }
        [first, ..] => Err(format!(
            "the store holds {} snapshots of this cluster already, such as {}: nothing was imported. A cluster beside another one needs a job \
             key, or a store, of its own",
            entries.len(),
            first.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use agent::rdb;
    use agent::snapshot::{Imported, Manifest, Marks, Problem, Verification};

    use super::*;

    const DUMP: &[u8] = include_bytes!("../../../../agent/testdata/small.rdb");

    fn imported(from: &str, marks: Marks) -> Entry {
        let walked = rdb::walk(DUMP).unwrap().unwrap();
        let imported = Imported { from: from.into(), at_ms: 1_795_499_035_000, ..Imported::default() };
        let manifest = Manifest::of_import(imported, None, 0, &walked);
        Entry { name: manifest.id().to_string(), snapshot: Ok((manifest.id(), Arc::new(manifest))), marks }
    }

    #[test]
    fn only_what_an_earlier_try_has_imported_may_be_there() {
        let bad = Verification {
            at_ms: 1,
            by: String::new(),
            problem: Some("piece 2".into()),
            keys: None,
            loaded_by: None,
            took_ms: 1,
        };
        let bad = Marks { verification: Some(bad), ..Marks::default() };
        let ours = || imported("hdfs://a/x", Marks::default());
        let broken = Entry { snapshot: Err(Problem::Missing("manifest.json")), ..ours() };
        assert_eq!(already(&[], "hdfs://a/x"), Ok(None));
        assert_eq!(already(&[ours()], "hdfs://a/x").unwrap().map(|id| id.to_string()), Some(ours().name));
        for (name, entries) in [
            ("from elsewhere", vec![imported("hdfs://a/y", Marks::default())]),
            ("found bad", vec![imported("hdfs://a/x", bad)]),
            ("another one beside it", vec![ours(), ours()]),
            ("no manifest", vec![broken]),
        ] {
            let why = already(&entries, "hdfs://a/x").expect_err(name);
            assert!(why.contains("snapshots of this cluster already, such as 0000000000-"), "{name}: {why}");
        }
    }
}
