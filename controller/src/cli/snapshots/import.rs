//! `snapshots import`: a dump from elsewhere into the cluster's store. Speaks to the two stores alone; where it comes from is only read.

use std::collections::BTreeSet;
use std::time::Instant;

use agent::causes::chain;
use agent::snapshot::{Guard, Manifest, SnapshotId};
use agent::store::{Elsewhere, Entry, Error, Foreign, Options, Progress, Report, Store};
use serde::Serialize;

use super::super::progress::ProgressLine;
use super::super::table::{bytes, clean, date};
use super::super::{Context, Failure, owner};
use super::open;
use crate::config::Place;
use crate::examine::best_first;

/// What was imported.
#[derive(Serialize)]
struct Answer {
    snapshot: SnapshotId,
    #[serde(flatten)]
    manifest: Manifest,
}

pub(in crate::cli) async fn import(context: &Context, source: &str) -> Result<(), Failure> {
    let store = open(context)?;
    let foreign = find(&context.place, source).await?;
    let snapshot = take_in(&store, &foreign).await?;
    let manifest = store.manifest(&snapshot).await?;
    let answer = Answer { snapshot, manifest };
    context.print(&answer, || render(&answer))
}

/// The dump that is meant: of another job the best good one.
pub(in crate::cli) async fn find(place: &Place, source: &str) -> Result<Foreign, Failure> {
    let found = Elsewhere::look(source, &Options::reaching(&place.hdfs)).await;
    // What a store says names its path alone.
    let told = |e| if matches!(e, Error::Remote { .. }) { Failure::Failed(format!("{source}: {}", chain(&e))) } else { e.into() };
    match found.map_err(told)? {
        Elsewhere::Dump(dump) => Ok(dump),
        Elsewhere::Job(job) => {
            let id = best(&job.list().await?, place.guard).map_err(|why| Failure::Failed(format!("{source}: {why}")))?;
            Ok(job.dump(&id).await?)
        }
    }
}

/// The best good one of another job. Pure.
fn best(entries: &[Entry], guard: Guard) -> Result<SnapshotId, String> {
    let owners: BTreeSet<&str> = entries.iter().filter_map(|e| Some(e.usable(None).ok()?.1.cluster_id.as_str())).collect();
    if owners.len() > 1 {
        return Err("it holds snapshots of more than one cluster: name the directory of one of them".into());
    }
    let best = best_first(entries, guard).into_iter().next();
    best.ok_or_else(|| {
        let imported = entries.iter().any(|entry| entry.imported().is_some());
        let hint = if imported { "; one that was imported there can be named by its directory" } else { "" };
        format!("none of its {} snapshots is a good one of its own{hint}", entries.len())
    })
}

/// Copies it in, and shows how far it is; the name it has got.
pub(in crate::cli) async fn take_in(store: &Store, foreign: &Foreign) -> Result<SnapshotId, Failure> {
    eprintln!("importing {}, {}", clean(foreign.address()), bytes(Some(foreign.bytes())));
    let report = Report::new(Progress::default());
    let (mut progress, mut line) = (report.subscribe(), ProgressLine::new());
    let mut begun = (Progress::default(), Instant::now());
    let by = owner();
    let mut import = std::pin::pin!(store.import(foreign, &by, &report));
    loop {
        tokio::select! {
            result = &mut import => {
                line.end();
                return Ok(result?);
            }
            Ok(()) = progress.changed() => {
                let now = progress.borrow_and_update().clone();
                if (now.stage, now.attempt) != (begun.0.stage, begun.0.attempt) {
                    begun = (now.clone(), Instant::now());
                }
                line.show_own(&now, begun.1.elapsed());
            }
        }
    }
}

fn render(answer: &Answer) -> String {
    let Answer { snapshot, manifest } = answer;
    let keys = manifest.total_keys().map_or("unknown".into(), |keys| keys.to_string());
    let size = bytes(Some(manifest.bytes));
    let (server, rdb, created) = (clean(&manifest.server_version), manifest.rdb, date(manifest.created_ms));
    format!(
        "{snapshot}: imported, {keys} keys, {size}, written by server {server} ({rdb}) at {created}\n\
         A cluster that is not yet born begins with it. Any other uses it only when it is named:\n  \
         aurora-redis restore {snapshot} --dry-run"
    )
}
