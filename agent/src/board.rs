//! What the agent says of itself: the parts its tasks know, and how they become one [`State`]. Pure.
//!
//! Invariant: `serving` is said only of a server that was assigned its role for this run, has its port open, is not fenced and answers
//! in that role; a replica also needs a whole copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Admission;
use crate::api::{
    Activity, Death, Epoch, FailedSource, Held, LocalDump, OriginState, Prepared, Redis, Role, Settings, State, Uploads,
};
use crate::config::Config;
use crate::lease::Standing;
use crate::memory::{self, Memory};
use crate::redis::info::Info;
use crate::server::Server;

/// What the running server was assigned to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Duty {
    /// Master or replica; `None` before an assignment.
    pub role: Role,
    /// Epoch of that assignment.
    pub epoch: Epoch,
    /// Epoch for which it is cut off.
    pub fenced: Option<Epoch>,
    /// Whether its copy is whole: what it was started from, or a completed sync.
    pub complete: bool,
    /// Whether it is being given a snapshot from the stream: it has nothing, or a part, however it looks.
    pub fed: bool,
    /// About to end: clients shall not come any more.
    pub withdrawn: bool,
    /// Settings in force.
    pub settings: Settings,
}

/// What a server has when it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// A whole copy.
    Whole,
    /// None, until its first sync with a master.
    Nothing,
    /// None, until all of a snapshot was given to it.
    Fed,
}

/// Kinds of long work, the one people want to see first coming first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    Checking,
    Fetching,
    Restoring,
    Loading,
    Saving,
    /// A backup waits for another one on this host.
    Waiting,
    Streaming,
    Uploading,
    ReadingBack,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Work::Checking => "checking",
            Work::Fetching => "fetching-binary",
            Work::Restoring => "restoring",
            Work::Loading => "loading",
            Work::Saving => "saving",
            Work::Waiting => "waiting",
            Work::Streaming => "streaming",
            Work::Uploading => "uploading",
            Work::ReadingBack => "reading-back",
        }
    }
}

/// How often a rate is measured.
const MEASURED_EVERY: Duration = Duration::from_millis(500);

/// Measures how fast a work goes, smoothly.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    /// When and where it was measured last; absent before.
    last: Option<(Instant, u64)>,
    bytes_per_s: f64,
}

impl Meter {
    /// The rate, given where the work stands now; another work begins with fewer bytes than the one before ended with.
    fn rate(&mut self, done_bytes: u64, now: Instant) -> u64 {
        match self.last.filter(|(_, before)| *before <= done_bytes) {
            None => *self = Meter { last: Some((now, done_bytes)), bytes_per_s: 0.0 },
            Some((at, before)) if now.saturating_duration_since(at) >= MEASURED_EVERY => {
                let fresh = (done_bytes - before) as f64 / now.saturating_duration_since(at).as_secs_f64();
                let known = if self.bytes_per_s > 0.0 { self.bytes_per_s } else { fresh };
                *self = Meter { last: Some((now, done_bytes)), bytes_per_s: 0.7 * known + 0.3 * fresh };
            }
            Some(_) => {}
        }
        self.bytes_per_s as u64
    }
}

/// Everything of a [`State`] that changes while the agent runs, apart from its memory.
#[derive(Clone, Default)]
pub(crate) struct Parts {
    pub server: Option<Arc<Server>>,
    /// The last answer of that server.
    pub info: Option<Info>,
    /// Whether the last probe was answered.
    pub answering: bool,
    pub duty: Duty,
    /// A death that is not in the memory yet.
    pub death: Option<Death>,
    /// The lease.
    pub standing: Standing,
    /// Who may replicate from this server.
    pub admission: Option<Admission>,
    /// Where the stream stood when writes were held back.
    pub held: Option<Held>,
    pub works: BTreeMap<Work, Activity>,
    /// How fast each kind of work goes.
    meters: BTreeMap<Work, Meter>,
    /// By subject, newest last.
    pub problems: Vec<(&'static str, String)>,
    pub failed_source: Option<FailedSource>,
    /// What came of the last `prepare`.
    pub prepared: Option<Prepared>,
    /// The origin that is followed, or was last.
    pub origin: Option<OriginState>,
    /// Why the server must not become master.
    pub cannot_lead: Option<String>,
    pub local: Option<LocalDump>,
    pub uploads: Uploads,
    pub stopping: bool,
}

impl Parts {
    /// Shows progress of long work.
    pub fn work(&mut self, work: Work, subject: &str, done_bytes: u64, total_bytes: u64) {
        let bytes_per_s = self.meters.entry(work).or_default().rate(done_bytes, Instant::now());
        let left_s = total_bytes.saturating_sub(done_bytes).checked_div(bytes_per_s).filter(|_| total_bytes > done_bytes);
        let (what, subject) = (work.name().into(), subject.into());
        let activity = Activity { what, subject, done_bytes, total_bytes, bytes_per_s, left_s };
        self.works.insert(work, activity);
    }

    /// Shows a problem of `subject` until [`Parts::solved`].
    pub fn problem(&mut self, subject: &'static str, text: String) {
        self.solved(subject);
        self.problems.push((subject, text));
    }

    /// The same for one that follows from another: it is shown only when nothing else is amiss.
    pub fn remark(&mut self, subject: &'static str, text: String) {
        self.solved(subject);
        self.problems.insert(0, (subject, text));
    }

    /// Takes the problem of `subject` back.
    pub fn solved(&mut self, subject: &'static str) {
        self.problems.retain(|(s, _)| *s != subject);
    }

    /// Shows whether the memory could be written.
    pub fn noted(&mut self, result: &Result<(), memory::Error>) {
        match result {
            Ok(()) => self.solved("memory"),
            Err(error) => self.problem("memory", error.to_string()),
        }
    }

    /// Whether clients are served in the assigned role.
    pub fn serving(&self) -> bool {
        let Some(info) = &self.info else { return false };
        let duty = &self.duty;
        let assigned = duty.role != Role::None && info.role == duty.role && info.tcp_port != 0;
        let allowed = duty.role != Role::Master || !self.standing.forbids_writes();
        assigned && allowed && duty.fenced.is_none() && !duty.withdrawn && !info.loading && duty.complete
    }
}

/// The state as it is served.
pub(crate) fn render(parts: &Parts, memory: &Memory, config: &Config, agent: &crate::api::Agent) -> State {
    State {
        cluster_id: memory.cluster_id.clone(),
        generation: memory.generation.clone(),
        instance: config.instance,
        task_id: config.task_id.clone(),
        epoch: memory.epoch,
        record_version: memory.record_version,
        assigned_epoch: if parts.server.is_some() { parts.duty.epoch } else { 0 },
        role: parts.info.as_ref().map_or(Role::None, |info| info.role),
        serving: parts.serving(),
        lease_ms_left: None,
        lease: parts.standing.describe(parts.admission.as_ref()),
        promised: false,
        held: parts.held.clone().filter(|_| parts.standing.is_held()),
        redis: parts.server.as_ref().map(|server| redis(server, parts, config)),
        agent: agent.clone(),
        host: config.host.clone(),
        fenced_epoch: parts.server.as_ref().and(parts.duty.fenced),
        deaths: deaths(parts, memory),
        local: if parts.server.is_some() { None } else { parts.local.clone() },
        activity: activity(parts),
        uploads: parts.uploads.clone(),
        settings: parts.duty.settings.clone(),
        problem: parts.problems.last().map(|(_, text)| text.clone()),
        failed_source: parts.failed_source.clone(),
        prepared: parts.prepared.clone(),
        origin: parts.origin.clone(),
        cannot_lead: parts.server.as_ref().and(parts.cannot_lead.clone()),
        stopping: parts.stopping,
    }
}

fn deaths(parts: &Parts, memory: &Memory) -> Vec<Death> {
    let mut deaths = memory.clone();
    parts.death.iter().cloned().for_each(|death| deaths.note_death(death));
    deaths.deaths
}

/// The work to show. A backup keeps nobody from starting a server, so it is shown beside a running one only.
fn activity(parts: &Parts) -> Option<Activity> {
    let shown = |work: &Work| *work < Work::Waiting || parts.server.is_some();
    parts.works.iter().find(|(work, _)| shown(work)).map(|(_, activity)| activity.clone())
}

fn redis(server: &Server, parts: &Parts, config: &Config) -> Redis {
    let info = parts.info.clone().unwrap_or_default();
    Redis {
        address: Some(config.redis.clone()),
        pid: server.pid,
        start_ticks: server.start_ticks,
        run_id: server.run_id().to_owned(),
        version: server.version.to_string(),
        keys: info.keys(),
        replid: info.replid,
        replid2: info.replid2,
        replid2_end: info.replid2_end,
        offset: info.offset,
        link: info.link,
        following: info.following,
        loading: info.loading || parts.duty.fed,
        syncing: info.syncing,
        open: info.tcp_port != 0,
        used_memory: info.used_memory,
        connected_replicas: info.connected_replicas,
        source: server.birth.source.clone(),
        started_epoch: server.birth.epoch,
        lease_module: server.is_guarded(),
        answering: parts.answering,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(role: Role) -> Parts {
        let info = Info { role, tcp_port: 6379, ..Info::default() };
        Parts { info: Some(info), duty: Duty { role, epoch: 3, complete: true, ..Duty::default() }, ..Parts::default() }
    }

    #[test]
    fn an_assigned_open_server_serves() {
        assert!(open(Role::Master).serving());
        assert!(open(Role::Replica).serving());
        assert!(!Parts::default().serving());
    }

    #[test]
    fn it_does_not_serve_when_anything_is_missing() {
        type Case = (&'static str, fn(&mut Parts));
        let cases: [Case; 7] = [
            ("closed", |p| p.info.as_mut().unwrap().tcp_port = 0),
            ("unassigned", |p| p.duty.role = Role::None),
            ("in another role than assigned", |p| p.duty.role = Role::Replica),
            ("fenced", |p| p.duty.fenced = Some(4)),
            ("loading", |p| p.info.as_mut().unwrap().loading = true),
            ("without a whole copy", |p| p.duty.complete = false),
            ("withdrawn", |p| p.duty.withdrawn = true),
        ];
        for (name, change) in cases {
            let mut parts = open(Role::Master);
            change(&mut parts);
            assert!(!parts.serving(), "{name}");
        }
    }

    #[test]
    fn the_rate_follows_the_work_and_begins_anew_with_another_one() {
        let (mut meter, begun) = (Meter::default(), Instant::now());
        let mut at = |ms, done| meter.rate(done, begun + Duration::from_millis(ms));
        assert_eq!((at(0, 0), at(100, 50)), (0, 0), "nothing measured yet");
        assert_eq!((at(1000, 1000), at(1100, 5000)), (1000, 1000));
        assert_eq!(at(2000, 3000), 1300);
        assert_eq!((at(3000, 10), at(4000, 20)), (0, 10));
    }

    #[test]
    fn what_is_left_is_told_once_a_rate_is_known() {
        let mut parts = Parts::default();
        parts.meters.insert(Work::Streaming, Meter { last: Some((Instant::now(), 10)), bytes_per_s: 5.0 });
        parts.work(Work::Streaming, "r", 20, 120);
        assert_eq!((parts.works[&Work::Streaming].bytes_per_s, parts.works[&Work::Streaming].left_s), (5, Some(20)));
        parts.work(Work::Streaming, "r", 130, 120);
        assert_eq!(parts.works[&Work::Streaming].left_s, None, "more than was expected");
        parts.work(Work::Saving, "x", 0, 0);
        assert_eq!(parts.works[&Work::Saving].left_s, None);
    }

    #[test]
    fn the_newest_problem_and_the_first_work_are_shown() {
        let mut parts = Parts::default();
        parts.problem("a", "1".into());
        parts.problem("b", "2".into());
        parts.problem("a", "3".into());
        assert_eq!(parts.problems.last().unwrap().1, "3");
        parts.solved("a");
        assert_eq!(parts.problems.last().unwrap().1, "2");
        parts.work(Work::Uploading, "x", 1, 2);
        parts.work(Work::Restoring, "y", 0, 0);
        assert_eq!(parts.works.values().next().unwrap().what, "restoring");
    }
}
