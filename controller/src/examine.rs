//! Proves that snapshots can be used: reads them back from the store, judges them, has a throw-away server load them, notes what was found.
//!
//! Called by the leading controller when its schedules say so, and by the command line. It runs where it is called, never on the host of a
//! member: a load takes as much memory as the data, and a controller's host has no server to lose. Before anything is fetched, disk and
//! memory are looked at; without room, or without a server here, the snapshot is judged as it streams by.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::causes::chain;
use agent::clock::unix_ms;
use agent::rdb::{self, Content};
use agent::snapshot::{self, Guard, Manifest, SnapshotId, Verification};
use agent::store::{Entry, Error, Progress, Report, Store};

pub mod load;
mod room;

use load::{Loaded, Server};

/// Longest time that one verification or rehearsal takes: it is broken off then.
pub const WITHIN: Duration = Duration::from_secs(5 * 3600);
/// Begins the name of the directories that are made below the scratch directory; then come the process id, `-`, and a random part.
const SCRATCH: &str = "aurora-redis-load-";

/// What examining needs.
pub struct Examiner {
    /// The cluster's store.
    pub store: Store,
    /// Where the server's program is; absent for the one on the path.
    pub program: Option<PathBuf>,
    /// The server's program as it was found; why there is none otherwise.
    pub server: Result<Server, String>,
    /// Directory for what is fetched.
    pub scratch: PathBuf,
    /// Who has it done, for the notes.
    pub by: String,
}

impl std::fmt::Debug for Examiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Examiner").field("server", &self.server).field("scratch", &self.scratch).finish_non_exhaustive()
    }
}

/// What was found of one snapshot.
#[derive(serde::Serialize)]
pub struct Found {
    /// Which.
    pub snapshot: SnapshotId,
    /// Absent when nothing could be found out.
    #[serde(flatten)]
    pub verification: Option<Verification>,
    /// Why no server loaded it, or why nothing could be found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// A restore that was rehearsed.
#[derive(serde::Serialize)]
pub struct Rehearsal {
    /// What was restored.
    pub snapshot: SnapshotId,
    /// What was found; its time is that of the whole restore, listing and failed tries included.
    #[serde(flatten)]
    pub restored: Verification,
    /// What was tried before it, and why that is no good.
    pub passed_over: Vec<String>,
}

/// What would be restored, the best first, as far as it can be told without the lineage. Pure.
pub fn best_first(entries: &[Entry], guard: Guard) -> Vec<SnapshotId> {
    let accepted = |id: &SnapshotId| entries.iter().any(|e| e.name == id.as_str() && e.marks.accepted.is_some());
    let all = snapshot::rank(entries.iter().filter_map(|entry| entry.of_cluster(None).ok()), |_| None);
    let suspicious = guard.suspicious(&all, accepted);
    let usable = snapshot::rank(entries.iter().filter_map(|entry| entry.usable(None).ok()), |_| None);
    usable.into_iter().map(|(id, _)| id.clone()).filter(|id| !suspicious.contains_key(id)).collect()
}

impl Examiner {
    /// Looks for the server's program again: it may have come or been replaced.
    pub async fn find_server(&mut self) {
        let found = Server::find(self.program.as_deref()).await;
        let none = || "no redis-server on this machine; name one by snapshots.redis_server".to_owned();
        self.server = found.and_then(|server| server.ok_or_else(none));
    }

    /// Verifies one snapshot, and notes what was found.
    ///
    /// # Errors
    /// It could not be noted.
    pub async fn verify(&self, id: &SnapshotId) -> Result<Found, Error> {
        let found = self.look_at(id).await;
        if let Some(verification) = &found.verification {
            self.store.note_verification(id, verification).await?;
        }
        Ok(found)
    }

    /// Does what a cluster would do that lost everything: lists the store, then fetches, judges and loads the best of these, given best first,
    /// and the next one when that is no good. `begun` is when it began. What was restored is noted, and what was found bad.
    ///
    /// # Errors
    /// Why nothing was restored, with what was tried.
    pub async fn rehearse(&self, order: &[SnapshotId], begun: Instant) -> Result<Rehearsal, String> {
        let listed = self.store.list().await.map_err(|e| chain(&e))?;
        if let Err(why) = &self.server {
            return Err(why.clone());
        }
        let mut passed_over = Vec::new();
        for id in order.iter().filter(|id| listed.iter().any(|entry| entry.name == id.as_str())) {
            let found = self.verify(id).await.map_err(|e| chain(&e))?;
            match found.verification {
                Some(Verification { problem: Some(problem), .. }) => passed_over.push(format!("{id}: {problem}")),
                Some(good) if good.loaded_by.is_some() => {
                    let restored = Verification { took_ms: millis(begun.elapsed()), ..good };
                    self.store.note_rehearsal(id, &restored).await.map_err(|e| chain(&e))?;
                    return Ok(Rehearsal { snapshot: id.clone(), restored, passed_over });
                }
                _ => return Err(format!("{id} was not loaded: {}", found.remark.unwrap_or_default())),
            }
        }
        match passed_over.is_empty() {
            true => Err("the store holds no snapshot to restore".into()),
            false => Err(format!("no snapshot could be restored: {}", passed_over.join("; "))),
        }
    }

    async fn look_at(&self, id: &SnapshotId) -> Found {
        let begun = Instant::now();
        let loading = match &self.server {
            Ok(server) => self.room(id).await.map(|()| server),
            Err(why) => Err(why.clone()),
        };
        let (judged, loaded_by, remark) = match loading {
            Err(why) => {
                let judged = self.store.verify(id, &Report::new(Progress::default())).await;
                (judged.map(|(_, content)| content), None, Some(why))
            }
            Ok(server) => match self.fetch_and_load(id, server).await {
                Ok(Outcome::Judged(content, loaded_by, remark)) => (Ok(content), loaded_by, remark),
                Ok(Outcome::Refused(why)) => return self.found(id, begun, Err(why), None, None),
                Err(error) => (Err(error), None, None),
            },
        };
        match judged {
            Ok(content) => {
                self.found(id, begun, Ok(&content), loaded_by, remark.map(|why| format!("no server loaded it: {why}")))
            }
            Err(error) if error.blames_snapshot() => self.found(id, begun, Err(chain(&error)), None, None),
            Err(error) => Found { snapshot: id.clone(), verification: None, remark: Some(chain(&error)) },
        }
    }

    /// Whether it can be fetched and loaded here; why not. What cannot be told of the snapshot is told by the fetch.
    async fn room(&self, id: &SnapshotId) -> Result<(), String> {
        match self.store.manifest(id).await {
            Ok(manifest) => room::check(&self.scratch, &manifest),
            Err(_) => Ok(()),
        }
    }

    fn found(
        &self,
        id: &SnapshotId,
        begun: Instant,
        judged: Result<&Content, String>,
        loaded_by: Option<String>,
        remark: Option<String>,
    ) -> Found {
        let keys = judged.as_ref().ok().map(|content| content.counts());
        let (at_ms, by, took_ms) = (unix_ms(), self.by.clone(), millis(begun.elapsed()));
        let verification = Verification { at_ms, by, problem: judged.err(), keys, loaded_by, took_ms };
        Found { snapshot: id.clone(), verification: Some(verification), remark }
    }

    /// Fetches the dump, which judges it against its manifest, walks it, and has the server load it.
    async fn fetch_and_load(&self, id: &SnapshotId, server: &Server) -> Result<Outcome, Error> {
        let scratch = Scratch::new(&self.scratch)?;
        let dump = scratch.0.join("dump.rdb");
        let manifest = self.store.get(id, &dump, &Report::new(Progress::default())).await?;
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
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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

impl Scratch {
    fn new(below: &Path) -> Result<Scratch, Error> {
        clear(below);
        let random = uuid::Uuid::new_v4().simple().to_string();
        let path = below.join(format!("{SCRATCH}{}-{}", std::process::id(), &random[..8]));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Scratch(path)),
            Err(source) => Err(Error::Disk { what: "create", path, source }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes what processes left that were killed. Best effort.
fn clear(below: &Path) {
    let names = std::fs::read_dir(below).into_iter().flatten().flatten().map(|entry| entry.file_name());
    for name in names.filter_map(|name| name.into_string().ok()) {
        let owner = name.strip_prefix(SCRATCH).and_then(|rest| rest.split_once('-')).and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(below.join(name));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_processes_left_is_cleared_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("examine-{}", uuid::Uuid::new_v4()));
        let own = format!("{SCRATCH}{}-1234abcd", std::process::id());
        let (gone, odd) = (format!("{SCRATCH}4294967295-1234abcd"), format!("{SCRATCH}x-1"));
        for name in [&own, &gone, &odd] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        clear(&dir);
        assert_eq!([&own, &gone, &odd].map(|name| dir.join(name).exists()), [true, false, true]);
        std::fs::remove_dir_all(&dir).unwrap();
        clear(&dir);
    }
}
