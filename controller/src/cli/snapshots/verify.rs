//! `snapshots verify`: reads snapshots back from the store, judges them, has a throw-away server load them, and notes what was found.
//!
//! Speaks to the store alone: it works while no controller does.

use std::path::{Path, PathBuf};
use std::time::Instant;

use agent::causes::chain;
use agent::rdb::{self, Content};
use agent::snapshot::{self, Guard, Manifest, SnapshotId, Verification};
use agent::store::{Entry, Error, Progress, Report, Store};

use super::super::table::{clean, time};
use super::super::{Context, Failure, owner};
use super::load::{Loaded, Server};
use super::{now_ms, open};

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

/// What was found of one snapshot.
#[derive(serde::Serialize)]
struct Found {
    snapshot: SnapshotId,
    /// Absent when nothing could be found out.
    #[serde(flatten)]
    verification: Option<Verification>,
    /// Why no server loaded it, or why nothing could be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
}

pub(in crate::cli) async fn verify(context: &Context, wanted: Verify) -> Result<(), Failure> {
    let store = open(context)?;
    let server = match wanted.no_load {
        true => Err("--no-load".to_owned()),
        false => Server::find(wanted.redis_server.as_deref())
            .await
            .map_err(Failure::Failed)?
            .ok_or_else(|| "no redis-server on this machine; name one by --redis-server".into()),
    };
    let chosen = choose(&store.list().await?, &wanted, context.place.guard).map_err(Failure::Failed)?;
    let mut all = Vec::new();
    for id in chosen {
        eprintln!("reading {id}");
        let found = one(&store, &id, &server).await;
        if let Some(verification) = &found.verification {
            store.note_verification(&id, verification).await?;
        }
        all.push(found);
    }
    context.print(&all, || all.iter().map(render).collect())?;
    let bad = all.iter().filter(|found| found.verification.as_ref().is_none_or(|v| v.problem.is_some())).count();
    if bad == 0 { Ok(()) } else { Err(Failure::Failed(format!("{bad} of {} snapshots not verified", all.len()))) }
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

/// What would be restored, the best first, as far as it can be told without the lineage.
pub(super) fn best_first(entries: &[Entry], guard: Guard) -> Vec<SnapshotId> {
    let accepted = |id: &SnapshotId| entries.iter().any(|e| e.name == id.as_str() && e.marks.accepted.is_some());
    let all = snapshot::rank(entries.iter().filter_map(|entry| entry.of_cluster(None).ok()), |_| None);
    let suspicious = guard.suspicious(&all, accepted);
    let usable = snapshot::rank(entries.iter().filter_map(|entry| entry.usable(None).ok()), |_| None);
    usable.into_iter().map(|(id, _)| id.clone()).filter(|id| !suspicious.contains_key(id)).collect()
}

async fn one(store: &Store, id: &SnapshotId, server: &Result<Server, String>) -> Found {
    let begun = Instant::now();
    let (judged, loaded_by, remark) = match server {
        Err(why) => {
            (store.verify(id, &Report::new(Progress::default())).await.map(|(_, content)| content), None, Some(why.clone()))
        }
        Ok(server) => match fetch_and_load(store, id, server).await {
            Ok(Outcome::Judged(content, loaded_by, remark)) => (Ok(content), loaded_by, remark),
            Ok(Outcome::Refused(why)) => return found(id, begun, Some(why), None, None, None),
            Err(error) => (Err(error), None, None),
        },
    };
    match judged {
        Ok(content) => found(id, begun, None, Some(&content), loaded_by, remark.map(|why| format!("no server loaded it: {why}"))),
        Err(error) if error.blames_snapshot() => found(id, begun, Some(chain(&error)), None, None, None),
        Err(error) => Found { snapshot: id.clone(), verification: None, remark: Some(chain(&error)) },
    }
}

fn found(
    id: &SnapshotId,
    begun: Instant,
    problem: Option<String>,
    content: Option<&Content>,
    loaded_by: Option<String>,
    remark: Option<String>,
) -> Found {
    let keys = content.map(|content| content.databases.iter().map(|(number, keys)| (*number, keys.keys)).collect());
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let verification = Verification { at_ms: now_ms(), by: owner(), problem, keys, loaded_by, took_ms };
    Found { snapshot: id.clone(), verification: Some(verification), remark }
}

/// What came of fetching and loading.
enum Outcome {
    /// It is whole; the server's version if one loaded it, else why none did.
    Judged(Content, Option<String>, Option<String>),
    /// The server does not take it.
    Refused(String),
}

/// A directory of its own, gone at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Fetches the dump, which judges it against its manifest, walks it, and has the server load it.
async fn fetch_and_load(store: &Store, id: &SnapshotId, server: &Server) -> Result<Outcome, Error> {
    let scratch =
        Scratch(std::env::temp_dir().join(format!("aurora-redis-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])));
    let disk = |source| Error::Disk { what: "create", path: scratch.0.clone(), source };
    std::fs::create_dir(&scratch.0).map_err(disk)?;
    let dump = scratch.0.join("dump.rdb");
    let manifest = store.get(id, &dump, &Report::new(Progress::default())).await?;
    let content = walk(id, &dump).await?;
    let cannot = |why: String| Ok(Outcome::Judged(content.clone(), None, Some(why)));
    if let Some(why) = obstacle(server, &manifest, &content) {
        return cannot(why);
    }
    match server.load(&scratch.0, &content).await {
        Ok(Loaded::Good) => Ok(Outcome::Judged(content, Some(server.version.clone()), None)),
        Ok(Loaded::Bad(why)) => Ok(Outcome::Refused(why)),
        Err(why) => cannot(why),
    }
}

async fn walk(id: &SnapshotId, dump: &Path) -> Result<Content, Error> {
    let disk = |source| Error::Disk { what: "read", path: dump.to_owned(), source };
    let file = std::fs::File::open(dump).map_err(disk)?;
    let walked = tokio::task::spawn_blocking(move || rdb::walk(file)).await.map_err(|e| disk(std::io::Error::other(e)))?;
    let walked = walked.map_err(disk)?.map_err(|flaw| {
        let offset = flaw.offset().unwrap_or(0);
        Error::Corrupt { snapshot: id.clone(), what: flaw.to_string(), offset }
    })?;
    Ok(walked.content)
}

/// Why this server is not the one to load it, whatever the dump is worth. Pure.
fn obstacle(server: &Server, manifest: &Manifest, content: &Content) -> Option<String> {
    if !content.modules.is_empty() {
        let modules: Vec<&str> = content.modules.iter().map(String::as_str).collect();
        return Some(format!("it needs modules: {}", modules.join(", ")));
    }
    rdb::can_load(&server.version, manifest.rdb).err().map(|reason| reason.to_string())
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
