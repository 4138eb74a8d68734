//! `snapshots verify` and `snapshots rehearse`: has snapshots examined on this machine, and shows what was found.
//!
//! Speaks to the store alone: it works while no controller does.

use std::path::PathBuf;
use std::time::Instant;

use agent::snapshot::{Guard, SnapshotId};
use agent::store::Entry;

use super::super::table::{clean, time};
use super::super::{Context, Failure, owner};
use super::open;
use crate::examine::load::Server;
use crate::examine::{Examiner, Found, Rehearsal, best_first};

/// Arguments of `snapshots verify`.
pub(in crate::cli) struct Verify {
    /// This one.
    pub id: Option<SnapshotId>,
    /// All of them instead.
    pub all: bool,
    /// Only judge what is read.
    pub no_load: bool,
    /// The server's program; the one on the path when left out.
    pub redis_server: Option<PathBuf>,
}

pub(in crate::cli) async fn verify(context: &Context, wanted: Verify) -> Result<(), Failure> {
    let examiner = examiner(context, wanted.no_load, wanted.redis_server.clone()).await?;
    let chosen = choose(&examiner.store.list().await?, &wanted, context.place.guard).map_err(Failure::Failed)?;
    let mut all = Vec::new();
    for id in chosen {
        eprintln!("reading {id}");
        all.push(examiner.verify(&id).await?);
    }
    context.print(&all, || all.iter().map(render).collect())?;
    let bad = all.iter().filter(|found| found.verification.as_ref().is_none_or(|v| v.problem.is_some())).count();
    if bad == 0 { Ok(()) } else { Err(Failure::Failed(format!("{bad} of {} snapshots not verified", all.len()))) }
}

pub(in crate::cli) async fn rehearse(context: &Context, redis_server: Option<PathBuf>) -> Result<(), Failure> {
    let begun = Instant::now();
    let examiner = examiner(context, false, redis_server).await?;
    let order = best_first(&examiner.store.list().await?, context.place.guard);
    let rehearsal = examiner.rehearse(&order, begun).await.map_err(Failure::Failed)?;
    context.print(&rehearsal, || render_rehearsal(&rehearsal))
}

async fn examiner(context: &Context, no_load: bool, redis_server: Option<PathBuf>) -> Result<Examiner, Failure> {
    let server = match no_load {
        true => Err("--no-load".to_owned()),
        false => Server::find(redis_server.as_deref())
            .await
            .map_err(Failure::Failed)?
            .ok_or_else(|| "no redis-server on this machine; name one by --redis-server".into()),
    };
    Ok(Examiner { store: open(context)?, program: redis_server, server, scratch: std::env::temp_dir(), by: owner() })
}

/// Which ones. Pure.
fn choose(entries: &[Entry], wanted: &Verify, guard: Guard) -> Result<Vec<SnapshotId>, String> {
    if let Some(id) = &wanted.id {
        return Ok(vec![id.clone()]);
    }
    let named = || entries.iter().filter_map(|entry| entry.name.parse().ok());
    let chosen: Vec<SnapshotId> =
        if wanted.all { named().collect() } else { best_first(entries, guard).into_iter().take(1).collect() };
    if chosen.is_empty() { Err("the store holds no snapshot to verify".into()) } else { Ok(chosen) }
}

fn render(found: &Found) -> String {
    let Some(verification) = &found.verification else {
        return format!("{}: not known: {}\n", found.snapshot, clean(found.remark.as_deref().unwrap_or_default()));
    };
    if let Some(problem) = &verification.problem {
        return format!("{}: BAD: {}\n", found.snapshot, clean(problem));
    }
    let keys: u64 = verification.keys.iter().flatten().map(|(_, keys)| keys).sum();
    let loaded = match (&verification.loaded_by, &found.remark) {
        (Some(version), _) => format!("loaded by server {version}"),
        (None, Some(remark)) => clean(remark),
        (None, None) => "no server loaded it".into(),
    };
    format!("{}: good, {keys} keys; {loaded}; {}\n", found.snapshot, time(verification.took_ms))
}

fn render_rehearsal(rehearsal: &Rehearsal) -> String {
    let passed: String = rehearsal.passed_over.iter().map(|why| format!("passed over {}\n", clean(why))).collect();
    let keys: u64 = rehearsal.restored.keys.iter().flatten().map(|(_, keys)| keys).sum();
    let server = rehearsal.restored.loaded_by.as_deref().unwrap_or("?");
    let took = time(rehearsal.restored.took_ms);
    format!(
        "{passed}{}: restored, {keys} keys, by server {server}, in {took} from the listing to the last key\n",
        rehearsal.snapshot
    )
}
